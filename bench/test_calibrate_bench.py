"""Times of a fit and of a whole calibration, and of an estimate with its profile beside one without.

Rows are made up from the kernels (tests/measured_world.py). Answers are asserted before they are timed.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import sim
import tests.measured_world as made
from sim.calibrate.fit import fit, log_errors, row_weights
from sim.verbs.calibrate import calibrate

ROUNDS = 30
MOST_RATIO = 1.15  # of the median times of two estimates; repeated runs of one differ by some percent
CALL = {"engine": "vllm", "weights": "fp8", "tp": 2, "prompt": 4096, "output": 512, "concurrency": [1, 8, 64]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's files are."""
    return tmp_path_factory.mktemp("measured")


def test_fit(benchmark, folder: Path) -> None:
    """A fit of 192 figures of 24 deployments, after compilation."""
    table, params, _ = made.world(folder)
    weights = row_weights(table)
    found = fit(table, params.pooling, weights)
    assert np.median(np.abs(log_errors(table, params.pooling, found.z))) < 0.02
    benchmark.extra_info.update(rows=len(table.rows), parameters=len(params.names), evaluations=len(found.losses))
    benchmark.pedantic(fit, args=(table, params.pooling, weights), rounds=3)


def test_calibrate(benchmark, folder: Path) -> None:
    """Reading, five folds and the fit of all rows, after compilation."""
    table, *_ = made.world(folder)
    file = made.write(folder / "rows.csv", made.runs(), made.seconds_of(table.rows, made.noise(len(table.rows))))
    found = calibrate(file, profile="none")
    assert all(of.after.median_frac < of.before.median_frac for of in found.errors)
    benchmark.pedantic(calibrate, args=(file,), kwargs={"profile": "none"}, rounds=2)


def test_an_estimate_with_a_profile_is_as_fast(benchmark, folder: Path) -> None:
    """Median of each of two kinds of call, made in turns, so that both meet the same machine."""
    table, *_ = made.world(folder)
    file = made.write(folder / "few.csv", made.runs(), made.seconds_of(table.rows, made.noise(len(table.rows))))
    profile = calibrate(file, profile="none").profile
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for calibrated, own in times.items():
            start = time.perf_counter()
            sim.estimate("qwen3-32b", "2x h200", profile=profile if calibrated else "none", **CALL)
            own.append(time.perf_counter() - start)
    ratio = float(np.median(times[True]) / np.median(times[False]))
    benchmark.extra_info.update(ratio=ratio)
    assert ratio < MOST_RATIO
    benchmark(sim.estimate, "qwen3-32b", "2x h200", profile=profile, **CALL)
