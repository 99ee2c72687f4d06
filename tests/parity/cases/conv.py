"""Conv and ConvTranspose."""

import jax.numpy as jnp
import numpy as np

from tests.parity.cases import Case, Layer, in_precisions, quick_init

mask = jnp.asarray(np.arange(3 * 2 * 4) % 3 > 0, jnp.float32).reshape(3, 2, 4)


def conv(*args, **kwargs):
    return Layer("Conv", 2, 4, *args, kernel_init=quick_init, bias_init=quick_init, **kwargs)


def transpose(*args, **kwargs):
    inits = {"kernel_init": quick_init, "bias_init": quick_init}
    return Layer("ConvTranspose", 2, 4, *args, **inits, **kwargs)


CASES = [
    *in_precisions("Conv", Layer("Conv", 2, 4, (3,)), (2, 7, 2)),
    Case("Conv int kernel", conv(3, 2), ((2, 7, 2),)),
    Case("Conv 2D", conv((3, 2), (2, 1)), ((2, 7, 6, 2),)),
    Case("Conv 3D", conv((3, 2, 1), use_bias=False), ((2, 4, 5, 3, 2),)),
    *(
        Case(f"Conv {padding}", conv((3,), 2, kernel_dilation=2, padding=padding), ((2, 8, 2),))
        for padding in ("SAME", "SAME_LOWER", "VALID", "CIRCULAR", "REFLECT", "CAUSAL")
    ),
    *(
        Case(f"Conv 2D {padding}", conv((4, 2), padding=padding), ((2, 8, 5, 2),))
        for padding in ("CIRCULAR", "REFLECT", 1, (2, 1), ((1, 2), (0, 1)), ((1, 2), 1))
    ),
    Case("Conv wide circular", conv((9,), padding="CIRCULAR"), ((2, 3, 2),)),
    Case("Conv groups", conv((3,), feature_group_count=2), ((2, 7, 2),)),
    Case("Conv input dilation", conv((3,), input_dilation=2, padding=1), ((2, 7, 2),)),
    Case(
        "Conv dilations",
        conv((3,), kernel_dilation=(2,), input_dilation=(3,), padding=2),
        ((2, 7, 2),),
    ),
    Case("Conv mask", conv((3,), mask=mask), ((2, 7, 2),)),
    Case("Conv without batch", conv((3, 3)), ((5, 6, 2),)),
    Case("Conv of two batch axes", conv((3,)), ((2, 3, 7, 2),)),
    Case("Conv precision", conv((3,), precision="highest"), ((2, 7, 2),)),
    Case(
        "Conv preferred_element_type",
        conv((3,), dtype=jnp.bfloat16, preferred_element_type=jnp.float32),
        ((2, 7, 2),),
    ),
    *in_precisions("ConvTranspose", Layer("ConvTranspose", 2, 4, (3,), 2), (2, 7, 2)),
    Case("ConvTranspose int kernel", transpose(3), ((2, 7, 2),)),
    *(
        Case(
            f"ConvTranspose {k} {padding}", transpose(k, strides, padding=padding), ((2, 5, 6, 2),)
        )
        for k, strides in (((3, 2), (2, 3)), ((5, 4), (1, 2)))
        for padding in ("SAME", "VALID", "CIRCULAR", (1, 2), ((2, 1), (0, 1)))
    ),
    *(
        Case(
            f"ConvTranspose transposed kernel {padding}",
            transpose((3, 5), (2, 2), padding=padding, transpose_kernel=True),
            ((2, 5, 6, 2),),
        )
        for padding in ("SAME", "VALID", "CIRCULAR", 1)
    ),
    Case("ConvTranspose dilation", transpose((3,), 2, kernel_dilation=2), ((2, 7, 2),)),
    Case(
        "ConvTranspose circular dilation",
        transpose((3,), 2, kernel_dilation=2, padding="CIRCULAR"),
        ((2, 7, 2),),
    ),
    Case("ConvTranspose mask", transpose((3,), mask=mask), ((2, 7, 2),)),
    Case("ConvTranspose without batch", transpose((3, 3), use_bias=False), ((5, 6, 2),)),
    Case("ConvTranspose of two batch axes", transpose((3,)), ((2, 3, 7, 2),)),
    Case(
        "ConvTranspose preferred_element_type",
        transpose((3,), dtype=jnp.float16, preferred_element_type=jnp.float32),
        ((2, 7, 2),),
    ),
]
