"""The fit finds what rows were made with, whatever a tenth of them says, and judges itself on what it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tests.measured_world as made
from sim import profiles
from sim.calibration import folds
from sim.calibration.fit import ERROR_SCALE, FIRST_TOKEN_SCALE, TAILS, curvature, log_errors, row_weights
from sim.calibration.known import REASON
from sim.profiles.write import to_toml, write
from sim.verbs.calibrate import Calibration, calibrate
from sim.verbs.estimate import estimate

DATE = "2026-11-23"
GROSS = 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's files are."""
    return tmp_path_factory.mktemp("measured")


def fitted(folder: Path, name: str, factor: np.ndarray) -> Calibration:
    """A calibration to the true values times a factor."""
    table, *_ = made.world(folder)
    file = made.write(folder / name, made.runs(), made.seconds_of(table.rows, factor))
    return calibrate(file, profile="none", name="made", created=DATE)


@pytest.fixture(scope="module")
def noisy(folder: Path) -> Calibration:
    """A calibration to values with 3 % noise."""
    return fitted(folder, "noisy.csv", made.noise(len(made.world(folder)[0].rows)))


def true_errors(found: Calibration, folder: Path) -> np.ndarray:
    """|forecast / truth − 1| of each held-out row."""
    table, *_ = made.world(folder)
    truth = {(row.line, row.quantity): row.value for row in table.rows}
    measured = np.asarray([row.value / truth[row.line, row.quantity] for row in found.work.table.rows])
    return np.abs(np.expm1(found.work.held.log_error + np.log(measured)))


def test_known_shifts_are_recovered_on_configurations_left_out(noisy: Calibration, folder: Path) -> None:
    errors = true_errors(noisy, folder)
    assert np.median(errors) < 0.02 and np.mean(errors) < 0.03
    for of in noisy.errors:
        assert of.after.median_frac < 0.6 * of.before.median_frac


def test_gross_outliers_hardly_matter(folder: Path) -> None:
    n = len(made.world(folder)[0].rows)
    wrong = np.where(np.random.default_rng(2).random(n) < 0.1, GROSS, 1.0)
    found = fitted(folder, "gross.csv", made.noise(n) * wrong)
    assert np.median(true_errors(found, folder)) < 0.03


def test_held_out_intervals_cover_what_they_say(noisy: Calibration) -> None:
    for of in noisy.errors:
        assert 0.74 < of.after.coverage_frac < 0.86, of
    assert set(noisy.profile.interval) == {"tpot_s", "ttft_s"}


def test_the_same_rows_give_the_same_bytes(noisy: Calibration, folder: Path) -> None:
    again = calibrate(folder / "noisy.csv", profile="none", name="made", created=DATE)
    assert to_toml(again.profile) == to_toml(noisy.profile)


def test_folds_never_split_a_configuration(noisy: Calibration) -> None:
    rows, fold = noisy.work.table.rows, noisy.work.held.fold
    by_group: dict[tuple, set[int]] = {}
    for row, k in zip(rows, fold.tolist(), strict=True):
        by_group.setdefault(row.group(), set()).add(k)
    assert len(by_group) == 24 and all(len(own) == 1 for own in by_group.values())
    assert set(fold.tolist()) == set(range(folds.FOLDS))
    by_line = {row.line: k for row, k in zip(rows, folds.by_row(rows).tolist(), strict=True)}
    assert [by_line[row.line] for row in rows] == folds.by_row(rows).tolist()


def test_a_forecast_with_the_written_profile_is_that_of_the_fit(noisy: Calibration, folder: Path) -> None:
    work, file = noisy.work, folder / "made.toml"
    write(noisy.profile, file)
    fit_s = np.exp(log_errors(work.table, work.parameters.pooling, work.fit.z)) * work.table.arrays.measured
    for index in range(0, len(work.table.rows), 37):
        row = work.table.rows[index]
        for profile, rtol in ((noisy.profile, 1e-4), (file, 5e-4)):  # the file has four digits of each shift
            found = estimate(
                row.model, row.machine, engine=row.engine, weights=row.weights, kv=row.kv, tp=row.tp,
                concurrency=row.concurrency, prompt=round(row.prompt), output=round(row.output),
                n_requests=row.n_requests, profile=profile, **row.limits,
            )  # fmt: skip
            assert float(found[row.quantity]) == pytest.approx(fit_s[index], rel=rtol)


