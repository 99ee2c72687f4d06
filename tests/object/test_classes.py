"""Classes of the user's that go another way: what they change is seen, or they are refused."""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
import operator
import pickle
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft._object.classes import reports_changes
from weft._object.pytree import attributes

T = TypeVar("T")


def fill(obj: Any) -> None:
    obj.w, obj.rate = nnx.Param(jnp.ones(2)), 1.0


# -- changes that Weft's own `__setattr__` does not see


class Validates(nnx.Module):
    def __init__(self) -> None:
        fill(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "rate" and value < 0:
            raise ValueError(name)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)


class Below(Validates):
    pass


class Logs:
    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


class WithMixin(Logs, nnx.Module):
    def __init__(self) -> None:
        fill(self)


class Deletes(nnx.Module):
    def __init__(self) -> None:
        fill(self)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)


class Lazy(nnx.Module):
    """Has methods that go past `__setattr__`, which is Weft's."""

    def __init__(self) -> None:
        fill(self)

    @classmethod
    def made(cls) -> Lazy:
        return cls()

    def hasten(self) -> None:
        object.__setattr__(self, "rate", 5.0)

    @property
    def hastened(self) -> None:
        (lambda: object.__setattr__(self, "rate", 5.0))()


class LazyToo(Lazy):
    pass


@nnx.dataclass(frozen=True)
class FrozenFields(nnx.Module):
    w: Any = dataclasses.field(default_factory=lambda: nnx.Param(jnp.ones(2)))
    rate: float = 1.0


class Describes:
    def describe(self) -> str:
        return type(self).__name__


class Named(Protocol):
    def describe(self) -> str: ...


class WithDict(Describes, nnx.Module):
    def __init__(self) -> None:
        fill(self)


class WithProtocol(Named, nnx.Module):
    def __init__(self) -> None:
        fill(self)


class WithAbc(Describes, abc.ABC, nnx.Module, Generic[T]):
    def __init__(self) -> None:
        fill(self)


class Plain(nnx.Module):
    def __init__(self) -> None:
        fill(self)


def replace_dict(obj: Any) -> None:
    obj.__dict__ = {**attributes(obj), "rate": 5.0}


def double(kind: type) -> type:
    """Returns a class with other code, as editing it in a notebook does."""
    return type(kind.__name__, (kind,), {"__call__": lambda self: self.w[...] * 5.0})


Change = Callable[[Any], Any]
BY_SET: dict[str, Change] = {"setattr": lambda m: setattr(m, "rate", 5.0)}
BY_OBJECT: dict[str, Change] = {
    "object.__setattr__": lambda m: object.__setattr__(m, "rate", 5.0),
    "object.__delattr__": lambda m: (object.__delattr__(m, "rate"), setattr_past(m, 5.0)),
}
BY_DICT: dict[str, Change] = {
    "vars": lambda m: operator.setitem(vars(m), "rate", 5.0),
    "update of vars": lambda m: m.__dict__.update(rate=5.0),
    "another dict": replace_dict,
}
BY_CLASS: dict[str, Change] = {
    "class": lambda m: object.__setattr__(m, "__class__", double(type(m))),
    "class, as usual": lambda m: setattr(m, "__class__", double(type(m))),
}
WAYS: dict[type, dict[str, Change]] = {
    Plain: BY_SET | BY_DICT | BY_CLASS,
    Validates: BY_SET | BY_OBJECT | BY_DICT | BY_CLASS,
    Below: BY_SET | BY_OBJECT | BY_DICT | BY_CLASS,
    WithMixin: BY_SET | BY_OBJECT | BY_DICT | BY_CLASS,
    Deletes: BY_SET | BY_OBJECT | BY_DICT,
    Lazy: {"method": Lazy.hasten, "property": lambda m: m.hastened} | BY_OBJECT,
    LazyToo: {"method": Lazy.hasten} | BY_OBJECT,
    FrozenFields: BY_OBJECT,
    WithDict: BY_SET | BY_DICT | BY_CLASS,
    WithProtocol: BY_SET | BY_DICT | BY_CLASS,
    WithAbc: BY_SET | BY_DICT,
}


