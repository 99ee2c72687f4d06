"""The benchmarks run, at tiny sizes, and compare what does the same work. No clock is judged."""

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from weft.train import Checkpoints

FOLDER = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))  # they import each other as scripts do
try:
    dispatch, cases, depth, depth_cases, graph, memory, train, startup, process = map(
        importlib.import_module,
        "dispatch dispatch_cases depth depth_cases graph memory train startup "
        "startup_process".split(),
    )
    transformer, digits, instructions, harness, loop, saving, cross_entropy, gpt2_step = map(
        importlib.import_module,
        "transformer digits_network instructions harness loop saving cross_entropy "
        "gpt2_step".split(),
    )
finally:
    sys.path.remove(str(FOLDER))

TINY = transformer.Size(1, width=4, heads=2, vocabulary=5, length=3, batch=2)


@pytest.fixture(autouse=True)
def simpler_rule(monkeypatch):
    """Adam adds an int to a float, and is slow to compile."""
    for module in (cases, memory, train):
        monkeypatch.setattr(module, "ADAM", optax.sgd(0.1, momentum=0.5))
    monkeypatch.setattr(digits, "adamw", lambda: optax.sgd(0.1))
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def only_weft(monkeypatch):
    """Leaves the peers out: tracing the same thing in five libraries takes long."""
    for name in ("flax", "flax.nnx", "equinox", "torch"):
        monkeypatch.setitem(sys.modules, name, None)


# -- dispatch


def test_dispatch_steps_of_all_do_the_same(capsys):
    losses = {v.name: [float(v.call()) for _ in range(3)] for v in cases.train_step(1)}
    of_nnx = [found for name, found in losses.items() if name.startswith(("weft", "flax"))]
    assert of_nnx == [losses[cases.WEFT]] * len(of_nnx)
    assert losses[cases.RAW] == losses[cases.TWIN]
    assert all(found[0] > found[-1] > 0 for found in losses.values())
    capsys.readouterr()


@pytest.mark.usefixtures("only_weft")
def test_dispatch_other_cases():
    for case in (cases.forward, cases.batch_of_20, cases.four_roots, cases.one_root):
        found = {v.name: jax.block_until_ready(v.call()) for v in case(1)}
        assert list(found) == [cases.RAW, cases.TWIN, cases.WEFT]
        np.testing.assert_array_equal(found[cases.RAW], found[cases.TWIN])
        assert found[cases.WEFT].shape == found[cases.RAW].shape
    variants = cases.fresh_modules(1)
    models = [model for (model,) in variants[-1].arguments(2)]
    assert models[0] is not models[1]
    np.testing.assert_array_equal(*(variants[-1].call(model) for model in models))


@pytest.mark.usefixtures("only_weft")
def test_dispatch_enters_no_frame_for_a_variable():
    shallow, deep = (dispatch.frames_of(cases.train_step(depth)) for depth in (1, 4))
    assert shallow[cases.WEFT] == deep[cases.WEFT] > 0
    inner = lambda: abs(-1)  # noqa: E731
    assert dispatch.frames(lambda: (inner(), inner())) == 3


def test_dispatch_steps_with_shardings_do_the_same(only_weft):
    ways = (cases.shardings, cases.train_step)
    with_them, without = (
        {v.name: [float(v.call()) for _ in range(3)] for v in way(1)} for way in ways
    )
    assert with_them.keys() == without.keys()
    for name, losses in without.items():
        np.testing.assert_allclose(with_them[name], losses, rtol=1e-5)


def test_dispatch_forms_in_turn_do_the_same():
    one, again, in_turn = (v.call() for v in cases.two_forms(1))
    np.testing.assert_array_equal(one, in_turn)
    np.testing.assert_array_equal(one, again)


