"""Forecasts by the catalogue's own efficiencies against the published sets: the head errors hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sim

MOST_LOCAL, MOST_SERVED = 0.20, 0.25  # median of |error|


@pytest.mark.slow
def test_head_errors_are_within_their_limits(shared: Path, record_property) -> None:
    files = [shared / "measurements" / name for name in ("local.csv.gz", "silicon.csv.gz")]
    found = sim.validate(files, profile="none", by="kind")
    tiers = np.asarray([columns.get("tier") for columns in found.details["columns"]])
    local = (found["quantity"] == "decode_tokens_per_s") & (tiers == "A") & (found["concurrency"] == 1)
    served = {row["group"]: row for row in found.details["scores"].rows() if row["quantity"] == "tpot_s"}
    median = float(np.median(np.abs(found["error_frac"][local & found["used"]])))
    record_property("local decode, batch 1, tier A", median)
    record_property("served TPOT, dense models", served["dense"]["median_frac"])
    assert median <= MOST_LOCAL and served["dense"]["median_frac"] <= MOST_SERVED
    assert found["used"][local].mean() > 0.95 and served["dense"]["rows"] > 700