def setattr_past(obj: Any, rate: float) -> None:
    object.__setattr__(obj, "rate", rate)


def value(m: Any) -> Any:
    return m() if hasattr(m, "__call__") else m.w[...] * m.rate  # noqa: B004


@pytest.mark.parametrize(
    ("kind", "way"), [(kind, way) for kind, ways in WAYS.items() for way in ways]
)
@pytest.mark.parametrize("inside", [False, True], ids=["root", "below"])
def test_a_change_is_seen(kind: Any, way: str, inside: bool) -> None:
    m = kind()
    root: Any = [m] if not inside else nnx.Module()
    if inside:
        root.part = m
    read = (lambda x: x.part) if inside else (lambda x: x[0])
    root = root if inside else m
    get = read if inside else (lambda x: x)
    f = nnx.jit(lambda x: value(get(x)))
    for _ in range(3):
        f(root)
        nnx.split(root)
    WAYS[kind][way](m)
    assert f(root).tolist() == [5.0, 5.0]
    assert value(get(nnx.merge(*nnx.split(root)))).tolist() == [5.0, 5.0]
    assert value(get(nnx.clone(root))).tolist() == [5.0, 5.0]
    for _ in range(3):
        f(root)
        nnx.split(root)
    attributes(m)["w"].set_value(jnp.zeros(2))
    assert f(root).tolist() == [0.0, 0.0]


def test_another_variable_is_seen() -> None:
    m = Validates()
    f = nnx.jit(lambda m: m.w[...] * m.rate)
    for _ in range(3):
        f(m)
        nnx.split(m)
    m.w = nnx.Param(jnp.zeros(2))
    assert nnx.state(m)["w"] is m.w
    assert f(m).tolist() == [0.0, 0.0]


def test_a_mark_that_is_stored_is_refused() -> None:
    m = Validates()
    m.scale = nnx.data(1.0)
    found = (
        r"Validates\.scale holds what `nnx\.data\(\.\.\.\)` returned, which Weft's own "
        r"`__setattr__` takes the value out of: end `Validates\.__setattr__` with "
        r"`super\(\)\.__setattr__\(name, value\)` in place of `object\.__setattr__`"
    )
    for use in (nnx.split, nnx.clone, nnx.jit(lambda m: 1)):
        with pytest.raises(nnx.StructureError, match=found):
            use(m)


def test_what_reports_is_not_compared() -> None:
    assert all(map(reports_changes, (Plain, nnx.Linear, nnx.List, nnx.Dict, nnx.Sequential)))
    assert not any(map(reports_changes, (Validates, Below, WithMixin, Deletes, FrozenFields, Lazy)))
    assert all(map(reports_changes, (WithDict, WithProtocol, WithAbc)))


def test_a_class_that_is_patched_later() -> None:
    class Late(nnx.Module):
        def __init__(self) -> None:
            fill(self)

    Late.__setattr__ = Validates.__setattr__  # type: ignore[method-assign]
    m = Late()
    f = nnx.jit(lambda m: m.w[...] * m.rate)
    f(m), f(m)
    m.rate = 5.0
    assert f(m).tolist() == [5.0, 5.0]


def test_a_class_that_nobody_prepared() -> None:
    class Silent:
        def __init_subclass__(cls, **kwargs: Any) -> None:
            pass

    class Net(Silent, nnx.Module):
        def __init__(self) -> None:
            fill(self)

    assert not reports_changes(Net)
    m = Net()
    f = nnx.jit(lambda m: m.w[...] * m.rate)
    f(m), f(m)
    vars(m)["rate"] = 5.0
    assert f(m).tolist() == [5.0, 5.0]


def test_isinstance_and_super_know_the_class() -> None:
    m = WithAbc()
    assert m.__class__ is WithAbc
    assert isinstance(m, (Describes, nnx.Module)) and not isinstance(m, Validates)
    assert m.describe() == "WithAbc"
    with pytest.raises(TypeError, match="__class__"):
        m.__class__ = int


# -- slots


