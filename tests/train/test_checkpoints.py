"""Checkpoints: every step as a whole, checked, and restored anywhere."""

import errno
import functools
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import weft as nnx
from tests.devices import make_mesh
from tests.saving import nets
from tests.saving.nets import assert_same, values
from weft._saving import manifest as manifest_module
from weft.train import Checkpoints


class Net(nets.Net):
    """With names that files dislike."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.text = nnx.Dict({"a/b": nnx.Param(1.0 * seed), "..": nnx.Param(jnp.full(1, seed))})


objects = functools.partial(nets.objects, kind=Net)


def test_objects_round_trip(tmp_path):
    saved, restored = objects(0), objects(1)
    data = {"epoch": 3, "history": [0.1, 1e-300, 1 / 3], "name": "a"}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, meta=data, **saved)
    assert Checkpoints(tmp_path).restore(**restored) == data
    assert_same(values(restored), values(saved))
    model = restored["model"]
    assert model.tied is model.layers[0].kernel
    assert type(model.host) is np.ndarray and isinstance(model.plain, jax.Array)
    assert type(model.number.get_raw_value()) is float
    assert model.scale.value.weak_type and not model.plain.weak_type
    assert os.listdir(tmp_path) == ["0000000007"]


DTYPES = "bool int4 uint4 int8 uint32 float16 bfloat16 float32 float8_e4m3fn float8_e5m2 complex64"


def test_dtypes_keys_and_numbers_round_trip(tmp_path):
    def make(x):
        held = {name: nnx.Variable(jnp.full(3, x).astype(name)) for name in DTYPES.split()}
        held["f64"] = nnx.Variable(np.full(2, x / 3))
        for impl in ("threefry2x32", "rbg"):
            held[impl] = nnx.Variable(jax.random.split(jax.random.key(x, impl=impl), 3))
        numbers = [x, x / 3, complex(x, -0.0), bool(x), 10**30 + x]
        return [held, *map(nnx.Variable, numbers)]

    saved, restored = make(1), make(0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, x=saved)
        checkpoints.restore(x=restored)
    assert_same(values(restored), values(saved))
    for new, old in zip(restored[1:], saved[1:], strict=True):
        assert repr(new.get_raw_value()) == repr(old.get_raw_value())
    for name in DTYPES.split():
        assert restored[0][name].dtype == saved[0][name].dtype == name


def test_only_numbers(tmp_path):
    count = nnx.Variable(3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, x=count, y={})
        count.set_value(4)
        checkpoints.restore(x=count, y={})
    assert count.value == 3


# -- which steps there are


def test_keeps_the_newest_and_the_best(tmp_path):
    count = nnx.Variable(0)
    with Checkpoints(tmp_path, keep=2, best="val/acc") as checkpoints:
        assert (checkpoints.steps, checkpoints.latest, checkpoints.best) == ([], None, None)
        for step, value in enumerate([0.0, float("nan"), 0.7, 0.7, 0.2, 0.3]):
            count.set_value(step)
            checkpoints.save(step, metrics={"val/acc": value}, x=count)
        assert (checkpoints.steps, checkpoints.latest, checkpoints.best) == ([2, 4, 5], 5, 2)
        checkpoints.restore(2, x=count)
        assert count.value == 2
    assert Checkpoints(tmp_path, best="val/acc", mode="min").best == 4


def test_a_step_that_is_saved_again_replaces_the_former(tmp_path):
    count = nnx.Variable(0)
    with Checkpoints(tmp_path) as checkpoints:
        for value in 1, 2, 3:
            count.set_value(value)
            checkpoints.save(5, x=count)
        assert checkpoints.steps == [5]
        checkpoints.restore(x=count)
    assert count.value == 3 and os.listdir(tmp_path) == ["0000000005.2"]


def test_a_step_before_the_newest_stays_while_it_is_the_last_saved(tmp_path):
    count = nnx.Variable(0)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for step in 9, 3, 4:
            checkpoints.save(step, x=count)
        assert checkpoints.steps == [4, 9]


def test_steps_that_are_not_there(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(FileNotFoundError, match="no step has been saved in"):
        checkpoints.restore()
    with pytest.raises(FileNotFoundError, match=r"there is no step 3 in .*, but of none"):
        checkpoints.restore(3)
    checkpoints.save(1)
    with pytest.raises(FileNotFoundError, match=r"there is no step 3 in .*, but of \[1\]"):
        checkpoints.restore(3)


WRONG = [
    (lambda c: c.save(-1), ValueError, r"step must be a whole number from 0 on; found -1"),
    (lambda c: c.save(True), ValueError, r"whole number from 0 on; found True"),
    (lambda c: c.save(1, strict=nnx.Param(1.0)), TypeError, "'strict' is an option of `Checkpoin"),
    (lambda c: c.save(1, meta=object()), TypeError, "meta is of type object: expected what JSON"),
    (lambda c: c.save(1, x={"n": 3}), TypeError, r"x.n is a plain number or text"),
    (lambda c: Checkpoints(".", mode="best"), ValueError, "mode must be 'min' or 'max', found 'be"),
    (lambda c: c.restore("1"), ValueError, "step must be a whole number from 0 on; found '1'"),
    (lambda c: c.save(1, x=nnx.relu), TypeError, "x is a function, in which nothing can be saved"),
    (lambda c: c.save(1, metrics=[1.0]), TypeError, "metrics must be numbers by name, .* a list"),
    (lambda c: c.save(1, metrics=nnx.Param(1.0)), TypeError, "found a Param. An object of that n"),
    (lambda c: c.save(1, metrics={"a": "x"}), TypeError, "numbers by name; found 'x' by 'a'"),
    (lambda c: c.save(1, metrics={"a": np.ones(2)}), TypeError, "numbers by name; found array"),
    (lambda c: c.save(1, metrics={1: 2.0}), TypeError, r"numbers by name; found 2\.0 by 1"),
    (lambda c: Checkpoints(".", keep=0), ValueError, "keep must be a whole number from 1 on; fou"),
    (lambda c: Checkpoints(".", keep=2.5), ValueError, "keep must be a whole .*`keep=int"),
    (lambda c: Checkpoints(".", keep=None), ValueError, "keep must be a whole number from 1 on"),
    (lambda c: Checkpoints(".", best=3), TypeError, "best must be the name of a metric, .*found 3"),
]


@pytest.mark.parametrize("call, kind, message", WRONG)
def test_wrong_arguments(tmp_path, call, kind, message):
    with pytest.raises(kind, match=message):
        call(Checkpoints(tmp_path))
    assert not os.listdir(tmp_path)


def test_what_somebody_else_has_removed_is_no_fault(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, x=nnx.Param(jnp.ones(2)))
        checkpoints.wait()
        rename = os.rename

        def after_another(source, target):
            if str(source).endswith("0000000001"):
                shutil.rmtree(source)
            rename(source, target)

        monkeypatch.setattr(os, "rename", after_another)
        checkpoints.save(2, x=nnx.Param(jnp.ones(2)))
    assert os.listdir(tmp_path) == ["0000000002"]


def test_without_orbax(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("orbax")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs Orbax.*`pip install 'weft\[checkpoint\]'`"
    ):
        Checkpoints(tmp_path)


def test_what_does_not_fit_is_listed_and_changes_nothing(tmp_path):
    make = lambda a, **more: {"a": nnx.Param(jnp.ones(a)), **more}  # noqa: E731
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, x=make(2, b=nnx.Param(1.0)), y=nnx.Param(2.0))
        other = make(3, c=nnx.Param(2.0))
        with pytest.raises(nnx.StructureError) as caught:
            checkpoints.restore(x=other)
        message = str(caught.value)
        for line in (
            "x.a: saved float32[2], wanted float32[3]",
            "missing: x.c (a Python float) was not saved",
            "unexpected: x.b (a Python float) is not in the objects",
            "unexpected: y (a Python float) is not in the objects",
            f"`train.Checkpoints({str(tmp_path)!r}).restore(..., y=None)`",
            f"`train.Checkpoints({str(tmp_path)!r}).restore(..., strict=False)` takes what is in",
        ):
            assert line in message
        assert (other["a"] == 1).all() and other["c"].value == 2.0
        half = make(2, b=nnx.Param(0.0))
        half["a"].set_value(jnp.zeros(2, jnp.bfloat16))
        checkpoints.restore(x=half, y=None, cast=True)
        assert half["a"].dtype == jnp.bfloat16 and (half["a"] == 1).all()


# -- in the background


def test_training_goes_on_while_a_step_is_saved(tmp_path):
    mesh = make_mesh((4,), ("x",))
    spread = NamedSharding(mesh, PartitionSpec("x"))

    train = jax.jit(lambda arrays: [array + 1 for array in arrays], donate_argnums=0)
    state = [nnx.Variable(jnp.zeros(300_000)), nnx.Variable(jnp.zeros((400, 400), device=spread))]
    checkpoints, expected = Checkpoints(tmp_path, keep=100), {}
    for step in range(30):
        before = [variable.get_raw_value() for variable in state]
        for variable, array in zip(state, train(before), strict=True):
            variable.set_value(array)
        assert all(array.is_deleted() for array in before)  # their memory was donated
        if step % 3 == 0:
            checkpoints.save(step, state=state)
            expected[step] = step + 1
    assert checkpoints.steps == list(expected)
    for step, value in expected.items():
        checkpoints.restore(step, state=state)
        assert all((variable[...] == value).all() for variable in state)
        assert state[1].sharding.is_equivalent_to(spread, 2)


def test_arrays_of_the_host_are_copied(tmp_path):
    array = np.zeros(1000)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, x=nnx.Variable(array))
        array[:] = 1
        variable = nnx.Variable(np.ones(1000))
        checkpoints.restore(x=variable)
    assert (variable.get_raw_value() == 0).all()


@pytest.mark.parametrize("place", ["fsync", "rename"])
def test_a_failed_save_is_raised_by_the_next_call(tmp_path, monkeypatch, place):
    count = nnx.Variable(jnp.zeros(3))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, x=count)
    checkpoints.wait()

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, place, full)
        checkpoints.save(2, x=count)
        with pytest.raises(OSError, match="No space left") as caught:
            checkpoints.wait()
    assert caught.value.filename == str(tmp_path / "0000000002")
    assert checkpoints.steps == [1] and os.listdir(tmp_path) == ["0000000001"]
    checkpoints.save(3, x=count)
    assert checkpoints.steps == [1, 3]


LIMITED = """
import resource, sys
import jax.numpy as jnp
import weft as nnx
from weft._saving import manifest as manifest_module
from weft.train import Checkpoints
count = nnx.Variable(jnp.arange(50_000.0))
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, x=count)
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
checkpoints.save(2, x=count)
try:
    checkpoints.save(3, x=count)
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
assert checkpoints.steps == [1]
checkpoints.save(4, x=count)
assert checkpoints.steps == [1, 4]
checkpoints.restore(1, x=count)
assert (count[...] == jnp.arange(50_000.0)).all()
"""


def test_a_file_that_may_not_be_so_long(tmp_path):
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == f"[Errno 27] File too large: '{tmp_path / '0000000002'}'"


LEFT = """
import sys
import numpy as np
import weft as nnx
from weft._saving import manifest as manifest_module
from weft.train import Checkpoints
Checkpoints(sys.argv[1]).save(1, x=nnx.Variable(np.ones(3_000_000)))
"""


def test_a_program_that_ends_saves_to_the_end(tmp_path):
    command = [sys.executable, "-c", LEFT, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0 and not run.stderr, run.stderr
    assert os.listdir(tmp_path) == ["0000000001"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=re.escape(str(tmp_path))):
            checkpoints.save(1, x=nnx.Variable(1))
    finally:
        tmp_path.chmod(0o700)
    checkpoints.save(1, x=nnx.Variable(1))
    assert checkpoints.steps == [1]


def test_a_folder_that_refuses(tmp_path, monkeypatch):
    count = nnx.Variable(jnp.zeros(3))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, x=count)
        checkpoints.wait()

        def refuse(self, *args, **options):
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(self))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", refuse)
            with pytest.raises(PermissionError, match=re.escape(str(tmp_path))):
                checkpoints.save(2, x=count)
        assert checkpoints.steps == [1] and (count[...] == 0).all()
        checkpoints.save(3, x=count)
        assert checkpoints.steps == [1, 3]


# -- damage

FLIPS = int(os.environ.get("WEFT_FLIPS", "300"))


def make_steps(folder, count=2):
    with Checkpoints(folder, keep=9) as checkpoints:
        for step in range(1, count + 1):
            checkpoints.save(step, **objects(step))
    return checkpoints


def files_of(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def test_every_flipped_bit_is_found(tmp_path):
    make_steps(tmp_path, 1)
    step = tmp_path / "0000000001"
    files = [file for file in files_of(step) if file.stat().st_size]
    target = objects(9)
    before = values(target)
    chance = random.Random(0)
    for trial in range(max(FLIPS, len(files))):
        file = files[trial % len(files)]
        data = file.read_bytes()
        at = chance.randrange(8 * len(data))
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        file.write_bytes(changed)
        with pytest.raises(nnx.CheckpointError, match=re.escape(str(step))) as caught:
            Checkpoints(tmp_path).restore(1, **target)
        assert file.relative_to(step).as_posix() in str(caught.value)
        file.write_bytes(data)
    assert_same(values(target), before)
    Checkpoints(tmp_path).restore(1, **target)
    assert_same(values(target), values(objects(1)))


def test_flipped_bits_of_large_files_are_found_in_the_arrays(tmp_path):
    program = Path(__file__).with_name("large_files.py")
    command = [sys.executable, str(program), str(tmp_path), str(FLIPS // 6)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert int(run.stdout)


DAMAGES = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "emptied": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "deleted": lambda file: file.unlink(),
    "of another": lambda file: file.write_bytes(file.read_bytes()[::-1]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files(tmp_path, name):
    make_steps(tmp_path, 1)
    step = tmp_path / "0000000001"
    for file in files_of(step):
        data = file.read_bytes()
        if not data and name in ("truncated", "emptied", "zeros"):
            continue
        DAMAGES[name](file)
        if not file.exists() or file.read_bytes() != data:
            with pytest.raises(nnx.CheckpointError) as caught:
                Checkpoints(tmp_path).restore(1, **objects(9))
            assert file.relative_to(step).as_posix() in str(caught.value)
        file.write_bytes(data)
    Checkpoints(tmp_path).restore(1, **objects(9))


def test_swapped_files(tmp_path):
    make_steps(tmp_path)
    pairs = zip(files_of(tmp_path / "0000000001"), files_of(tmp_path / "0000000002"), strict=False)
    for a, b in pairs:
        if a.name == "manifest.json":
            a, b = b, files_of(tmp_path / "0000000001" / "arrays")[0]
        one, other = a.read_bytes(), b.read_bytes()
        if one == other:
            continue
        a.write_bytes(other), b.write_bytes(one)
        with pytest.raises(nnx.CheckpointError):
            Checkpoints(tmp_path).restore(int(a.relative_to(tmp_path).parts[0]), **objects(9))
        a.write_bytes(one), b.write_bytes(other)


def flip(folder, step):
    file = max(files_of(folder / f"{step:010}" / "arrays"), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_the_newest_is_damaged(tmp_path):
    make_steps(tmp_path, 3)
    flip(tmp_path, 3)
    (tmp_path / "0000000002" / "manifest.json").unlink()
    checkpoints, target = Checkpoints(tmp_path), objects(9)
    with pytest.warns(UserWarning, match=r"0000000002 is damaged: manifest.json is missing"):
        assert checkpoints.latest == 3  # that its values are wrong is found when they are read
    with pytest.warns(UserWarning, match=r"0000000003 is damaged: .* its checksum.*passed over"):
        checkpoints.restore(**target)
    assert_same(values(target), values(objects(1)))
    assert (checkpoints.latest, checkpoints.steps) == (1, [1])  # warned of once
    for step in 2, 3:
        with pytest.raises(nnx.CheckpointError, match=f"000000000{step} is damaged"):
            checkpoints.restore(step, **target)
    for step in 3, 4:  # in the place of the damaged one, and after it
        checkpoints.save(step, **objects(step))
    assert checkpoints.steps == [1, 3, 4]
    checkpoints.restore(3, **target)
    assert_same(values(target), values(objects(3)))


def test_all_are_damaged(tmp_path):
    make_steps(tmp_path)
    for step in 1, 2:
        (tmp_path / f"000000000{step}" / "manifest.json").write_bytes(b"")
    checkpoints, target = Checkpoints(tmp_path), objects(9)
    message = "all steps in .* are damaged: .*0000000002 is damaged: manifest.json does not"
    with pytest.warns(UserWarning), pytest.raises(nnx.CheckpointError, match=message):
        checkpoints.restore(**target)
    for name in "latest", "steps", "best":
        with pytest.raises(nnx.CheckpointError, match=message):
            getattr(checkpoints, name)
    assert_same(values(target), values(objects(9)))


def test_damaged_steps_do_not_count_to_those_that_are_kept(tmp_path):
    count = nnx.Variable(jnp.zeros(2))
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in 1, 2, 3:
        checkpoints.save(step, x=count)
        checkpoints.wait()
    (tmp_path / "0000000003" / "manifest.json").unlink()
    fresh = Checkpoints(tmp_path, keep=2)
    fresh.save(4, x=count)
    with pytest.warns(UserWarning, match="0000000003 is damaged"):
        assert fresh.steps == [2, 4]


def test_files_that_are_no_steps_are_let_be(tmp_path):
    make_steps(tmp_path, 1)
    (tmp_path / "0000000007").write_text("mine")
    (tmp_path / "note.txt").write_text("mine")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest == 1
        checkpoints.save(2, **objects(2))
    assert sorted(os.listdir(tmp_path)) == ["0000000002", "0000000007", "note.txt"]


def test_a_manifest_from_the_future(tmp_path, monkeypatch):
    make_steps(tmp_path, 1)
    monkeypatch.setattr(manifest_module, "FORMAT", 99)
    make_steps(tmp_path / "new", 1)
    monkeypatch.undo()
    shutil.move(tmp_path / "new" / "0000000001", tmp_path / "0000000002")
    message = "0000000002 has format 99, written by Weft .*, and this Weft reads format 1: `pip"
    for call in (lambda c: c.restore(**objects(0)), lambda c: c.latest, lambda c: c.restore(2)):
        with pytest.raises(nnx.CheckpointError, match=message):
            call(Checkpoints(tmp_path))


GOLDEN = Path(__file__).parents[1] / "data" / "steps-format-1"


def test_the_golden_folder_of_format_1(tmp_path):
    folder = shutil.copytree(GOLDEN, tmp_path / "golden")
    model, rngs = (
        nnx.Linear(2, 3, rngs=nnx.Rngs(1)),
        nnx.Rngs(1, dropout=jax.random.key(1, impl="rbg")),
    )
    count = nnx.Variable(0)
    with Checkpoints(folder, best="loss", mode="min") as checkpoints:
        assert checkpoints.steps == [3] and checkpoints.best == 3
        meta = checkpoints.restore(model=model, rngs=rngs, count=count)
    assert meta == {"epoch": 7, "rates": [0.1, 1e-300], "name": "é"}
    wanted = nnx.Rngs(7, dropout=jax.random.key(3, impl="rbg"))
    assert_same(values(rngs), values(wanted))
    np.testing.assert_array_equal(model.kernel[...], np.arange(6.0).reshape(2, 3) / 8)
    np.testing.assert_array_equal(model.bias[...], np.arange(3.0) - 1)
    assert count.value == 5 and type(count.get_raw_value()) is int


# -- other meshes

SPECS = [
    ((2, 2), PartitionSpec("a", "b")),
    ((2, 2), PartitionSpec("b")),
    ((2, 2), PartitionSpec(None, ("a", "b"))),
    ((4, 1), PartitionSpec("a", "b")),
    ((3, 1), PartitionSpec("a")),
    ((1, 1), PartitionSpec()),
    ((2, 1), PartitionSpec()),
]


def sharded(sharding, make):
    return [
        nnx.Variable(jax.device_put(make((12, 8)), sharding)),
        nnx.Variable(jax.device_put(make((12, 8)).astype(jnp.bfloat16), sharding)),
        nnx.Variable(jax.device_put(make((12, 8)).astype(jnp.int4), sharding)),
        nnx.Variable(jax.device_put(jax.random.split(jax.random.key(7), (12, 4)), sharding)),
    ]


def test_restores_onto_other_meshes(tmp_path):
    places = [NamedSharding(make_mesh(shape, ("a", "b")), spec) for shape, spec in SPECS]
    count = lambda shape: jnp.arange(96.0).reshape(shape)  # noqa: E731
    checkpoints = Checkpoints(tmp_path, keep=99)
    for step, place in enumerate(places):
        checkpoints.save(step, x=sharded(place, count))
    for step in checkpoints.steps:
        for place in places:
            target = sharded(place, jnp.zeros)
            checkpoints.restore(step, x=target)
            assert_same(values(target), values(sharded(place, count)))
            for variable in target:
                assert variable.sharding.is_equivalent_to(place, 2)
                assert variable.sharding.mesh == place.mesh


def test_restores_into_an_abstract_model(tmp_path):
    mesh = make_mesh((2,), ("x",))
    make = lambda: nnx.Linear(  # noqa: E731
        4, 6, rngs=nnx.Rngs(0), kernel_metadata={"sharding_names": (None, "x")}
    )
    with jax.set_mesh(mesh), Checkpoints(tmp_path) as checkpoints:
        model = make()
        checkpoints.save(1, model=model)
        abstract = nnx.eval_shape(make)
        checkpoints.restore(model=abstract)
    assert_same(values(abstract), values(model))
    assert abstract.kernel.sharding.spec == PartitionSpec(None, "x")
