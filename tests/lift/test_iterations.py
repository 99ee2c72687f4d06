"""Loops are numbered for whoever asks, and nothing is added where nobody does."""

import threading

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft._lift import iterations


class Layer(nnx.Module):
    def __init__(self, scale):
        self.scale = nnx.Param(scale)


def seen_by(call):
    """What is known of the loops around when `call(look)` looks: what of each, the innermost last.

    The numbers come out of the program, as a loop has many.
    """
    found, numbers = [], []

    def look():
        found[:] = iterations.state.running
        for i, loop in enumerate(found):
            jax.debug.callback(lambda n, i=i: numbers.append((i, int(n))), loop.number)

    with iterations.wanted():
        call(look)
    jax.effects_barrier()
    return found, numbers


def scan(look, **options):
    def body(total, layer):
        look()
        return total + layer.scale

    options = {"in_axes": (nnx.Carry, 0), "out_axes": nnx.Carry, **options}
    return nnx.scan(body, **options)(jnp.zeros(()), Layer(jnp.ones(3)))


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_loop_has_numbers_and_slices(is_reversed):
    (loop,), numbers = seen_by(lambda look: scan(look, reverse=is_reversed))
    assert loop.is_reversed is is_reversed
    assert [type(obj) for obj in loop.objects] == [Layer, nnx.Param]
    assert [n for _, n in numbers] == ([2, 1, 0] if is_reversed else [0, 1, 2])


def test_what_is_carried_is_no_slice():
    def body(layer, x):
        look()
        return layer, x

    def call(given):
        nonlocal look
        look = given
        nnx.scan(body)(Layer(jnp.ones(())), jnp.ones(2))

    look = None
    (loop,), _ = seen_by(call)
    assert loop.objects == []


def test_a_length_alone():
    def call(look):
        def body(x):
            look()
            return x

        nnx.scan(body, length=2, in_axes=nnx.Carry, out_axes=nnx.Carry)(jnp.zeros(()))

    _, numbers = seen_by(call)
    assert numbers == [(0, 0), (0, 1)]


def test_loops_in_loops_are_in_the_order_of_their_traces():
    def call(look):
        def outer(x, _):
            return x + scan(look), None

        nnx.scan(outer)(jnp.zeros(()), jnp.ones(2))

    (first, second), _ = seen_by(call)
    assert first.entered < second.entered


def test_nothing_is_added_where_nobody_asks():
    def program():
        return str(jax.make_jaxpr(lambda: scan(lambda: None))())

    before = program()
    assert "iota" not in before and iterations.state.running == ()
    with iterations.wanted():
        nnx.clear_caches()
        assert "iota" in program()
    nnx.clear_caches()
    assert program() == before


def test_other_threads_ask_for_themselves():
    found = []
    with iterations.wanted():
        thread = threading.Thread(target=lambda: found.append(iterations.state.are_wanted))
        thread.start()
        thread.join()
    assert found == [False] and not iterations.state.are_wanted
