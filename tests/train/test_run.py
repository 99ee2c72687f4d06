"""The loop: what it hands out, logs, saves and ends by; and what it refuses."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.train import loops
from tests.train.loops import counter, go
from weft import train
from weft._core.errors import StructureError


class Unfetched:
    """Stands for a number on a device, and notes when it is fetched."""

    def __init__(self, value, fetched):
        self.value, self.fetched = value, fetched

    def __array__(self, dtype=None, copy=None):
        self.fetched.append(self.value)
        return np.array(self.value)


# -- what is handed out


def test_batches_come_again_until_the_last_step():
    seen = []
    run = go(body=lambda run, batch: seen.append((run.step, batch)))
    assert seen == [(i, float((i - 1) % 3 + 1)) for i in range(1, 11)]
    assert list(run) == []


def test_without_steps_the_data_decides():
    run = go(steps=None)
    assert run.step == 3
    assert run.history["loss"] == {3: 2.0}


def test_no_steps_are_an_error():
    for steps in (0, 187.5, 10.0, "5", True):
        with pytest.raises(ValueError, match="steps must be a whole number from 1 on, or None for"):
            train.Run(None, state={}, data=[1], steps=steps)
    assert go(steps=np.int64(5)).step == 5


def test_fewer_steps_than_are_done_are_an_error(tmp_path):
    go(tmp_path, steps=10)
    state = counter()
    with pytest.raises(ValueError, match=r"at step 10 already, and steps=6 is less: give as many"):
        go(tmp_path, state, steps=6)
    assert int(state["count"][...]) == 0
    assert go(tmp_path, state, steps=10).step == 10 and int(state["count"][...]) == 10
    assert go(tmp_path, state, steps=12).step == 12


def test_data_that_ends_too_early_warns_and_is_saved(tmp_path):
    message = "the data ended after 4 of 10 steps: give data that can be gone through again"
    with pytest.warns(UserWarning, match=message):
        run = go(tmp_path, data=iter([1.0] * 4))
    assert run.history["loss"] == {4: 1.0}
    assert train.Checkpoints(tmp_path / "checkpoints").latest == 4


def test_several_steps_in_a_call():
    sizes = []

    def body(run, batch):
        sizes.append(len(batch))
        run.log({"loss": batch})

    run = go(
        steps=25, data=[float(i) for i in range(25)], steps_per_call=10, log_every=10, body=body
    )
    assert sizes == [10, 10, 5]
    assert run.history["loss"] == {10: 4.5, 20: 14.5, 25: 22.0}


def test_several_steps_in_a_call_to_the_end_of_the_data():
    data = [float(i) for i in range(1, 6)]
    run = go(steps=None, data=data, steps_per_call=2, log_every=2)
    assert run.step == 5 and run.history["loss"] == {2: 1.5, 4: 3.5, 5: 5.0}


def test_several_steps_in_a_call_after_one_by_one(tmp_path):
    go(tmp_path, steps=3, log_every=2)
    run = go(tmp_path, steps=10, steps_per_call=4, log_every=4, save_every=4)
    assert list(run.history["loss"]) == [2, 3, 4, 8, 10]


@pytest.mark.parametrize("name", ["log_every", "save_every"])
def test_nothing_happens_within_a_call(name):
    with pytest.raises(
        ValueError, match=f"{name} must be a multiple of steps_per_call=10.*found 5"
    ):
        train.Run(None, state={}, data=[1], **{"steps_per_call": 10, "log_every": 10, name: 5})
    run = train.Run(None, state={}, data=[1.0], steps_per_call=10, log_every=10)
    with pytest.raises(ValueError, match=r"run\.every must be a multiple.*found 15"):
        run.every(15)
    for name in ("log_every", "save_every", "steps_per_call"):
        for every in (0, 2.5, None):
            with pytest.raises(ValueError, match=f"{name} must be a whole number from 1 on; found"):
                train.Run(None, state={}, data=[1], **{name: every})


# -- what is logged


def test_rows_are_means_since_the_row_before():
    assert go().history["loss"] == {5: 9 / 5, 10: 10 / 5}


def test_the_last_step_has_a_row():
    assert list(go(steps=7).history["loss"]) == [5, 7]


def test_steps_of_every_have_rows():
    def body(run, batch):
        run.log(batch)
        if run.every(4):
            run.log({"acc": run.step}, prefix="val/")

    history = go(body=body).history
    assert list(history["loss"]) == [4, 5, 8, 10]
    assert history["val/acc"] == {4: 4.0, 8: 8.0, 10: 10.0}


def test_what_has_a_prefix_has_a_row_in_any_case():
    def body(run, batch):
        if run.step == 3:
            run.log(train.mean([1.0, 2.0]), prefix="val/")

    assert go(body=body).history.rows == [(3, {"val/loss": 1.5})]


def test_nothing_is_fetched_between_rows():
    fetched, seen = [], []

    def body(run, batch):
        run.log({"loss": Unfetched(run.step, fetched)})
        seen.append(len(fetched))

    go(body=body, sinks=[train.Bar(io.StringIO())])
    assert seen == [0] * 5 + [5] * 5 and len(fetched) == 10


def test_log_outside_of_the_loop_is_an_error():
    run = train.Run(None, state={}, data=[1], steps=1, sinks=[])
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=r"run\.log belongs into the loop: `for batch in run:"
        ):
            run.log(1.0)
        assert list(run) in ([1], [])


def test_sinks_get_rows_and_one_that_fails_warns_once(tmp_path):
    rows = []

    def failing(step, row):
        raise RuntimeError("no network")

    with pytest.warns(RuntimeWarning, match="the sink .*failing failed") as caught:
        run = go(tmp_path, sinks=[failing, lambda step, row: rows.append((step, row))])
    assert len(caught) == 1
    assert rows == run.history.rows == train.History(tmp_path / "history.jsonl").rows


# -- early stopping


def test_stops_when_there_is_no_progress_and_stays_stopped(tmp_path):
    values = {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.25, 5: 0.9}

    def body(run, batch):
        run.log({"acc": values[run.step]}, prefix="val/")
        if run.stale("val/acc", mode="max", patience=2):
            run.stop("no progress")

    run = go(tmp_path, body=body)
    assert run.step == 4 and run.stopped == "no progress"
    again = go(tmp_path, body=body)
    assert again.step == 4 and again.stopped == "no progress"
    again.stopped = None
    assert next(again.step for _ in again) == 5


@pytest.mark.parametrize("killed_after", range(1, 4))
def test_patience_goes_on_where_it_was(tmp_path, killed_after):
    values = {1: 0.3, 2: 0.2, 3: 0.25, 4: 0.1, 5: 0.9}

    def body(run, batch):
        run.log({"acc": values[run.step]}, prefix="val/")
        if run.stale("val/acc", mode="max", patience=3):
            run.stop("no progress")

    go(tmp_path, body=body, steps=killed_after)
    assert go(tmp_path, body=body).step == 4


def test_stale_of_what_is_not_logged_is_an_error():
    with pytest.raises(KeyError, match=r"nothing was logged as 'acc'; there is \['loss'\]"):
        go(body=lambda run, batch: run.log(1.0) or run.stale("acc", mode="max", patience=1))


# -- checkpoints


def test_keeps_the_newest_and_the_best(tmp_path):
    values = [0.0, 0.1, 0.7, 0.2, 0.7, 0.3, 0.4, 0.5, 0.6, 0.65]

    def body(run, batch):
        run.log({"acc": values[run.step - 1]}, prefix="val/")

    go(tmp_path, body=body, keep=2, save_every=4, best="val/acc")
    found = train.Checkpoints(tmp_path / "checkpoints", best="val/acc")
    assert found.best == 3 and found.steps == [3, 8, 10]
    state = counter()
    found.restore(3, **state)
    assert int(state["count"][...]) == 3


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    go()
    assert not os.listdir(tmp_path)


def test_goes_on_where_it_was(tmp_path):
    whole, parts = counter(), counter()
    expected = go(None, whole, data=[1.0, 2.0, 3.0, 4.0], steps=12, log_every=4).history.rows
    for steps in (3, 7, 12):
        parts = counter()
        run = go(tmp_path, parts, data=[1.0, 2.0, 3.0, 4.0], steps=steps, log_every=4)
        assert int(parts["count"][...]) == run.step == steps
    kept = [row for row in run.history.rows if row[0] % 4 == 0]
    assert [step for step, _ in kept] == [step for step, _ in expected]


def test_means_go_on_in_the_midst_of_a_row(tmp_path):
    def body(run, batch):
        run.log({"loss": batch / 3})
        if run.step == 7 and not run.history.names.count("ended"):
            signal.raise_signal(signal.SIGTERM)

    whole = go(body=lambda run, batch: run.log({"loss": batch / 3})).history.rows
    with pytest.raises(SystemExit) as exit:
        go(tmp_path, body=body)
    assert exit.value.code == 143
    run = go(tmp_path, body=lambda run, batch: run.log({"loss": batch / 3}))
    assert run.history.rows == whole


def test_what_was_logged_after_the_checkpoint_is_forgotten(tmp_path):
    go(tmp_path, steps=5)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 6, "time": 0, "loss": 9.0}\n{"step": 7, "ti')
    run = go(tmp_path)
    assert list(run.history["loss"]) == [5, 10]


def test_what_was_logged_before_the_first_checkpoint_is_forgotten(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"step": 5, "time": 0, "loss": 9.0}\n')
    assert go(tmp_path).history["loss"] == {5: 9 / 5, 10: 10 / 5}


def test_a_history_that_was_lost_warns(tmp_path):
    go(tmp_path, steps=5)
    (tmp_path / "history.jsonl").unlink()
    with pytest.warns(UserWarning, match=r"history.jsonl has lost 1 of the 1 rows .* until step 5"):
        go(tmp_path)


# -- signals


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_ends(tmp_path, number, status):
    before = signal.getsignal(number)

    def body(run, batch):
        if run.step == 3:
            signal.raise_signal(number)
        run.log(batch)

    state = counter()
    with pytest.raises(SystemExit) as exit:
        go(tmp_path, state, body=body)
    assert exit.value.code == status
    assert signal.getsignal(number) is before
    restored = counter()
    assert train.Checkpoints(tmp_path / "checkpoints").restore(**restored)["step"] == 3
    assert int(restored["count"][...]) == 3
    assert go(tmp_path).step == 10


def test_a_signal_in_a_step_that_is_broken_off_is_told(tmp_path):
    run = train.Run(None, state={}, data=[1.0], sinks=[], steps=5)
    message = "SIGINT came in step 2, of which the loop was left by `break` or an error"
    with pytest.warns(RuntimeWarning, match=message):
        for _ in run:
            if run.step == 2:
                signal.raise_signal(signal.SIGINT)
                break
    assert run.step == 2


def test_signals_are_given_back_however_the_loop_ends():
    before = signal.getsignal(signal.SIGTERM)
    run = train.Run(None, state={}, data=[1.0], sinks=[], steps=5)
    for _ in run:
        assert signal.getsignal(signal.SIGTERM) is not before
        break
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(ZeroDivisionError):
        go(body=lambda run, batch: 1 / 0)
    assert signal.getsignal(signal.SIGTERM) is before


# -- what is refused


def test_a_folder_in_use(tmp_path):
    state = counter()
    run = train.Run(tmp_path, state=state, data=[1.0, 2.0, 3.0], steps=2, sinks=[])
    for _ in run:
        with pytest.raises(train.FolderInUseError, match=f"in use by process {os.getpid()} on"):
            train.Run(tmp_path, state=state, data=[1.0])
    go(tmp_path)


def test_a_read_only_folder(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match=re.escape(str(tmp_path))):
            train.Run(tmp_path / "run", state=counter(), data=[1.0])
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_refuses(tmp_path, monkeypatch):
    def refuse(self, *args, **options):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(OSError, match=f"Read-only.*{re.escape(str(tmp_path / 'run'))}"):
            train.Run(tmp_path / "run", state=counter(), data=[1.0])
    state = counter()

    def body(run, batch):
        run.log(batch)
        if run.step == 5:
            monkeypatch.setattr(Path, "mkdir", refuse)  # where temporary folders are made

    with pytest.raises(OSError, match=f"Read-only.*{re.escape(str(tmp_path / 'run'))}"):
        go(tmp_path / "run", state, body=body, save_every=2, log_every=50)
    monkeypatch.undo()
    assert int(state["count"][...]) == 6
    assert train.Checkpoints(tmp_path / "run" / "checkpoints").steps == [2, 4]
    assert go(tmp_path / "run").step == 10


FULL = """
import resource, sys
import jax.numpy as jnp
import weft as nnx
from tests.train import loops
from tests.train.loops import counter, go
from weft import train

