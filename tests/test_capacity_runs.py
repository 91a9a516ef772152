"""`sim.capacity` makes its runs longer around its answer, and says where they should be longer yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import sim
from sim.serving import trials
from tests.test_capacity import at
from tests.test_simulate import DEPLOYMENT, scenario

Run = Callable[..., tuple[int, str, str]]


def over_h100s(path: Path, *counts: int) -> Path:
    """1,000 requests of which a replica bears three times what it bears of many, and four of them more yet."""
    one = {**DEPLOYMENT, "weights": "fp8", "tp": 1}
    copies = [{**one, "label": str(n), "hardware": f"{n}x-h100", "replicas": n} for n in counts]
    lengths = {"prompt": {"mean_tokens": 800, "cv": 1.0, "max_tokens": 6000},
               "output": {"mean_tokens": 250, "cv": 0.8, "max_tokens": 1500}}  # fmt: skip
    return scenario(
        path, {"requests_per_s": 50.0, "n_requests": 1000, **lengths}, *copies,
        objectives={"ttft_p99_s": "5s"}, workload={"context_tokens": 8192},
    )  # fmt: skip


def test_runs_are_lengthened_until_the_answer_stays(tmp_path: Path) -> None:
    path = over_h100s(tmp_path / "a.toml", 1, 2, 4)
    rows = sim.capacity(path).summary.rows()
    assert not any(row["at_most"] for row in rows)
    assert [row["max_load"] / row["replicas"] for row in rows] == pytest.approx([rows[0]["max_load"]] * 3, rel=0.04)
    assert [row["usd_per_mtok"] for row in rows] == pytest.approx([rows[0]["usd_per_mtok"]] * 3, rel=0.04)
    first = rows[0]["max_load"]
    assert not at(path, 1.3 * first, n_requests=60_000)["1"]["keeps"] and at(path, 1.3 * first)["1"]["keeps"]
    assert at(path, 0.97 * first, n_requests=60_000)["1"]["keeps"]


def test_where_runs_cannot_be_longer_the_answer_is_a_bound(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trials, "ENOUGH_REQUESTS", 1000)
    path, plot = over_h100s(tmp_path / "a.toml", 1), tmp_path / "a.svg"
    (row,) = json.loads(run("capacity", str(path), "--format", "json")[1])["summary"]["rows"]
    assert row["at_most"] is True and row["verdict"].startswith(f"at most {row['max_load']:g} requests/s; ")
    code, out, _ = run("capacity", str(path), "--plot", str(plot))
    assert code == 0 and f"≤ {row['max_load']:g}" in out and f"highest ≤ {row['max_load']:g}" in plot.read_text()
    (fewest,) = sim.capacity(path, fewest=True).summary.rows()
    assert fewest["at_least"] is True and fewest["verdict"].startswith("at least ")
