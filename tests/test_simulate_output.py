"""What `simulate` and `capacity` say beside the figures: notes on what is approximate, words, tables and pictures."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pyarrow.parquet
import pytest

import sim
from sim.errors import RoofcastError
from sim.files import write_whole
from sim.report.number import RECORDED, show_found, show_load
from sim.serving.levels import MAXIMA
from sim.serving.metrics import metrics
from tests.test_simulate import DEPLOYMENT, ONE, scenario

Run = Callable[..., tuple[int, str, str]]
H100 = {"model": "llama-3.1-8b", "hardware": "2x-h100", "engine": "vllm"}
LEVELS = {"requests_per_s": [2.0, 60.0, 80.0], "n_requests": 60, "prompt": {"tokens": 300}, "output": {"tokens": 60}}
STRICT = {"ttft_p95_s": "200ms", "tpot_s": "50ms"}


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({}, ()),
        ({"dp": 2}, ("attention-DP: 2 ranks are one scheduler here",)),
        ({"engine": "mlx", "hardware": "m3-ultra"}, ("MLX: the last token of a prompt is no step of its own here",)),
        ({"engine": "sglang"}, ("SGLang with a full KV cache: ",)),
        ({"model": "gemma-3-12b"}, ("KV blocks: each counts as at a context of 4,096 tokens",)),
    ],
)
def test_notes_say_what_is_approximate_and_only_there(tmp_path: Path, own: dict[str, Any], says: tuple[str]) -> None:
    path = scenario(tmp_path / "x.toml", ONE, {**H100, **own}, workload={"context_tokens": 4096})
    (result,) = sim.simulate(path).results.values()
    told = [note for note in result.provenance if note.startswith(("attention-DP", "SGLang", "MLX", "KV blocks"))]
    assert len(told) == len(says) and all(map(str.startswith, told, says))
    assert "context: 4,096 tokens, as stated" in result.provenance


def test_the_context_that_was_taken_is_said(tmp_path: Path) -> None:
    label = "llama-3.1-8b on rtx-4090"
    found = sim.simulate(scenario(tmp_path / "x.toml", ONE)).summary
    assert f"context of {label}: 220 tokens, the longest drawn" in found.provenance
    long = {**ONE, "prompt": {"tokens": 200_000}, "n_requests": 2}
    found = sim.simulate(scenario(tmp_path / "y.toml", long)).summary
    assert f"context of {label}: 131,072 tokens, all that the model takes" in found.provenance


def test_the_note_on_traffic_has_every_level(tmp_path: Path, run: Run) -> None:
    path = scenario(tmp_path / "x.toml", {**LEVELS, "duration_s": "0.3m"}, objectives=STRICT)
    _, _, err = run("simulate", str(path))
    assert re.search(r"traffic: \d+ to 60 requests a run, at 2, 60, 80 requests/s; of the first: \d+ requests, ", err)
    body = json.loads(run("capacity", str(path), "--format", "json")[1])
    assert any(note.startswith("traffic of the file's first level") for note in body["summary"]["provenance"])


def test_maxima_are_those_of_all_replications(tmp_path: Path) -> None:
    answer = sim.simulate(scenario(tmp_path / "x.toml", {**LEVELS, "replications": 3}))
    for (label, level), runs in answer.runs.items():
        row = next(row for row in answer.results[label].rows() if row["load"] == level)
        for name in MAXIMA:
            assert row[name] == max(metrics(one, {})[name] for one in runs)
            assert f"{name}_low" not in row and f"{name.removesuffix('_frac')}_low_frac" not in row


def test_what_is_missed_is_said_once(tmp_path: Path, run: Run) -> None:
    path = scenario(tmp_path / "x.toml", LEVELS, objectives=STRICT)
    _, out, _ = run("simulate", str(path))
    flat = " ".join(out.split())
    assert "up to 2 requests/s; at 60 requests/s: " in flat and flat.count("at 60 requests/s: ") == 1
    assert flat.count("- at 80 requests/s: ") == 1
    none = scenario(tmp_path / "y.toml", LEVELS, objectives={"ttft_s": "1ms"})
    code, out, _ = run("simulate", str(none))
    assert code == 1 and re.search(r"rtx-4090 +none ", out) and "no, at 2 requests/s: " in out


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.0, RECORDED, "the recorded rate"),
        (2.5, RECORDED, "2.5 times the recorded rate"),
        (1.0, "users", "1 user"),
        (16.0, "requests/s", "16 requests/s"),
    ],
)
def test_loads_in_words(value: float, unit: str, text: str) -> None:
    assert show_load(value, unit) == text and show_found(0.0) == "none" and show_found(16.0) == "16"


def test_requests_have_their_replica_and_absolute_times(run: Run, tmp_path: Path) -> None:
    traffic = {**ONE, "prompt": {"min_tokens": 100, "max_tokens": 300}}
    path = scenario(tmp_path / "x.toml", traffic, {**DEPLOYMENT, "replicas": 2}, workload={"context_tokens": 260})
    parquet, text = tmp_path / "r.parquet", tmp_path / "r.csv"
    run("simulate", str(path), "--requests", str(parquet))
    table = pyarrow.parquet.read_table(parquet)
    found = {name: table[name].to_numpy() for name in table.column_names}
    done = found["status"] == "done"
    assert set(found["replica"][done]) == {1, 2} and np.isnan(found["replica"][~done]).all() and not done.all()
    arrival, scheduled, first, finish = (
        found[f"{n}_s"][done] for n in ("arrival", "scheduled", "first_token", "finish")
    )
    assert (arrival <= scheduled).all() and (scheduled < first).all() and (first < finish).all()
    assert np.ptp(found["ttft_s"][done] - (first - arrival)) < 1e-9  # the front end
    assert found["tpot_s"][done] * 19 == pytest.approx(finish - first)
    units = {field.name: field.metadata[b"unit"].decode() for field in table.schema}
    assert units["first_token_s"] == "s" and units["prompt_tokens"] == "tokens" and units["level"] == "requests/s"
    run("simulate", str(path), "--requests", str(text))
    assert list(next(csv.DictReader(text.read_text().splitlines()))) == table.column_names


def test_pictures_name_limits_and_unstable_levels(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[matplotlib.figure.Figure] = []
    monkeypatch.setattr("sim.report.load.save", lambda figure, file: drawn.append(figure))
    few = {**DEPLOYMENT, "kv_blocks": 60, "label": "few"}
    large = {**DEPLOYMENT, "model": "llama-3.3-70b", "label": "large"}
    path = scenario(tmp_path / "x.toml", {**LEVELS, "n_requests": 200}, few, large, objectives=STRICT)
    run("simulate", str(path), "--plot", str(tmp_path / "x.png"))
    (figure,) = drawn
    panels = [axes for axes in figure.axes if axes.get_legend()]
    texts = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in panels]
    assert texts[0] == ["p95", "p50", "p95 at most 200 ms"] and texts[1][-1] == "each request at most 50.0 ms"
    assert texts[3] == ["unstable or unfinished"]
    figure.draw_without_rendering()
    for axes in panels[:3]:
        low, high = axes.get_ylim()
        numbers = [text.get_text() for text in axes.get_yticklabels() if low <= text.get_position()[1] <= high]
        assert len(numbers) >= 2 and all(number.endswith("s") for number in numbers)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][1] == "large: does not fit"


def test_an_interrupt_leaves_no_file_half_written(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys, time, sim.interrupt, sim.files\n"
        "sim.interrupt.end_on_interrupt()\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "sim.files.UNFINISHED.add(file)\n"
        "file.write_text('half')\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(30)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "x")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "roofcast: interrupted\n")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_put_in_its_place_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_text("old")

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RoofcastError, match="cannot be written: No space left on device"):
        write_whole(tmp_path / "x", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_text() == "old"