def test_slots_are_refused() -> None:
    found = (
        r"Slotted keeps 'a', 'b' in slots, where transforms, copies and checkpoints do not see "
        r"them: leave `__slots__` out, or `slots=True` of the dataclass.*Slotted\(nnx\.Module\)"
    )
    with pytest.raises(TypeError, match=found):

        class Slotted(nnx.Module):
            __slots__ = ("a", "b")

    with pytest.raises(TypeError, match="Data keeps 'x' in slots"):

        @dataclasses.dataclass(slots=True)
        class Data(nnx.Module):
            x: Any

    with pytest.raises(TypeError, match="Items keeps 'x' in slots"):

        class Items(nnx.List):
            __slots__ = ("x",)

    class Empty(nnx.Module):
        __slots__ = ()

    fill(Empty())


# -- abstract methods


def test_abstract_methods_need_no_abc() -> None:
    class Layer(nnx.Module):
        @abc.abstractmethod
        def f(self) -> int: ...

    class Half(Layer):
        pass

    class Whole(Half):
        def f(self) -> int:
            return 1

    for kind in (Layer, Half):
        with pytest.raises(TypeError, match="abstract"):
            kind()
    assert Whole().f() == 1
    assert nnx.clone(Whole()).f() == 1

    class WithAbc(nnx.Module, abc.ABC):
        @abc.abstractmethod
        def f(self) -> int: ...

    with pytest.raises(TypeError, match="abstract"):
        WithAbc()


# -- `__new__`


def uses(m: Any) -> None:
    """Does with an object what needs all of its slots."""
    f = nnx.jit(lambda m: m)
    assert f(m) is m and f(m) is m
    nnx.split(m), nnx.split(m)
    jax.tree.map(lambda x: x, m)
    m.rate = 2.0
    assert nnx.clone(m).rate == f(m).rate == 2.0
    assert copy.deepcopy(m).rate == 2.0


class Registered(nnx.Module):
    made: ClassVar[dict[str, Any]] = {}

    def __new__(cls, name: str) -> Any:
        return cls.made.setdefault(name, object.__new__(cls))

    def __init__(self, name: str) -> None:
        if not hasattr(self, "w"):
            fill(self)


class Single:
    made: Any = None

    def __new__(cls, *args: Any) -> Any:
        if cls.made is None:
            cls.made = object.__new__(cls)
        return cls.made


class SingleLayer(Single, nnx.Module):
    """Has no attributes, so that nothing is set in it."""


class Elsewhere(nnx.Module):
    def __new__(cls) -> Any:
        return 3


class OnceMore(Registered):
    def __new__(cls, name: str) -> Any:
        return super().__new__(cls, name + "!")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Registered("a"),
        lambda: OnceMore("b"),
        SingleLayer,
        lambda: object.__new__(SingleLayer),
        lambda: object.__new__(Plain),
    ],
    ids=["registered", "subclass", "mixin", "past a mixin", "past Pytree"],
)
def test_a_new_of_the_user(make: Any) -> None:
    m = make()
    if type(m) is not SingleLayer:
        fill(m)
    m.rate = 1.0
    uses(m)


def test_what_new_returns() -> None:
    assert Registered("a") is Registered("a")
    assert Registered("a") is not Registered("c")
    assert SingleLayer() is SingleLayer()
    nnx.split(SingleLayer())
    assert Elsewhere() == 3
    bare = object.__new__(Plain)
    vars(bare)["rate"] = 1.0
    uses(bare)


# -- hooks of pickle and copy


class Worker(nnx.Module):
    def __init__(self) -> None:
        fill(self)
        self.scale = nnx.data(2.0)
        self.lock = threading.Lock()


class ByVars(Worker):
    def __getstate__(self) -> Any:
        return {k: v for k, v in vars(self).items() if k != "lock"}


class BySuper(Worker):
    def __getstate__(self) -> Any:
        state = dict(super().__getstate__())
        del state["lock"]
        return state

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        self.lock = threading.Lock()


class BySuperToo(ByVars):
    def __setstate__(self, state: Any) -> None:
        self.lock = threading.Lock()
        super().__setstate__(state)


