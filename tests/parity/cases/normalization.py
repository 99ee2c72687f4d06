"""BatchNorm, LayerNorm, RMSNorm, GroupNorm, InstanceNorm, WeightNorm and SpectralNorm."""

import jax.numpy as jnp
import numpy as np

from tests.parity.cases import Case, Layer, in_precisions, quick_init

NAMES = ("BatchNorm", "LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm")
RANDOM = {"scale_init": quick_init, "bias_init": quick_init}
SHAPE = (2, 3, 4)
MASK = np.random.default_rng(3).random(SHAPE) < 0.7
MASK[:, 0] = MASK[..., 0] = True


def norm(name, **options):
    """A layer for four features, of which GroupNorm makes two groups."""
    if name == "GroupNorm" and "group_size" not in options:
        options = {"num_groups": 2, **options}
    return Layer(name, 4, **options)


CASES = [
    *(
        case
        for name in NAMES
        for case in in_precisions(
            name,
            norm(name),
            SHAPE,
            tolerances={"float16": 2e-3} if name == "BatchNorm" else None,
        )
    ),
    *(
        Case(f"{name} with a mask", norm(name), (SHAPE,), call={"mask": MASK}, tolerance=tolerance)
        for name, tolerance in zip(NAMES, (1e-6, 1e-6, 0.0, 0.0, 1e-6), strict=True)
    ),
    *(
        Case(
            f"{name} without scale",
            norm(name, use_scale=False, param_dtype=jnp.bfloat16),
            (SHAPE,),
            jnp.bfloat16,
        )
        for name in ("RMSNorm", "LayerNorm")
    ),
    *(
        Case(f"{name} with initializers", norm(name, **RANDOM), (SHAPE,))
        for name in NAMES
        if name != "RMSNorm"
    ),
    *(
        Case(f"{name} in two passes", norm(name, use_fast_variance=False), (SHAPE,))
        for name in NAMES
    ),
    Case("RMSNorm with an initializer", norm("RMSNorm", scale_init=quick_init), (SHAPE,)),
    Case("BatchNorm in evaluation", norm("BatchNorm", use_running_average=True), (SHAPE,)),
    Case(
        "BatchNorm in evaluation in bfloat16",
        norm("BatchNorm", use_running_average=True, dtype=jnp.bfloat16),
        (SHAPE,),
        tolerance=2e-2,
    ),
    Case(
        "BatchNorm told at the call",
        norm("BatchNorm", use_running_average=None, momentum=0.5),
        (SHAPE,),
        call={"use_running_average": False},
    ),
    Case("BatchNorm over another axis", Layer("BatchNorm", 3, axis=1), (SHAPE,)),
    Case("BatchNorm bare", norm("BatchNorm", use_scale=False, use_bias=False), (SHAPE,)),
    Case(
        "BatchNorm with a mask in two passes",
        norm("BatchNorm", use_fast_variance=False),
        (SHAPE,),
        call={"mask": MASK[..., :1]},
        tolerance=1e-6,
    ),
    Case(
        "LayerNorm over two axes",
        Layer("LayerNorm", 12, reduction_axes=(1, 2), feature_axes=(1, 2), scale_init=quick_init),
        (SHAPE,),
    ),
    Case("LayerNorm without bias", norm("LayerNorm", use_bias=False), ((4,),)),
    Case("GroupNorm by size", norm("GroupNorm", num_groups=None, group_size=4), (SHAPE,)),
    Case("GroupNorm over chosen axes", norm("GroupNorm", reduction_axes=(0, 2)), (SHAPE,)),
    Case("GroupNorm of vectors", norm("GroupNorm"), ((2, 4),)),
    Case(
        "InstanceNorm of two feature axes",
        Layer("InstanceNorm", 12, feature_axes=(1, -1)),
        ((2, 3, 5, 4),),
    ),
    Case(
        "WeightNorm without scale",
        Layer("WeightNorm", Layer("Linear", 3, 4), use_scale=False),
        ((2, 3),),
    ),
    Case(
        "WeightNorm of one axis",
        Layer("WeightNorm", Layer("Linear", 3, 4), use_scale=False, feature_axes=0, epsilon=0.1),
        ((2, 3),),
    ),
    Case(
        "WeightNorm of a convolution",
        Layer("WeightNorm", Layer("Conv", 3, 4, kernel_size=2), use_scale=False, feature_axes=None),
        ((2, 5, 3),),
    ),
    Case("SpectralNorm", Layer("SpectralNorm", Layer("Linear", 3, 4)), ((2, 3),)),
    Case("SpectralNorm steps", Layer("SpectralNorm", Layer("Linear", 3, 4), n_steps=3), ((2, 3),)),
    Case(
        "SpectralNorm in bfloat16",
        Layer(
            "SpectralNorm",
            Layer("Linear", 3, 4, param_dtype=jnp.bfloat16),
            param_dtype=jnp.bfloat16,
        ),
        ((2, 3),),
        jnp.bfloat16,
    ),
    Case(
        "SpectralNorm in evaluation",
        Layer("SpectralNorm", Layer("Linear", 3, 4)),
        ((2, 3),),
        call={"update_stats": False},
    ),
    Case(
        "SpectralNorm of a convolution",
        Layer("SpectralNorm", Layer("Conv", 3, 4, kernel_size=2)),
        ((2, 5, 3),),
    ),
]
