"""Settings: their defaults, how they are set and put back, and that threads are apart."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import jax
import pytest

import weft as nnx
from weft._core.config import Setting, traced_apart

SETTINGS = [nnx.set_graph_mode, nnx.set_graph_updates, nnx.use_eager_sharding]


@pytest.fixture(autouse=True)
def _put_back() -> Any:
    values = [setting.get() for setting in SETTINGS]
    yield
    for setting, value in zip(SETTINGS, values, strict=True):
        setting(value)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_value_in_force_has_two_names(setting: type[Setting]) -> None:
    assert setting.current_value() is setting.get() is True
    with setting(False):
        assert setting.current_value() is setting.get() is False


@pytest.mark.parametrize("setting", SETTINGS)
def test_set_and_put_back(setting: type[Setting]) -> None:
    assert setting.get() is True
    with setting(False):
        assert setting.get() is False
        with setting(True):
            assert setting.get() is True
        assert setting.get() is False
    assert setting.get() is True
    with pytest.raises(KeyError), setting(False):
        raise KeyError
    assert setting.get() is True
    setting(False)
    assert setting.get() is False


def test_one_setting_for_several_blocks() -> None:
    tree = nnx.set_graph_mode(False)
    for _ in range(2):
        with tree:
            assert nnx.set_graph_mode.get() is False
        assert nnx.set_graph_mode.get() is True


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_decorated_function_runs_under_the_setting(setting: type[Setting]) -> None:
    @setting(False)
    def count_down(number: int) -> list[Any]:
        """Counts down."""
        rest = count_down(number - 1) if number else []
        return [setting.get(), *rest]

    assert setting.get() is True, "decorating sets nothing"
    assert count_down(2) == [False] * 3 and setting.get() is True
    assert count_down.__name__ == "count_down" and count_down.__doc__ == "Counts down."
    with setting(False):
        assert count_down(0) == [False] and setting.get() is False
    with pytest.raises(TypeError):
        count_down("a")  # type: ignore[arg-type]
    assert setting.get() is True


def test_a_decorator_serves_functions_of_any_thread_and_under_jit() -> None:
    tree = nnx.set_graph_mode(False)
    traced = nnx.jit(tree(lambda x: [nnx.set_graph_mode.get(), x][1] * 2))
    decorated = tree(nnx.set_graph_mode.get)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(decorated())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [False] * 3 and traced(2) == 4
    assert nnx.set_graph_mode.get() is True


def test_a_thread_does_not_change_another() -> None:
    seen = []

    def other() -> None:
        seen.append(nnx.set_graph_mode.get())
        nnx.set_graph_mode(True)

    with nnx.set_graph_mode(False):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert nnx.set_graph_mode.get() is False
    assert seen == [True]


def test_the_settings_are_defaults_of_options() -> None:
    layer = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    shared = nnx.List([layer, layer])
    with nnx.set_graph_mode(False):
        with pytest.raises(nnx.SharedReferenceError):
            nnx.split(shared)
        with pytest.raises(nnx.SharedReferenceError):
            nnx.jit(lambda m: None)(shared)
        assert len(nnx.split(shared, graph=True)) == 2
    assert len(nnx.split(shared)) == 2
    with nnx.set_graph_updates(False):
        assert type(nnx.grad(lambda m: m.kernel[...].sum())(layer)) is nnx.Linear
        nnx.jit(lambda m: setattr(m, "label", 1))(layer)
    assert not hasattr(layer, "label")
    with nnx.use_eager_sharding(False):
        assert nnx.using_eager_sharding() is False


@pytest.mark.parametrize(
    ("text", "value"), [("false", False), ("ON", True), ("", True), ("0", False)]
)
def test_environment(text: str, value: bool) -> None:
    done = _run("import weft; print(weft.set_graph_mode.get())", NNX_GRAPH_MODE=text)
    assert done.stdout.strip() == str(value)


def test_environment_that_says_neither() -> None:
    done = _run("import weft", NNX_GRAPH_UPDATES="perhaps")
    assert done.returncode != 0
    found = "environment variable NNX_GRAPH_UPDATES='perhaps': expected 'true' or 'false'"
    assert found in done.stderr


def _run(code: str, **environment: str) -> Any:
    # Only the settings are imported, not JAX: the fragment of the package that they are.
    source = code.replace("weft.", "").replace(
        "import weft",
        "import sys, importlib.util as u; s = u.spec_from_file_location('c', sys.argv[1]); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); globals().update(vars(m))",
    )
    file = sys.modules[Setting.__module__].__file__
    return subprocess.run(
        [sys.executable, "-c", source, str(file)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_traced_apart() -> None:
    traces: list[None] = []

    @jax.jit
    def double(x: Any) -> Any:
        traces.append(None)
        return 2 * x

    for _ in range(2):
        double(1.0)
        assert len(traces) in (1, 3)
        with traced_apart("a"):
            double(1.0)
            with traced_apart("b"):
                double(1.0)
            double(1.0)
        double(1.0)
    assert len(traces) == 3
    with pytest.raises(KeyError), traced_apart("c"):
        raise KeyError
    double(1.0)
    assert len(traces) == 3
