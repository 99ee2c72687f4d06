"""LoRA and LoRALinear."""

import jax.numpy as jnp

from tests.parity.cases import Case, Layer, in_precisions, quick_init

CASES = [
    *in_precisions("LoRA", Layer("LoRA", 3, 2, 5, b_initializer=quick_init), (4, 3)),
    Case("LoRA default", Layer("LoRA", 3, 2, 5), ((4, 3),)),
    Case(
        "LoRA around a layer",
        Layer("LoRA", 3, 2, 5, base_module=Layer("Linear", 3, 5), b_initializer=quick_init),
        ((4, 3),),
    ),
    Case(
        "LoRA of another dtype than its layer",
        Layer("LoRA", 3, 2, 5, base_module=Layer("Linear", 3, 5), dtype=jnp.float16),
        ((4, 3),),
    ),
    Case(
        "LoRALinear", Layer("LoRALinear", 3, 5, lora_rank=2, b_initializer=quick_init), ((2, 4, 3),)
    ),
    Case(
        "LoRALinear dtypes",
        Layer(
            "LoRALinear",
            3,
            5,
            lora_rank=2,
            dtype=jnp.bfloat16,
            lora_dtype=jnp.bfloat16,
            lora_param_dtype=jnp.bfloat16,
            b_initializer=quick_init,
        ),
        ((4, 3),),
    ),
    Case(
        "LoRALinear lower adapter dtype",
        Layer("LoRALinear", 3, 5, lora_rank=2, lora_dtype=jnp.float16, b_initializer=quick_init),
        ((4, 3),),
    ),
]