count = nnx.Variable(jnp.zeros(5000))
run = train.Run(sys.argv[1], state={"count": count}, data=[1.0], steps=9, save_every=2, sinks=[])
try:
    for x in run:
        count[...] += x
        if run.step == 5:  # step 2 is on disk then, step 4 may be on its way
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
except OSError as error:  # of a save in the background, at the next one
    print(error)
assert run.step in (6, 8) and float(count[0]) == run.step
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
checkpoints = train.Checkpoints(sys.argv[1] + "/checkpoints")
assert checkpoints.steps in ([2], [2, 4]), checkpoints.steps
checkpoints.save(9, count=count)
assert checkpoints.latest == 9
checkpoints.restore(2, count=count)
print(float(count[0]))
"""


def test_a_full_disk_names_the_path_and_leaves_the_rest(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    message, value = done.stdout.splitlines()
    assert message.startswith("[Errno 27] File too large: ") and str(tmp_path) in message
    assert value == "2.0"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        train.Run(tmp_path / "file" / "run", state=counter(), data=[1.0])


CHANGES = {
    "data of another length": ({"data": [1.0]}, "another length"),
    "facts": ({"facts": {"seed": 1, "size": 2}}, r"seed: then 0, now 1\n.*size: then None, now 2"),
    "structure": ({"state": {"count": nnx.Variable(jnp.zeros(3))}}, "does not fit the objects"),
    "name": ({"state": {"other": nnx.Variable(jnp.array(0))}}, "(?s)missing: other.*count"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_run_in_the_folder_is_refused_and_nothing_changed(tmp_path, name):
    facts = {"seed": 0}
    go(tmp_path, steps=5, facts=facts)
    change, message = CHANGES[name]
    state = change.get("state", counter())
    before = [np.asarray(v[...]).tobytes() for v in state.values()]
    options = {"state": state, "data": [1.0, 2.0, 3.0], "steps": 10, "facts": facts} | change
    with pytest.raises(StructureError, match=message):
        train.Run(tmp_path, **options)
    assert [np.asarray(v[...]).tobytes() for v in state.values()] == before
    assert go(tmp_path, facts=facts).step == 10  # the folder is free, and as it was


def test_another_loader_is_refused_and_nothing_changed(tmp_path):
    def loader(seed=0, size=2, count=8):
        return train.Loader(np.arange(float(count)), batch_size=size, seed=seed)

    def body(run, batch):
        run.log(batch.mean())

    go(tmp_path, data=loader(), body=body, steps=5)
    for changed in (loader(seed=1), loader(size=4), loader(count=9)):
        state = counter()
        with pytest.raises(StructureError, match=r"another length|does not give the batches"):
            train.Run(tmp_path, state=state, data=changed)
        assert int(state["count"][...]) == 0


def test_state_without_names():
    with pytest.raises(TypeError, match=r"state must name.*`state={'model': model.*found tuple"):
        train.Run(None, state=(1, 2), data=[1])


def test_sinks_that_are_not_several():
    with pytest.raises(TypeError, match=r"sinks must be several, such as `\[train.Bar\(\)\]`; fou"):
        train.Run(None, state={}, data=[1], sinks=train.Bar())


# -- one loop at a time


def test_a_loop_within_a_loop_of_the_same_run_ends_the_outer_one():
    run = train.Run(None, state={}, data=[1.0], steps=9, sinks=[])
    seen = []
    with pytest.raises(RuntimeError, match="another loop over this run has begun, which ends this"):
        for _ in run:
            seen.append(run.step)
            for _ in run:
                run.log(1.0)
                seen.append(run.step)
    assert seen == list(range(1, 10)) and run.history["loss"] == {9: 1.0}
    with pytest.raises(RuntimeError, match="one loop at a time"):
        run = train.Run(None, state={}, data=[1.0], steps=9, sinks=[])
        list(zip(run, run, strict=True))


def test_goes_on_after_a_loop_that_an_error_has_left_behind(tmp_path):
    state, sink = counter(), train.CSV()
    run = train.Run(tmp_path, state=state, data=[1.0, 2.0], steps=10, log_every=5, sinks=[sink])
    left = iter(run)  # a notebook keeps it with the traceback
    run.log(next(left))
    handler = signal.getsignal(signal.SIGTERM)
    for batch in run:
        run.log(batch)
    assert run.step == 10 and run.history["loss"] == {5: 7 / 5, 10: 8 / 5}
    assert signal.getsignal(signal.SIGTERM) is not handler
    assert train.Checkpoints(tmp_path / "checkpoints").latest == 10


def test_closed_within_its_loop_it_ends_and_saves_nothing(tmp_path):
    def body(run, batch):
        run.log(batch)
        if run.step == 3:
            run.close()
            with pytest.raises(RuntimeError, match=r"run\.log belongs into the loop"):
                run.log(batch)

    assert go(tmp_path, body=body, save_every=2).step == 3
    assert go(tmp_path, steps=2).step == 2  # the folder is free


def test_a_run_within_a_run(tmp_path):
    def inner(run, batch):
        found = go(tmp_path / "inner" / str(run.step), steps=4, log_every=2)
        run.log(found.history["loss"][4])

    assert go(tmp_path / "outer", steps=2, log_every=1, body=inner).history["loss"] == {1: 2, 2: 2}


# -- what comes to nothing


def test_a_best_that_is_never_logged_warns(tmp_path):
    message = r"best='val/acc' was never logged, .*: there is \['loss'\]"
    with pytest.warns(UserWarning, match=message) as caught:
        go(tmp_path, best="val/acc")
    assert caught[0].filename == loops.__file__
    go(tmp_path / "b", best="loss")


def test_names_of_rows_are_refused_where_they_are_logged():
    for name in ("step", "time"):
        with pytest.raises(ValueError, match=f"'{name}' cannot be logged"):
            go(body=lambda run, batch: run.log({"loss": batch, name: 1.0}))  # noqa: B023
    with pytest.raises(TypeError, match="numbers have names, found 3 for one"):
        go(body=lambda run, batch: run.log({3: batch}))


def test_a_run_that_failed_leaves_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ZeroDivisionError):
            go(tmp_path, body=lambda run, batch: 1 / 0)
        go(tmp_path)


def test_the_history_is_lines_of_json(tmp_path):
    go(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(5, 1.8), (10, 2.0)]