def test_dispatch_table():
    samples = {name: [1.0, 2.0] for name in (cases.RAW, cases.TWIN, cases.WEFT)}
    samples["flax nnx.jit"] = [4.0, 8.0]
    row = dispatch.summary(dispatch.Case(cases.four_roots, 20, 1.1), samples)
    assert row == [
        *("four roots, depth 20", "1.5 s", "1.00", "1.00 (1.00 to 1.00)", "1.10 met", "4.0"),
        *("-", "-", "-", "-"),
    ]
    samples[cases.WEFT] = [2.0, 4.0]
    assert "**missed**" in dispatch.summary(dispatch.Case(cases.forward, 5, 1.1), samples)[4]
    budgets = {case.name: case.budget for case in dispatch.all_cases(quick=False)}
    assert budgets["train step, depth 20"] == 1.1 and budgets["forward, depth 400"] == 1.07


def test_dispatch_of_plain_pytrees(monkeypatch, capsys):
    for name in cases.PYTREE_CALLS:
        found = [jax.tree.leaves(v.call()) for v in cases.as_pytree(name, 2)]
        assert len(found) == 3 and {len(leaves) for leaves in found} in ({1}, {4})
    samples = {"raw": [1.0, 1.0], "weft": [2.0, 2.0], "flax": [4.0, 4.0]}
    monkeypatch.setattr(harness, "measure", lambda variants, options, seconds: samples)
    rows = dispatch.pytree_rows(1, None)
    assert [row[0] for row in rows] == [f"{name}, depth 1" for name in cases.PYTREE_CALLS]
    assert rows[0][2:] == ["2.00 (2.00 to 2.00)", "0.50 (0.50 to 0.50)", "0.7 met"]
    samples["weft"] = [3.0, 3.0]
    assert "**missed**" in dispatch.pytree_rows(1, None)[0][4]
    capsys.readouterr()


# -- instructions


def test_instructions_of_some_calls_are_counted(monkeypatch):
    told, counted = [], []
    variant = harness.Variant(cases.WEFT, lambda: counted.append(len(told)))
    monkeypatch.setattr(cases, "forward", lambda depth: [variant])
    monkeypatch.setattr(harness, "peer", harness.peer)
    monkeypatch.setattr(cases, "COPIES", 8)
    monkeypatch.setattr(instructions, "control", told.append)
    instructions.main(["--calls", "forward", "1", cases.WEFT])
    assert told == ["--instr=on", "--zero", "--dump", "--instr=off"]
    assert counted.count(2) == instructions.CALLS  # between "zero" and "dump"
    assert instructions.total("events: Ir\nfn=(0) f\n1 7\n\ntotals: 1234\n") == 1234


