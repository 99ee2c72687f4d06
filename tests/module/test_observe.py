"""Watching calls of methods without changing classes."""

import functools
import threading

import jax
import pytest

import weft as nnx
from weft._module.observe import observing, original_class


class Base(nnx.Module):
    def __init__(self, n=1):
        self.n = n

    def __call__(self, x, *, rngs=None):
        return self.add(x)

    def add(self, x):
        return x + self.n

    def _hidden(self):
        return 0

    @property
    def size(self):
        return self.n

    @staticmethod
    def static(x):
        return x

    @classmethod
    def made(cls):
        return cls()


class Derived(Base):
    twice = functools.partialmethod(Base.add, 2)

    def __call__(self, x, *, rngs=None):
        return super().__call__(x)


@pytest.fixture
def seen():
    return []


@pytest.fixture
def observer(seen):
    def observe(obj, name, call, args, kwargs):
        seen.append(("begin", name, args, kwargs))
        output = call(*args, **kwargs)
        seen.append(("end", name, output))
        return output

    return observe


def test_calls_of_public_methods_are_told_when_they_begin_and_end(seen, observer):
    obj = Derived()
    with observing([obj], observer):
        assert obj(1, rngs=None) == 2
    assert seen == [
        ("begin", "__call__", (1,), {"rngs": None}),
        ("begin", "add", (1,), {}),
        ("end", "add", 2),
        ("end", "__call__", 2),
    ]


def test_other_attributes_are_left_alone(seen, observer):
    obj = Derived()
    with observing([obj], observer):
        obj.train()
        assert (obj._hidden(), obj.size, obj.static(3), type(obj.made()) is type(obj)) == (
            0,
            1,
            3,
            True,
        )
        assert isinstance(obj, Derived) and original_class(type(obj)) is Derived
        assert type(obj).__name__ == "Derived" and type(obj).__qualname__ == Derived.__qualname__
    assert seen == [] and type(obj) is Derived


def test_partial_methods_are_methods(seen, observer):
    obj = Derived()
    with observing([obj], observer):
        assert obj.twice() == 3
    assert seen[0][:2] == ("begin", "twice")


def test_only_the_given_objects_are_observed(seen, observer):
    obj, other = Base(), Base()
    with observing([obj], observer):
        other(1)
    assert seen == []


def test_observers_nest(seen, observer):
    obj, inner = Base(), []

    def quiet(obj, name, call, args, kwargs):
        inner.append(name)
        return call(*args, **kwargs)

    with observing([obj], observer):
        with observing([obj], quiet):
            obj.add(1)
        obj.add(2)
    assert inner == ["add"] and len(seen) == 4 and type(obj) is Base


def test_an_observer_may_change_what_goes_in_and_comes_out():
    obj = Base()

    def negate(obj, name, call, args, kwargs):
        return -call(*(10 * x for x in args), **kwargs)

    with observing([obj], negate):
        assert obj.add(2) == -21


def test_other_threads_are_not_observed(seen, observer):
    obj, results = Base(), []
    with observing([obj], observer):
        thread = threading.Thread(target=lambda: results.append(obj(1)))
        thread.start()
        thread.join()
    assert results == [2] and seen == []


def test_after_an_error_the_class_is_as_before(observer):
    obj = Base()
    with pytest.raises(TypeError), observing([obj], observer):
        obj.add(None)
    assert type(obj) is Base


def test_objects_that_are_no_pytrees_stay_none(seen, observer):
    class Counter(nnx.Object):
        def count(self):
            return 1

    class Opted(nnx.Module, pytree=False):
        def count(self):
            return 2

    for obj in (Counter(), Opted()):
        with observing([obj], observer):
            assert jax.tree.leaves(obj) == [obj] and obj.count()
    assert len(seen) == 4


def test_classes_are_made_once():
    obj = Base()
    classes = set()
    for _ in range(2):
        with observing([obj], lambda obj, name, call, args, kwargs: call()):
            classes.add(type(obj))
    assert len(classes) == 1
