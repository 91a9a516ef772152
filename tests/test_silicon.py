"""Measured kernels: what the fit gives back, and what the installed tables say."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from sim.engines import efficiency_rows
from sim.errors import RoofcastError
from sim.silicon import fit as fitting
from sim.silicon import tables
from sim.silicon.cases import cases
from sim.silicon.tables import Samples

KNOWN = {
    "weight_bw_frac": 0.7,
    "gemm_compute_frac": 0.5,
    "gemm_launch_s": 9e-6,
    "kv_bw_frac": 0.6,
    "attention_launch_s": 17e-6,
    "allreduce_s": 6e-6,
    "link_frac": 0.4,
}


def synthetic(group: str, sizes: dict[str, np.ndarray]) -> Samples:
    """Kernels on one H200 that take what a known engine takes, give or take 2 %."""
    n = len(next(iter(sizes.values())))
    empty = Samples("h200", "vllm", group, "bf16", False, "", sizes, np.ones(n))
    device, prior = fitting._machine("h200", [empty])
    values = {name: jnp.full_like(getattr(prior, name), value) for name, value in KNOWN.items()}
    seconds = np.exp(fitting._errors({k: fitting._free(k, v) for k, v in values.items()}, device, prior, cases(empty)))
    noise = np.exp(np.random.default_rng(7).normal(0.0, 0.02, n))
    return replace(empty, seconds=seconds * noise)


@pytest.fixture(scope="module")
def known() -> list[Samples]:
    """GEMMs, decode attention and all-reduces over the range of a serving engine."""
    random = np.random.default_rng(3)

    def over(low: float, high: float) -> np.ndarray:
        return np.round(np.exp(random.uniform(np.log(low), np.log(high), 160)))

    fixed = {"heads": np.full(160, 32.0), "kv_heads": np.full(160, 8.0), "head_dim": np.full(160, 128.0)}
    attention = {"sequences": over(1, 256), "cached": over(64, 3e4), "new": np.ones(160), **fixed}
    return [
        synthetic("gemm", {"tokens": over(1, 8192), "n": over(512, 2e4), "k": over(512, 2e4)}),
        synthetic("decode_attention", attention),
        synthetic("all_reduce", {"bytes": over(2e3, 1e8), "ranks": 2.0 ** random.integers(1, 4, 160)}),
    ]


def test_the_fit_recovers_a_known_engine(known: list[Samples]) -> None:
    found = fitting.fit(known, "h200", "vllm")
    assert found.n_samples == 3 * 160
    assert max(found.median_errors.values()) < 0.03 < min(found.prior_errors.values())
    by_kernel = {"weight_bw_frac", "gemm_compute_frac", "gemm_launch_us"}
    for name, value in KNOWN.items():
        spelled, unit = (f"{name[:-2]}_us", 1e6) if name.endswith("_s") else (name, 1.0)
        figure = found.fields[spelled]
        assert (figure["bf16"] if spelled in by_kernel else figure) == pytest.approx(value * unit, rel=0.1), name


def test_figures_without_timings_are_not_given(known: list[Samples]) -> None:
    found = fitting.fit(known[:1], "h200", "vllm")
    assert set(found.fields) == {"weight_bw_frac", "gemm_compute_frac", "gemm_launch_us"}
    assert found.fields["weight_bw_frac"].keys() == {"bf16"}


def test_absent_tables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RoofcastError, match=r"pip install 'roofcast\[silicon\]'"):
        tables.tables_root()


def test_the_catalogue_holds_fitted_rows_with_their_source() -> None:
    rows = [row for row in efficiency_rows() if row.confidence == "fitted"]
    assert {row.device for row in rows} == set(tables.DEVICES.values())
    assert all(row.source.startswith(tables.PACKAGE) for row in rows)


@pytest.mark.slow
def test_installed_tables_are_forecast_as_well_as_the_catalogue_says() -> None:
    try:
        root = tables.tables_root()
    except RoofcastError as error:
        pytest.skip(str(error))
    samples = tables.read(root, "h200")
    assert {s.group for s in samples} >= {"gemm", "experts", "decode_attention", "mla", "indexer", "all_reduce"}
    assert all(np.all(s.seconds > 0) and len(s) for s in samples)
    found = fitting.fit(samples, "h200", "sglang")
    assert found.median_error() < 0.2
