"""Linear, LinearGeneral, Einsum and Embed."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity.cases import Case, Layer, in_precisions, quick_init

normal = jax.nn.initializers.normal()

CASES = [
    *in_precisions("Linear", Layer("Linear", 3, 5), (4, 3)),
    Case("Linear without bias", Layer("Linear", 3, 5, use_bias=False), ((2, 4, 3),)),
    Case("Linear of a vector", Layer("Linear", 3, 5), ((3,),)),
    Case(
        "Linear initializers", Layer("Linear", 3, 5, kernel_init=normal, bias_init=normal), ((3,),)
    ),
    Case("Linear precision", Layer("Linear", 3, 5, precision="highest"), ((4, 3),)),
    Case(
        "Linear preferred_element_type",
        Layer("Linear", 3, 5, dtype=jnp.bfloat16, preferred_element_type=jnp.float32),
        ((4, 3),),
    ),
    Case(
        "Linear lower preferred_element_type",
        Layer("Linear", 3, 5, preferred_element_type=jnp.bfloat16),
        ((4, 3),),
    ),
    *in_precisions("LinearGeneral", Layer("LinearGeneral", 3, (2, 5)), (4, 3)),
    Case("LinearGeneral last axes", Layer("LinearGeneral", (2, 3), 5, axis=(-2, -1)), ((4, 2, 3),)),
    Case("LinearGeneral middle axis", Layer("LinearGeneral", 2, 5, axis=1), ((4, 2, 3),)),
    Case("LinearGeneral mixed axes", Layer("LinearGeneral", (2, 3), 5, axis=(-1, 1)), ((4, 2, 3),)),
    Case(
        "LinearGeneral batch axis",
        Layer(
            "LinearGeneral",
            3,
            (5, 2),
            batch_axis={0: 4},
            bias_init=quick_init,
            kernel_init=quick_init,
        ),
        ((4, 2, 3),),
    ),
    Case(
        "LinearGeneral batch axes",
        Layer("LinearGeneral", (3, 2), 5, axis=(2, 3), batch_axis={0: 4, 1: 2}, use_bias=False),
        ((4, 2, 3, 2),),
    ),
    Case(
        "LinearGeneral preferred_element_type",
        Layer("LinearGeneral", 3, 5, dtype=jnp.float16, preferred_element_type=jnp.float32),
        ((4, 3),),
    ),
    *in_precisions("Einsum", Layer("Einsum", "nta,hab->nthb", (2, 3, 4), (2, 4)), (5, 6, 3)),
    Case("Einsum without bias", Layer("Einsum", "ta,ab->tb", (3, 4)), ((5, 3),)),
    Case(
        "Einsum bias in the middle",
        Layer(
            "Einsum",
            "nta,hab->hntb",
            (2, 3, 4),
            (2, 4),
            bias_init=quick_init,
            kernel_init=quick_init,
        ),
        ((5, 6, 3),),
    ),
    Case(
        "Einsum bias in the order of the kernel",
        Layer(
            "Einsum",
            "nta,hab->btnh",
            (2, 3, 4),
            (2, 4),
            bias_init=quick_init,
            kernel_init=quick_init,
        ),
        ((5, 6, 3),),
    ),
    Case(
        "Einsum ellipsis",
        Layer(
            "Einsum",
            "...a,hab->...bh",
            (2, 3, 4),
            (4, 2),
            bias_init=quick_init,
            kernel_init=quick_init,
        ),
        ((5, 6, 3),),
    ),
    Case(
        "Einsum ellipsis in the kernel",
        Layer(
            "Einsum",
            "...a, ...ab -> ...b",
            (2, 3, 4),
            (2, 4),
            bias_init=quick_init,
            kernel_init=quick_init,
        ),
        ((5, 2, 3),),
    ),
    Case(
        "Einsum string at the call",
        Layer("Einsum", "ta,ab->tb", (3, 4), (4,)),
        ((2, 5, 3),),
        call={"einsum_str": "nta,ab->ntb"},
    ),
    *in_precisions("Embed", Layer("Embed", 6, 3), inputs=(np.array([[0, 5, 2], [1, 4, 5]]),)),
    Case("Embed of one row", Layer("Embed", 1, 3), (np.array([0, 0, 0]),)),
    *in_precisions("Embed.attend", Layer("Embed", 6, 3), (2, 3), method="attend"),
    *in_precisions("PReLU", Layer("PReLU"), (4, 3)),
    Case("PReLU slope", Layer("PReLU", 0.3), ((4, 3),)),
]
