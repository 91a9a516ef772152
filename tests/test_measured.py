"""The validation bench: published measurements become cases, and the headline errors hold."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "measurements"
SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch):
    """The module bench/measured.py, which is no part of the package."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "bench"))
    return importlib.import_module("measured")


@pytest.fixture
def validate(measured):
    """The module bench/validate.py."""
    return importlib.import_module("validate")


def test_measurements_become_cases(measured) -> None:
    local, silicon = measured.read_local(SAMPLES / "local.csv"), measured.read_silicon(SAMPLES / "silicon.csv")
    assert [(c.source, c.model, c.prompt, c.output) for c in local.cases] == [("local", "llama-3-8b", 1, 511)]
    assert local.unusable == {("not decode", "prefill"): 1, ("not decode", "e2e"): 1, ("flagged", "xiongjie"): 1,
                              ("prompt length not stated", "x"): 1}  # fmt: skip
    assert [(c.concurrency, c.prompt, c.measured_s) for c in silicon.cases] == [(32, 922, 0.0182), (64, 8192, 0.0124)]
    assert silicon.headline_unusable == {"label suspect": 1, "contradictory parallelism": 1}


def test_scores_count_rows_without_a_forecast(validate) -> None:
    found = validate.score("s", "all", "all", np.array([0.1, -0.3, np.nan]), np.array([0.5, 0.5, 0.5]))
    assert (found.n_rows, found.n_forecast) == (3, 2)
    assert (found.median_percent, found.mean_percent, found.bias_percent) == (20.0, 20.0, -10.0)


def test_absent_files_are_named(validate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate.main(["--local", str(tmp_path / "none.gz")]) == 2
    assert "none.gz" in capsys.readouterr().err


@pytest.mark.slow
def test_headline_errors_are_within_their_limits(validate, tmp_path: Path, record_property) -> None:
    if not SHARED.is_dir():
        pytest.skip("../shared/measurements is not beside this checkout")
    local, silicon = validate.read_local(), validate.read_silicon()
    cases = [*local.cases, *silicon.cases]
    seconds, _ = validate.predict(cases)
    measured_s = np.array([case.measured_s for case in cases])
    errors = seconds / measured_s - 1
    scores = validate.all_scores(cases, errors, validate.naive_roofline(cases) / measured_s - 1)
    headline = {s.section: s for s in scores if s.by == "all" and s.section in validate.LIMITS_PERCENT}
    for section, found in headline.items():
        record_property(section, found.median_percent)
        assert not validate.missed(found), f"{section}: {found.median_percent} %"
        assert found.n_forecast > 0.95 * found.n_rows