class ByReduce(Worker):
    def __reduce__(self) -> Any:
        return ByReduce, ()


class ByOldReduce(ByVars):
    def __reduce__(self) -> Any:
        return object.__reduce__(self)


class ByReduceEx(ByVars):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(protocol)


class ByArguments(ByVars):
    def __new__(cls, name: str) -> Any:
        new = super().__new__(cls)
        new.name = name
        return new

    def __init__(self, name: str) -> None:
        super().__init__()

    def __getnewargs__(self) -> Any:
        return (self.name + "!",)

    def __getstate__(self) -> Any:
        return {k: v for k, v in super().__getstate__().items() if k != "name"}


class ByKeywords(ByArguments):
    def __getnewargs_ex__(self) -> Any:
        return (), {"name": self.name + "!"}


MAKE: dict[str, Callable[[], Any]] = {
    **{kind.__name__: kind for kind in (ByVars, BySuper, BySuperToo, ByReduce, ByReduceEx)},
    "ByOldReduce": ByOldReduce,
    "ByArguments": lambda: ByArguments("a"),
    "ByKeywords": lambda: ByKeywords("a"),
}
THROUGH: dict[str, Callable[[Any], Any]] = {
    **{f"pickle {n}": lambda x, n=n: pickle.loads(pickle.dumps(x, n)) for n in (0, 2, 5)},
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("name", MAKE)
def test_hooks_of_pickle(name: str, through: str) -> None:
    m = MAKE[name]()
    new = THROUGH[through](m)
    assert type(new) is type(m) and new is not m
    assert new.w[...].tolist() == [1.0, 1.0]
    assert new.rate == 1.0 and new.scale == 2.0
    assert (
        hasattr(new, "lock")
        == hasattr(type(m), "__setstate__") * (type(m).__setstate__ is not nnx.Module.__setstate__)
        or name == "ByReduce"
    )
    if name != "ByOldReduce":  # which tells nothing of marks
        assert new._pytree_marks == {"scale": True}
    if "name" in vars(m):
        assert new.name == "a!"
    uses(new) if not hasattr(new, "lock") else nnx.split(new)


def test_hooks_of_copy() -> None:
    class Copies(nnx.Module):
        def __init__(self) -> None:
            fill(self)

        def __copy__(self) -> Any:
            new = object.__new__(type(self))
            new.__dict__.update(self.__dict__)
            return new

        def __deepcopy__(self, memo: Any) -> Any:
            new = type(self).__new__(type(self))
            for name, value in self.__dict__.items():
                setattr(new, name, copy.deepcopy(value, memo))
            return new

    m = Copies()
    assert copy.copy(m).w is m.w
    new = copy.deepcopy(m)
    assert new.w is not m.w and new.rate == 1.0
    uses(new)


def test_a_state_that_is_no_dict() -> None:
    class Odd(nnx.Module):
        def __getstate__(self) -> Any:
            return (1, 2)

    found = (
        r"expected a dict of attributes to restore a Odd from, found a tuple: return one from "
        r"`Odd\.__getstate__`, or define `Odd\.__setstate__` as well"
    )
    with pytest.raises(TypeError, match=found):
        copy.deepcopy(Odd())


def test_a_state_is_the_attributes() -> None:
    m = Plain()
    assert m.__getstate__() == {"w": m.w, "rate": 1.0}
    assert nnx.List([1, 2]).__getstate__() == {0: 1, 1: 2}
    items = nnx.Dict(b=1, a=2)
    assert list(copy.deepcopy(items)) == list(pickle.loads(pickle.dumps(items))) == ["b", "a"]


class Marked(nnx.Module):
    scale: nnx.Data[float]

    def __init__(self) -> None:
        self.scale = 1.0


def test_marks_of_the_class_come_from_the_class() -> None:
    made = Marked().__reduce_ex__(2)
    assert made[1] == (Marked, None, None)
    assert functools.reduce(lambda m, _: copy.copy(m), range(2), Marked())._pytree_marks == {
        "scale": True
    }
