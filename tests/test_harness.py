"""What the benchmarks share: rounds, ratios, tables, the sections of docs/benchmarks.md."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
OPTIONS = argparse.Namespace(rounds=2, processor_time=False)


def load():
    spec = importlib.util.spec_from_file_location("harness", FOLDER / "harness.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("harness", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


harness = load()


def test_ratio_is_the_median_within_rounds():
    samples = {"a": [2.0, 3.0, 40.0], "b": [1.0, 1.0, 10.0]}
    assert harness.ratio(samples, "a", "b") == 3


def test_net_ratio_divides_by_the_noise():
    random = np.random.default_rng(0)
    machine = random.uniform(1, 5, 200)  # disturbs all of a round alike
    samples = {"raw": machine, "twin": 1.1 * machine, "a": 2.2 * machine}
    assert harness.net_ratio(samples, "a", "raw", "twin") == pytest.approx((2, 2, 2))
    assert harness.net_ratio(samples, "a", "raw").value == pytest.approx(2.2)
    samples["a"] = samples["a"] * random.uniform(0.5, 1.5, 200)
    value, low, high = harness.net_ratio(samples, "a", "raw", "twin")
    assert low < value < high and 1.5 < low < 2 < high < 2.5
    assert str(harness.Interval(1.234, 1, 2)) == "1.23 (1.00 to 2.00)"


def test_measure_interleaves_rounds():
    calls: list[str] = []
    variants = [harness.Variant(name, lambda name=name: calls.append(name)) for name in "ab"]
    assert variants[0].seconds(3) >= 0 and calls == list("aaa")
    samples = harness.measure(variants, OPTIONS, seconds=0)
    assert {name: len(found) for name, found in samples.items()} == {"a": 2, "b": 2}
    assert sorted(calls[-2:]) == sorted(calls[-4:-2]) == ["a", "b"]


def test_samples_are_of_one_copy_after_the_other():
    calls: list[str] = []
    first, *others = (lambda name=name: calls.append(name) for name in "abc")
    variant = harness.Variant("a", first, copies=tuple(others))
    for _ in range(4):
        variant.seconds(2)  # after two calls that are not timed
    assert calls == list("aaaabbbbccccaaaa")
    calls.clear()
    harness.measure([variant], OPTIONS, seconds=0)
    assert set(calls[:27]) == set("abc")  # all are called before anything is measured


def test_measure_hands_each_call_its_own_arguments():
    met = []
    variant = harness.Variant("a", met.append, lambda count: [(object(),) for _ in range(count)])
    variant.seconds(4)
    assert len(set(map(id, met))) == 4


def test_options_of_a_command(capsys):
    parser = harness.make_parser("What it does.\n\nMore.", full=9, quick=2)
    assert harness.read_options(parser, []).rounds == 9
    assert harness.read_options(parser, ["--quick"]).rounds == 2
    assert harness.read_options(parser, ["--quick", "--rounds", "3"]).rounds == 3
    with pytest.raises(SystemExit):
        harness.read_options(parser, ["--rounds", "0"])
    assert "--rounds must be at least 1, found 0" in capsys.readouterr().err


def test_peer_that_is_missing_is_named(capsys):
    assert harness.peer("no_such_library") is None
    assert capsys.readouterr().out == "no_such_library is not installed: its rows are left out\n"
    assert harness.peer("json") is json


def test_table_and_durations():
    assert harness.table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"
    found = [harness.duration(x) for x in (2.5, 0.012, 3.4e-5)]
    assert found == ["2.5 s", "12 ms", "34 µs"]


def test_sections_of_a_document():
    text = f"# Title\n\n{harness.BEGIN}\n{harness.END}\n\nend\n"
    once = harness.insert_section(text, "B", "bee")
    twice = harness.insert_section(once, "A", "| a |\n\nmore")
    sections = "### A\n\n| a |\n\nmore\n\n### B\n\nbee"
    assert twice == f"# Title\n\n{harness.BEGIN}\n{sections}\n{harness.END}\n\nend\n"
    assert harness.insert_section(twice, "B", "bee") == twice
    assert "### B\n\nbumble\n" in harness.insert_section(twice, "B", "bumble")
    with pytest.raises(ValueError, match="lacks the marks <!-- benchmarks: begin -->"):
        harness.insert_section("# Title", "A", "a")


def test_page_takes_the_sections(monkeypatch, tmp_path, capsys):
    page = Path("docs", "benchmarks.md")
    (tmp_path / "docs").mkdir()
    (tmp_path / page).write_text(f"{harness.BEGIN}\n{harness.END}\n", encoding="utf-8")
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    harness.publish("Graph", "| figures |", argparse.Namespace(publish=True, processor_time=True))
    written = (tmp_path / page).read_text(encoding="utf-8")
    assert "### Graph\n\n| figures |\n\nSeconds are processor time" in written
    assert f"jax {jax.__version__}" in written and "| figures |" in capsys.readouterr().out
    real = (FOLDER.parent / page).read_text(encoding="utf-8")
    assert harness.BEGIN in real and harness.END in real