def test_curvature_is_that_of_finite_differences(folder: Path) -> None:
    table, params, truth = made.world(folder)
    weights = row_weights(table)
    bent = curvature(table, params.pooling, truth, weights)  # at the truth, where all errors are 0
    scales = np.asarray([FIRST_TOKEN_SCALE if row.quantity == "ttft_s" else ERROR_SCALE for row in table.rows])
    step = 0.2
    for p in np.argsort(-bent)[[0, 3, 10, 30]]:
        moved = np.zeros_like(truth)
        moved[p] = step
        ends = [log_errors(table, params.pooling, truth + sign * moved) for sign in (1, -1)]
        slopes = (ends[0] - ends[1]) / (2 * step) / scales
        exact = 1.0 + (TAILS + 1.0) / TAILS * float(weights @ slopes**2)
        assert 0.5 * exact < bent[p] < 1.05 * exact  # a mean slope stands for those of rows at one point


def test_the_profile_tells_what_it_was_fitted_to(noisy: Calibration) -> None:
    (data,) = noisy.profile.data
    assert (data.file, data.rows, data.used, data.quantities) == ("noisy.csv", 96, 96, {"tpot_s": 96, "ttft_s": 96})
    assert len(data.fingerprints) == 8 * 2 * 96
    assert {(of.engine, of.device): of.rows for of in noisy.profile.evidence} == {
        (engine, device): 24 for engine in ("sglang", "vllm") for device in ("h100-sxm", "h200")
    }
    assert [of.quantity for of in noisy.profile.error] == ["tpot_s", "ttft_s"]
    assert "gemm_compute_frac (fp8) of hopper" in {pin.name for pin in noisy.pins if pin.of_prior_frac < 0.5}
    assert noisy.pins[0].of_prior_frac < 0.5 < noisy.pins[-1].of_prior_frac


def speed(device: str, profile: profiles.Source) -> float:
    """Forecast TPOT of a deployment."""
    found = estimate("qwen3-32b", device, engine="vllm", weights="fp8", tp=2, concurrency=8, prompt=4096, output=512,
                     profile=profile)  # fmt: skip
    return float(found["tpot_s"])


def test_a_few_rows_of_ones_own_adapt_a_profile_and_leave_the_rest(noisy: Calibration, folder: Path) -> None:
    factor = 1.25
    rows = made.runs(devices=("H200",), engines=("vLLM",))[:12]
    all_runs, table = made.runs(), made.world(folder)[0]
    every = dict(zip(all_runs, made.seconds_of(table.rows, factor * np.ones(len(table.rows))), strict=True))
    file = made.write(folder / "own.csv", rows, [every[run] for run in rows])
    known = (folder / "noisy.csv").read_text().splitlines()[1:8]
    file.write_text(file.read_text() + "\n".join(known))  # which the profile was fitted to: not counted twice
    own = calibrate(file, profile=noisy.profile, name="own", created=DATE)
    assert own.profile.base == "made" and own.profile.data[:-1] == noisy.profile.data
    assert [(row.line, row.reason) for row in own.unused] == [(14 + n, REASON) for n in range(len(known))]
    assert (own.profile.data[-1].rows, own.profile.data[-1].used) == (19, 12)
    moved = {device: speed(device, own.profile) / speed(device, noisy.profile) for device in ("2x h100-sxm", "2x h200")}
    assert moved["2x h100-sxm"] == pytest.approx(1.0, abs=0.01)
    assert 1 + 0.5 * (factor - 1) < moved["2x h200"] < 1.1 * factor
    before = {row.place: row for row in noisy.profile.shift}
    after = {row.place: row for row in own.profile.shift}
    assert all(after[place] == row for place, row in before.items() if place[1] != "h200")
    assert own.profile.interval == noisy.profile.interval
    assert any("by row" in note for note in own.notes)
    with pytest.raises(profiles.RoofcastError, match="every row that can be used is in the profile own already"):
        calibrate(file, profile=own.profile)