def test_instructions_without_valgrind(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert instructions.main(["--quick"]) == 1
    assert capsys.readouterr().out == "valgrind is not installed: nothing is counted\n"


def test_instructions_table(monkeypatch, capsys):
    found = {cases.RAW: 2000.0, cases.TWIN: 2020.0, cases.WEFT: 1900.0}
    monkeypatch.setattr(instructions.shutil, "which", lambda name: name)
    monkeypatch.setattr(instructions, "count", lambda case, depth, name: found[name])
    assert instructions.main(["--quick"]) == 0
    assert "| forward, depth 5 | 2,000 | 1.01 | 0.95 |" in capsys.readouterr().out


# -- graph


@pytest.mark.usefixtures("only_weft")
def test_graph_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(graph, "Size", lambda *_, **__: TINY)
    graph.main(["--quick", "--rounds", "1", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    for name in graph.BUDGETS:
        assert f"| {name} | first |" in shown and f"| {name} | again |" in shown
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


def test_graph_arguments_are_fresh():
    operations = graph.nnx_operations(nnx, TINY)
    split = operations["split"]
    assert split.first()[0] is not split.first()[0]
    assert split.again()[0] is split.again()[0]
    (graphdef, state), (same, other) = (operations["merge"].again() for _ in range(2))
    assert graphdef is same and state is not other
    model, state = operations["update"].first()
    operations["update"].call(model, state)
    assert operations["clone"].call(model).shape == (TINY.width, TINY.vocabulary)


# -- memory


@pytest.mark.usefixtures("only_weft")
def test_memory_of_weft_is_that_of_donation_by_hand():
    found = {name: memory.usage(make) for name, make in memory.train_step(TINY).items()}
    raw, weft = found[memory.RAW], found["weft nnx.jit"]
    assert raw.live > 2 * 4 * 100 and abs(weft.live - raw.live) <= 8  # a step counter
    assert max(raw.new, weft.new) < raw.live / 2  # nothing but the loss and where arrays are
    rows = memory.rows_of("step", found)
    assert rows[0][-2:] == ["1.000", ""] and rows[1][-1].startswith("1.02 ")


@pytest.mark.usefixtures("only_weft")
def test_memory_other_work():
    ways = memory.scan(TINY)
    assert list(ways) == [memory.RAW, "weft nnx.scan", "weft nnx.Stack"]
    for make in (ways["weft nnx.Stack"], memory.forward(TINY)["weft nnx.jit"]):
        assert jnp.isfinite(make()()).all()


# -- startup


@pytest.mark.parametrize("library", ["raw", "weft"])
def test_startup_builds_and_steps(library):
    made: dict = {}
    module = importlib.import_module(process.MODULES[library])
    compiles, found = process.Compiles(), {}
    parts = process.parts(library, module, TINY, made)
    with compiles.part("all", found):
        results = [jax.block_until_ready(jax.tree.leaves(part())) for part in parts]
    assert jnp.isfinite(results[-1][0]) and found["all_programs"] > 0
    assert found["all"] >= found["all_compiling"] > 0
    if made:
        # norms, four kernels, two embeddings, the head
        assert process.distinct(module, made["model"]) == 8


def test_startup_process_prints_its_figures():
    found = startup.start("weft")
    assert found["import_jax"] > 0 and found["import"] > 0


def test_startup_environment(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "set by the user")
    assert "JAX_COMPILATION_CACHE_DIR" not in startup.environment(None)
    assert startup.environment("here")["JAX_COMPILATION_CACHE_DIR"] == "here"
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in startup.environment(None)
    assert startup.environment("here")["PATH"] == os.environ["PATH"]


def test_startup_import_times(monkeypatch):
    lines = "import time: self [us] | cumulative | imported package\n"
    rows = ((100, "  numpy"), (900, "jax"), (70, "  chex"), (30, "optax"), (40, "    rich.a"))
    for own, name in (*rows, (60, "  rich"), (1, "x")):
        lines += f"import time: {own:9} | {own:10} | {name}\n"
    done = subprocess.CompletedProcess([], 0, stderr=lines)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert startup.import_times("weft") == pytest.approx({"rich": 1e-4, "x": 1e-6})


def test_startup_tables():
    keys = ("model", "step", "step_compiling", "total", "model_programs", "distinct")
    figures = {name: {key: [2.0, 2.0] for key in keys} for name in ("raw", "weft", "flax")}
    imports = {name: {"import": [0.1]} for name in figures}
    found = {"import": imports, "cold": figures, "warm": figures}
    assert [row[:4] for row in startup.rows_of(found)][:2] == [
        ["raw", "-", "2 s", "2 (2)"],
        ["weft", "100 ms", "2 s", "2 (2)"],
    ]
    figures["weft"]["step_compiling"] = figures["flax"]["step_compiling"] = [1.0, 1.0]
    assert [row[-1] for row in startup.budgets(found)] == ["met"] * 3


# -- train


def small_digits(monkeypatch):
    monkeypatch.setattr(digits, "CHANNELS", ((1, 2), (2, 2), (2, 2)))
    monkeypatch.setattr(digits, "FEATURES", 4 * 4 * 2)
    monkeypatch.setattr(digits, "BATCH", 4)


@pytest.mark.usefixtures("only_weft")
def test_train_steps_learn(monkeypatch, capsys):
    small_digits(monkeypatch)
    monkeypatch.setattr(digits, "batches", lambda count, make=digits.batches: make(1))
    for variants in (train.digits_variants(), train.gpt_variants(TINY)):
        (variant,) = (variant for variant in variants if variant.name == train.WEFT)
        losses = [float(variant.call()) for _ in range(12)]
        assert min(losses[-3:]) < losses[0]
    assert "torch is not installed" in capsys.readouterr().out


def test_train_digits_with_equinox(monkeypatch):
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    small_digits(monkeypatch)
    model, state = digits.equinox_network(eqx)
    rule = digits.adamw()
    opt_state = rule.init(eqx.filter(model, eqx.is_inexact_array))
    states = (model, state, opt_state, jax.random.key(0))
    step = digits.equinox_step(eqx, rule)
    loss, *after = eqx.filter_eval_shape(step, digits.batches(1)[0], *states)
    assert loss.shape == ()
    assert jax.tree.structure(tuple(after)) == jax.tree.structure(states)


def test_train_with_pytorch(monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytorch = importlib.import_module("pytorch")
    small_digits(monkeypatch)
    tokens = transformer.tokens(TINY)
    given = (tokens[:, :-1].copy(), tokens[:, 1:].copy())
    for step, batch in (
        (pytorch.digits_step(torch), digits.batches(1)[0]),
        (pytorch.gpt_step(torch, TINY), given),
    ):
        for variant in pytorch.variants(torch, step, [batch]):
            assert variant.seconds(2) > 0


def test_train_table():
    samples = {train.WEFT: [1.0, 1.0], train.RAW: [1.0, 1.0], "PyTorch": [0.5, 0.5]}
    rows = train.rows_of("GPT", samples)
    assert [row[-1] for row in rows] == ["", "Weft is even", "Weft is behind, raw JAX is behind"]
    assert rows[2][2:4] == ["2.0", "0.50 (0.50 to 0.50)"]


# -- depth


def test_depth_measures_and_reports():
    x = jnp.ones(8)
    sample = depth.measure(lambda: jax.jit(lambda x: jnp.cos(jnp.sin(x))).trace(x))
    assert sample.total > 0 and sample.equations == 2 and sample.output == x.nbytes
    sample = dataclasses.replace(sample, temporary=8)
    samples = {
        (library, way, at): [sample]
        for at in (2, 8)
        for library, way in (("weft", "Stack"), ("by hand", "scan"))
    }
    body = depth.report(samples, [2, 8])
    assert "| lax.scan by hand | 1.00 |" in body and "| unrolled, flax | - |" in body


def test_depth_cases_are_the_same_work():
    numbers = {
        (library, way): sum(x.size for x in jax.tree.leaves(make(2)().out_info))
        for (library, way), make in depth.variants().items()
        if library != "flax"
    }
    by_hand = numbers.pop(("by hand", "scan"))
    ways = ("unrolled", "scan", "Stack")
    # nnx.Optimizer counts the steps as well
    assert numbers == {("weft", way): by_hand + 1 for way in ways}


# -- loop


@pytest.fixture
def no_loops_of_others(monkeypatch):
    for name in ("keras", "lightning"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("no_loops_of_others")
def test_loop_variants_do_the_same(monkeypatch, capsys):
    monkeypatch.setattr(loop, "DEPTH", 1)
    found = {v.name: np.ravel(jax.tree.leaves(v.call())[0])[-1] for v in loop.variants(20)}
    assert len(found) == 5 and len({*map(float, found.values())}) == 1
    assert "keras is not installed" in capsys.readouterr().out


def test_loop_table():
    samples = {
        loop.BARE: [1.0, 2.0],
        loop.RUN: [1.0 + 3e-5, 2.0 + 3e-5],
        loop.MANY: [0.7, 1.3],
    }
    assert loop.rows_of(samples, 1) == [
        [loop.BARE, "1.5 s", "+0.0 µs", "1.00", ""],
        [loop.RUN, "1.5 s", "+30.0 µs", "1.00", "at most 50 µs over: met"],
        [loop.MANY, "1 s", "-500000.0 µs", "0.67", "2 × as fast: **missed**"],
    ]


# -- saving


def test_saving_ways_write_the_same(tmp_path):
    with saving.variants(tmp_path, 0.1) as ways:
        for way in ways:
            for arguments in way.arguments(2):
                way.call(*arguments)
        ways[0].arguments(1)
        assert (tmp_path / "copy").read_bytes() == (tmp_path / "source").read_bytes()
        assert (tmp_path / "saved").read_bytes() == (tmp_path / "source").read_bytes()
    models = [saving.Weights(0.1) for _ in range(2)]
    for model, folder in zip(models, ("steps", "waits"), strict=True):
        model.kernels[0][...] = 0.0
        Checkpoints(tmp_path / folder, keep=1).restore(model=model)
        np.testing.assert_array_equal(model.kernels[0], saving.Weights(0.1).kernels[0])


def test_saving_table():
    samples = {saving.DD: [1.0, 2.0], saving.SAVE: [1.4, 2.4], saving.WAIT: [0.1, 0.2]}
    assert saving.rows_of(samples, 1000) == [
        [saving.DD, "1.5 s", "0.67 GB/s", "1.00", ""],
        [saving.SAVE, "1.9 s", "0.53 GB/s", "1.30", "at most 1.3: met"],
        [saving.WAIT, "150 ms", "6.67 GB/s", "0.10", ""],
    ]


# -- cross entropy


@pytest.mark.parametrize("transposed", [False, True])
def test_cross_entropy_ways_do_the_same(transposed):
    layer = cross_entropy.Layer("", 9, 4, 24, jnp.float32, transposed)
    found = {v.name: v.call() for v in cross_entropy.variants(layer)}
    assert len(found) == 5
    for loss, gradients in found.values():
        assert [x.shape for x in gradients] == [x.shape for x in layer.shapes[:2]]
        np.testing.assert_allclose(loss, found[cross_entropy.PLAIN][0], rtol=1e-5)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5),
            gradients,
            found[cross_entropy.PLAIN][1],
        )


def test_cross_entropy_tables():
    names = (cross_entropy.PLAIN, cross_entropy.CHUNKED, cross_entropy.TWIN)
    found = dict(zip(names, (20_000_000, 5_000_000, 20_000_000), strict=True))
    assert cross_entropy.memory_rows("a", found)[1] == ["a", cross_entropy.CHUNKED, "5.0", "0.25"]
    samples = dict(zip(names, ([1.0, 1.0], [1.2, 1.2], [1.0, 1.0]), strict=True))
    rows = cross_entropy.time_rows("a", samples)
    assert rows[0][-2:] == ["1", ""]
    assert rows[1][-2:] == ["1.20 (1.20 to 1.20)", "1.1 **missed**"]
    full = cross_entropy.sizes(quick=False)[0]
    assert [x.size for x in full[2].shapes] == [8192 * 4096, 4096 * 128256, 8192]


def test_cross_entropy_needs_a_fraction_of_the_bytes():
    layer = cross_entropy.Layer("", 4096, 4, 64, jnp.float32, True)
    found = cross_entropy.temporary(layer)
    assert found[cross_entropy.CHUNKED] < found[cross_entropy.PLAIN] / 2


def test_cross_entropy_train_steps_do_the_same(monkeypatch, capsys):
    monkeypatch.setattr(gpt2_step.optax, "adamw", lambda rate: optax.sgd(0.1))
    losses = []
    for loss in gpt2_step.LOSSES.values():
        step = gpt2_step.Step(gpt2_step.TINY, loss)
        losses.append([float(step()) for _ in range(2)])
        assert gpt2_step.TINY.parameters() == sum(
            x.size for x in jax.tree.leaves(nnx.state(step.model, nnx.Param))
        )
    np.testing.assert_allclose(*losses, rtol=0.01)
    assert losses[0][1] < losses[0][0]
    assert 123e6 < gpt2_step.Size().parameters() < 125e6
    cross_entropy.main(["--gpu", "--quick", "--rounds", "1"])
    assert "| nnx.linear_cross_entropy |" in capsys.readouterr().out
