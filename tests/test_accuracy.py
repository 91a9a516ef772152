"""docs/accuracy.md is what its figures say, and the figures are what a fit gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim import measure
from sim.accuracy import document, figures_text
from sim.accuracy.figures import Judged, head_figures, judge
from sim.accuracy.heads import HEADS
from sim.accuracy.ranks import layout_ranks, repeatability
from sim.calibration import folds
from sim.calibration.fit import fit, log_errors, row_weights
from sim.calibration.heldout import HeldOut
from sim.calibration.parameters import parameters
from sim.calibration.table import tabulate
from sim.calibration.written import FROM_SCRATCH
from sim.verbs.calibrate import FITTED, Work

DOCS = Path(__file__).resolve().parents[1] / "docs"
SAMPLE = Path(__file__).parent / "samples" / "silicon.csv"
MOST_BYTES = 60_000
WITHIN = 0.15


@pytest.fixture(scope="module")
def figures() -> dict:
    """The figures of the document."""
    return json.loads((DOCS / "accuracy.json").read_text(encoding="utf-8"))


def test_the_document_is_what_its_figures_say(figures: dict) -> None:
    assert document(figures) == (DOCS / "accuracy.md").read_text(encoding="utf-8")
    assert figures_text(figures) == (DOCS / "accuracy.json").read_text(encoding="utf-8")
    assert (DOCS / "accuracy.json").stat().st_size < MOST_BYTES


def test_it_tells_what_public_sets_hold_and_how_figures_count(figures: dict) -> None:
    public = document(figures)
    for data in figures["files"]:
        assert f"- **{data['file'].partition('.')[0]}**: " in public
    n_figures = sum(n for data in figures["files"] for n in data["quantities"].values())
    assert f"All counts below are of figures, {n_figures:,} in all" in public and n_figures == figures["coverage"][0][1]
    two = {"file": "silicon.csv.gz", "rows": 2000, "used": 1643, "quantities": {"tpot_s": 1643, "ttft_s": 1641}}
    assert "| silicon.csv.gz | 2,000 | 1,643 | 3,284 | 1,643 TPOT, 1,641 TTFT |" in document(figures | {"files": [two]})
    mine = document(figures | {"files": [data | {"file": f"my-{data['file']}"} for data in figures["files"]]})
    assert "Public measurements" not in mine and "**: " not in mine


def test_head_figures_are_of_their_rows() -> None:
    row = measure.read([SAMPLE]).measurements[0]
    tpot, ttft = (replace(row, quantity=quantity) for quantity in ("tpot_s", "ttft_s"))
    local = replace(row, quantity="decode_step_s", source="local:x", concurrency=8, prompt=4096.0, moe=True)
    rows = [tpot, tpot, tpot, ttft, local]
    after = np.log1p([0.1, -0.2, 0.6, 0.3, -0.5])
    zero = np.zeros(len(rows))
    judged = Judged(rows, zero, after, zero, np.ones(len(rows), bool))
    found = {head["name"]: head for head in head_figures(judged, np.ones(len(rows), bool))}
    assert len(found) == len(HEADS)
    measured = {name: round(head["measured"], 4) for name, head in found.items() if head["rows"]}
    assert measured == {
        "Serving TPOT (silicon), median": 0.2, "Serving TPOT (silicon), mean": 0.3,
        "Serving TTFT (silicon), median": 0.3,
        "Local decode, batch up to 8, median": 0.5, "Local decode of MoE models, median": 0.5,
        "Local decode behind 4k tokens and more, median": 0.5,
    }  # fmt: skip
    name, *values = judged.line("all", [0, 1, 2])
    assert (name, values) == ("all", pytest.approx([3, 0.2, 0.3, 0.1, 0.52, 1.0, 0.0, 0.0], rel=1e-6))


def test_layouts_rank_by_throughput_of_a_gpu() -> None:
    row = measure.read([SAMPLE]).measurements[0]
    rows = []
    for n, (tp, tpot_s) in enumerate(((1, 0.040), (2, 0.025), (4, 0.020))):
        same = replace(row, line=n, tp=tp, machine=f"{tp}x h100-sxm")
        rows += [replace(same, quantity="tpot_s", value=tpot_s), replace(same, quantity="ttft_s", value=0.1)]
    none = np.zeros(len(rows))
    assert layout_ranks(rows, none) == {"groups": 1, "throughput": 1.0, "tpot": 1.0}
    slow_first = np.log([3.0, 1, 1, 1, 1, 1])  # 1 GPU at 0.12 s is worse than 2 at 0.025 s, better than none
    assert layout_ranks(rows, slow_first)["tpot"] == pytest.approx(-0.5)
    assert layout_ranks(rows[:4], none[:4])["groups"] == 0


def test_repeated_runs_tell_the_floor() -> None:
    row = replace(measure.read([SAMPLE]).measurements[0], quantity="tpot_s")
    rows = [replace(row, value=value) for value in (1.0, 1.1)] + [replace(row, concurrency=7, value=5.0)]
    assert repeatability(rows, "tpot_s") == {"pairs": 1, "apart_frac": pytest.approx(np.log(1.1))}
    assert np.isnan(repeatability(rows[:1], "tpot_s")["apart_frac"])


@pytest.mark.slow
def test_a_fold_fitted_again_gives_its_figures(figures: dict, shared: Path) -> None:
    files = [shared / "measurements" / data["file"] for data in figures["files"]]
    rows = [row for row in measure.read(files).measurements if row.quantity in FITTED]
    table, _ = tabulate(rows, "none")
    params, weights = parameters(table.contexts, FROM_SCRATCH, False), row_weights(table)
    fold, told = folds.by_configuration(table.rows), figures["told_fold"]
    own = fold == told["fold"]
    found = fit(table, params.pooling, np.where(own, 0.0, weights).astype(np.float32))
    before, after = (log_errors(table, params.pooling, z) for z in (np.zeros_like(found.z), found.z))
    held = HeldOut(after, np.zeros(len(fold)), fold)
    judged = judge(Work(table, params, weights, found, before, held))
    for then, now in zip(told["heads"], head_figures(judged, own), strict=True):
        assert now["rows"] == then["rows"]
        assert now["measured"] == pytest.approx(then["measured"], rel=WITHIN), then["name"]
