"""Any iterable as data: where it is, and how it goes on from there."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from weft import train
from weft._core.errors import StructureError
from weft.train.feed import Feed, from_json, length_of, to_json


class GrainLike:
    """An iterable whose iterators tell their state, as bytes."""

    def __init__(self, count=7):
        self.count = count

    def __iter__(self):
        return GrainIterator(self.count)


class GrainIterator:
    def __init__(self, count):
        self.count, self.at = count, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == self.count:
            raise StopIteration
        self.at += 1
        return self.at

    def get_state(self):
        return json.dumps({"at": self.at}).encode()

    def set_state(self, state):
        self.at = json.loads(state)["at"]


class TorchLike:
    """An iterable that tells its own state and goes on when it is iterated next."""

    def __init__(self):
        self.at = 0
        self.rng = np.random.default_rng(0)
        self.pending = None

    def __iter__(self):
        if self.pending is None:
            self.order = self.rng.permutation(7)
            self.at = 0
        self.pending = None
        while self.at < 7:
            self.at += 1
            yield int(self.order[self.at - 1])

    def state_dict(self):
        return {"at": self.at, "order": self.order, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state):
        self.at, self.order, self.pending = state["at"], state["order"], True
        self.rng.bit_generator.state = state["rng"]


class Twos:
    """Two batches each time, others each time: no state, but the same from its beginning."""

    def __init__(self):
        self.calls = 0

    def __iter__(self):
        self.calls += 1
        return iter([self.calls * 10, self.calls * 10 + 1])


SOURCES = {
    "list": lambda: list(range(7)),
    "iterator": lambda: iter(range(100)),
    "own iterable": Twos,
    "grain": GrainLike,
    "torch": TorchLike,
    "Loader": lambda: train.Loader(np.arange(9), batch_size=2),
}


def draw(feed, count):
    return [np.asarray(feed.draw()).tolist() for _ in range(count)]


@pytest.mark.parametrize("name", SOURCES)
def test_goes_on_from_every_position(name):
    whole = draw(Feed(SOURCES[name]()), 21)
    for position in range(1, 21):
        first = Feed(SOURCES[name]())
        draw(first, position)
        state = json.loads(json.dumps(first.state()))
        second = Feed(SOURCES[name]())
        second.restore(state)
        assert second.drawn == position
        assert draw(second, 21 - position) == whole[position:]


def test_an_iterator_ends():
    feed = Feed(iter([1, 2]))
    assert draw(feed, 2) == [1, 2]
    with pytest.raises(StopIteration):
        feed.draw()


def test_without_again_it_ends_where_the_data_ends():
    feed = Feed([1, 2], again=False)
    assert draw(feed, 2) == [1, 2]
    with pytest.raises(StopIteration):
        feed.draw()


def test_empty_data_is_an_error():
    for again in (True, False):
        with pytest.raises(ValueError, match="data has no batch, as it is an empty list: give one"):
            Feed([], again=again).draw()
    with pytest.raises(StopIteration):
        Feed(iter([])).draw()  # may have been used up on purpose


def test_data_that_ends_before_the_place_of_the_run_is_an_error():
    first = Feed(i for i in range(5))
    for _ in range(4):
        first.draw()
    with pytest.raises(StructureError, match="the data ended after 2 batches, and the run had dr"):
        Feed(i for i in range(2)).restore(first.state())
    second = Feed(i for i in range(5))
    second.restore(first.state())
    assert second.draw() == 4


@pytest.mark.parametrize("data", [3, None, {"x": np.ones(3)}, "ab"], ids=type)
def test_what_has_no_batches_is_refused(data):
    message = f"data must be an iterable of batches, found {type(data).__name__}: give a list"
    with pytest.raises(TypeError, match=message):
        Feed(data)


def test_stack_of_batches():
    feed = Feed([{"x": np.full(2, i)} for i in range(4)])
    batch, count = feed.stack(3)
    assert batch["x"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert count == feed.drawn == 3


def test_stack_of_what_is_left():
    feed = Feed([1, 2, 3], again=False)
    assert [feed.stack(2)[1], feed.stack(2)[1]] == [2, 1]
    with pytest.raises(StopIteration):
        feed.stack(2)


def test_stack_of_batches_that_differ_is_an_error():
    feed = Feed([np.zeros(2), np.zeros(1)])
    with pytest.raises(StructureError, match=r"2 batches that go into one.*drop_last=True"):
        feed.stack(2)
    feed = Feed([{"x": 1}, {"y": 1}])
    with pytest.raises(StructureError, match="must have equal structures"):
        feed.stack(2)


def test_what_is_no_iterable_is_an_error():
    with pytest.raises(TypeError, match=r"iterable of batches, found int: give a list"):
        Feed(3)


def test_data_of_another_length_is_an_error():
    state = Feed([1, 2]).state()
    with pytest.raises(StructureError, match=r"another length.*then 2, now 3\. Give the same"):
        Feed([1, 2, 3]).restore(state)


def test_data_of_another_kind_is_an_error():
    with_state, without = Feed(GrainLike()), Feed(Twos())
    with pytest.raises(StructureError, match=r"saved with data with a state.*now given Twos, data"):
        without.restore(with_state.state())
    with pytest.raises(StructureError, match=r"without a state of its own, and is now given Grain"):
        with_state.restore(without.state())


def test_states_come_back_from_json():
    state = {
        "tuple": (1, 2.5, None, True),
        3: b"\x00\xff",
        "array": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "list": [{"a": {}}],
        "big": 2**127,
    }
    found = from_json(json.loads(json.dumps(to_json(state))))
    np.testing.assert_array_equal(found.pop("array"), state["array"])
    del state["array"]
    assert found == state and type(found["tuple"]) is tuple


def test_numpy_scalars_are_states():
    found = from_json(json.loads(json.dumps(to_json(np.int64(3)))))
    assert found == 3 and found.dtype == np.int64


def test_states_of_other_types_are_an_error():
    with pytest.raises(TypeError, match=r"holds <object.*of type object: expected numbers"):
        to_json({"a": object()})


def test_a_state_of_an_unknown_form_is_an_error():
    with pytest.raises(StructureError, match=re.escape("unknown form: {'code': 'x'}")):
        from_json({"code": "x"})


# -- the loaders of others, where they are installed


def test_tensors_are_states():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = torch.Generator().get_state()
    found = from_json(json.loads(json.dumps(to_json({"generator": state}))))
    assert torch.equal(found["generator"], state)


def grain_dataset():
    grain = pytest.importorskip("grain", reason="grain is not installed")
    return grain.MapDataset.range(20).seed(1).shuffle().batch(3).to_iter_dataset()


def grain_loader():
    grain = pytest.importorskip("grain", reason="grain is not installed")
    sampler = grain.samplers.IndexSampler(20, shuffle=True, seed=1, num_epochs=1)
    batch = [grain.transforms.Batch(3)]
    return grain.DataLoader(data_source=range(20), sampler=sampler, operations=batch)


def torchdata_loader():
    torchdata = pytest.importorskip(
        "torchdata.stateful_dataloader", reason="torchdata is not installed"
    )
    return torchdata.StatefulDataLoader(list(range(20)), batch_size=3)


@pytest.mark.parametrize("make", [grain_dataset, grain_loader, torchdata_loader])
def test_loaders_of_others_go_on_from_every_position(make):
    whole = draw(Feed(make()), 20)
    for position in range(1, 20, 3):
        first, second = Feed(make()), Feed(make())
        draw(first, position)
        second.restore(json.loads(json.dumps(first.state())))
        assert draw(second, 20 - position) == whole[position:]


def test_batches_of_other_dtypes_make_no_stack():
    feed = Feed([{"x": np.ones(2)}, {"x": np.ones(2, np.int32)}])
    with pytest.raises(StructureError, match="dtypes: found the dtypes float64 and int32"):
        feed.stack(2)


def test_stacks_of_texts_keys_and_small_floats():
    keys = [jax.random.key(i) for i in range(2)]
    data = [{"text": text, "key": key} for text, key in zip(["a", "bcd"], keys, strict=True)]
    batch, _ = Feed(data).stack(2)
    assert batch["text"].tolist() == ["a", "bcd"] and (batch["key"] == jnp.stack(keys)).all()
    batch, _ = Feed([jnp.ones(2, jnp.bfloat16)] * 2).stack(2)
    assert batch.shape == (2, 2) and batch.dtype == jnp.bfloat16


class Endless:
    """Batches of which there is no number."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        raise self.error

    def __iter__(self):
        return iter([1.0, 2.0])


@pytest.mark.parametrize("error", [TypeError, NotImplementedError, OverflowError])
def test_data_that_cannot_tell_its_length(error, capsys):
    assert length_of(Endless(error)) is None and length_of([1, 2]) == 2
    first, second = Feed(Endless(error)), Feed(Endless(error))
    first.draw()
    second.restore(first.state())
    assert second.draw() == 2.0
    assert list(train.bar(Endless(error))) == [1.0, 2.0]
    assert capsys.readouterr().out.startswith("step 2")
