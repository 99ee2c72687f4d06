"""Recurrent cells, RNN and Bidirectional."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity.cases import Case, Layer, quick_init

CELLS = ("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell")
X = (2, 5, 3)
LENGTHS = np.array([3, 5], np.int32)
TO_THE_END = np.array([1, 2, 2, 1, 2], np.int32)


KERNELS = {"kernel_init": quick_init, "recurrent_kernel_init": quick_init}


def step(name, **options):
    """One step of a cell; the carry of an LSTM is given as two arrays."""

    def make(nnx, rngs):
        class Step(nnx.Module):
            def __init__(self):
                self.cell = Layer(name, 3, 4, **options)(nnx, rngs)

            def __call__(self, x, *carry):
                return self.cell(carry if len(carry) > 1 else carry[0], x)

        return Step()

    carry = ((2, 4),) * (2 if "LSTM" in name else 1)
    return make, ((2, 3), *carry)


def rnn(cell, cell_options=None, **options):
    """An RNN that is given streams: with its default, the peer alone keeps one."""
    return Layer("RNN", Layer(cell, 3, 4, **KERNELS, **(cell_options or {})), **options)


def both(**options):
    """A cell without gates forwards and a GRU backwards."""
    return Layer("Bidirectional", rnn("SimpleCell"), rnn("GRUCell"), **options)


def drawn_carry(nnx, rngs):
    """An RNN whose cell draws its first carry."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the peer advises against it
        return rnn("SimpleCell", {"carry_init": jax.nn.initializers.normal()})(nnx, rngs)


CASES = [
    *(
        Case(
            f"{name} {label}",
            *step(name, **options),
            tolerance=0.0 if name == "SimpleCell" or "dtype" not in options else 2e-2,
        )
        for name in CELLS
        for label, options in {
            "float32": {},
            "in bfloat16": {"dtype": jnp.bfloat16, **KERNELS},
            "in float16": {"dtype": jnp.float16, "bias_init": quick_init, **KERNELS},
        }.items()
    ),
    Case("SimpleCell residual", *step("SimpleCell", residual=True, **KERNELS)),
    Case(
        "SimpleCell residual in bfloat16",
        *step("SimpleCell", residual=True, dtype=jnp.bfloat16, **KERNELS),
        tolerance=2e-2,
    ),
    Case("RNN in bfloat16", rnn("LSTMCell", {"dtype": jnp.bfloat16}), (X,), tolerance=4e-2),
    Case("RNN with a drawn carry", drawn_carry, (X,)),
    Case("RNN reverse", rnn("SimpleCell", reverse=True), (X,)),
    Case(
        "RNN reverse with lengths",
        rnn("SimpleCell", reverse=True, keep_order=True),
        (X,),
        call={"seq_lengths": LENGTHS},
    ),
    Case(
        "RNN carry with lengths",
        rnn("OptimizedLSTMCell", return_carry=True),
        (X,),
        call={"seq_lengths": LENGTHS},
    ),
    Case(
        "RNN time-major",
        rnn("SimpleCell", time_major=True, unroll=2),
        (X,),
        call={"return_carry": True, "seq_lengths": TO_THE_END},
    ),
    Case("RNN with two batch axes", rnn("GRUCell"), ((2, 1, 5, 3),)),
    Case(
        "Bidirectional with lengths",
        both(return_carry=True),
        (X,),
        call={"seq_lengths": LENGTHS},
    ),
    Case("Bidirectional time-major", both(merge_fn=jnp.add), (X,), call={"time_major": True}),
]
