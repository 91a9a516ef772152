"""Elasticities of cells: against finite differences in float64, and the laws they follow."""

from __future__ import annotations

from dataclasses import fields, replace

import jax
import numpy as np
import pytest

from sim.point import answer
from sim.request import build
from sim.results import Result
from sim.sweeps.plan import plan
from sim.sweeps.sensitivity import FIGURES, MEMORY_RATIO, PARAMETERS, sensitivities
from sim.sweeps.spec import Spec
from tests import draw

LOADS = {"concurrency": (1, 24, 700), "prompt_tokens": (900,), "output_tokens": (200,)}
SPEC = Spec("cells", model=("llama-3.1-8b", "kimi-k2.6"), hardware=("8x h200", "rtx-4090"), **LOADS)
SCALED = {
    "bandwidth": ("bandwidth_bytes_per_s",),
    "compute": ("peak_flops_per_s", "attention_flops_per_s", "vector_flops_per_s"),
    "link": ("link_bytes_per_s", "allreduce_bytes_per_s", "scale_out_bytes_per_s"),
    "overhead": ("link_latency_s", "scale_out_latency_s"),
    "memory": ("memory_bytes",),
    "price": (),
}
STEP = 1e-4


@pytest.fixture(scope="module")
def found() -> Result:
    planned = plan(SPEC)
    return sensitivities(planned, np.arange(planned.n_cells))


@pytest.fixture(scope="module")
def columns(found: Result) -> dict[str, np.ndarray]:
    """Figure -> (cells, parameters)."""
    return {name: found[f"{name}_elasticity"].reshape(-1, len(PARAMETERS)) for name in FIGURES}


def of(columns: dict[str, np.ndarray], figure: str, parameter: str) -> np.ndarray:
    """Of the cells that fit."""
    column = columns[figure][:, PARAMETERS.index(parameter)]
    return column[np.isfinite(column)]


def logs(model: str, hardware: str, concurrency: int, parameter: str, factor: float) -> np.ndarray:
    """Logarithms of FIGURES with one parameter multiplied, in float64, by names as people give them."""
    load = {"concurrency": concurrency, "prompt": 900, "output": 200}
    made = build(model, hardware, engine=None, weights="native", kv=None, **load)
    arguments = (made.setup.model, made.setup.device, made.setup.engine, jax.tree.map(lambda a: a[0], made.points))
    model_, device, engine, point = jax.tree.map(lambda leaf: draw.to(np.asarray(leaf), np.float64), arguments)
    device = replace(device, **{name: getattr(device, name) * factor for name in SCALED[parameter]})
    if parameter == "overhead":
        timed = [f.name for f in fields(engine) if f.name.endswith(("_s", "_s_per_byte"))]
        engine = replace(engine, **{name: getattr(engine, name) * factor for name in timed})
    if parameter == "price":
        point = replace(point, usd_per_device_s=point.usd_per_device_s * factor)
    got = COMPILED(model_, device, engine, point)
    rate = got.steady.requests_per_s * 200
    return np.log([rate, got.economics.usd_per_output_token, got.steady.tpot_s, got.steady.ttft_s])


COMPILED = jax.jit(answer, compiler_options={"xla_backend_optimization_level": "0"})


def test_they_are_finite_differences(found: Result, float64: None) -> None:
    for row in found.rows():
        names = row["model"], row["hardware"], row["concurrency"], row["parameter"]
        if row["tpot_s_elasticity"] is None:
            assert names[:2] == ("kimi-k2.6", "rtx-4090")
            continue
        if row["parameter"] == "memory":
            slope = (logs(*names, MEMORY_RATIO) - logs(*names, 1.0)) / np.log(MEMORY_RATIO)
        else:
            slope = (logs(*names, np.exp(STEP)) - logs(*names, np.exp(-STEP))) / (2 * STEP)
        mine = [row[f"{name}_elasticity"] for name in FIGURES]
        np.testing.assert_allclose(mine, slope, rtol=2e-4, atol=5e-5, err_msg=str(names))


def test_times_scale_with_the_whole_machine(columns: dict[str, np.ndarray]) -> None:
    rates = [of(columns, "tpot_s", name) for name in ("bandwidth", "compute", "link")]
    assert len(rates[0]) == 9
    for figure, degree in (("tpot_s", -1), ("ttft_s", -1), ("output_tokens_per_s", 1)):
        total = sum(of(columns, figure, name) for name in ("bandwidth", "compute", "link"))
        np.testing.assert_allclose(total - of(columns, figure, "overhead"), degree, atol=1e-4, err_msg=figure)


def test_bounds(columns: dict[str, np.ndarray]) -> None:
    for name in ("bandwidth", "compute", "link"):
        assert np.all((of(columns, "tpot_s", name) >= -1 - 1e-6) & (of(columns, "tpot_s", name) <= 1e-6)), name
    assert of(columns, "tpot_s", "bandwidth").min() < -0.8  # one user on an RTX 4090 waits for its memory
    assert np.all(of(columns, "tpot_s", "overhead") >= 0)
    assert np.all(of(columns, "tpot_s", "price") == 0)


def test_a_rented_device_costs_in_proportion_to_its_rent(found: Result, columns: dict[str, np.ndarray]) -> None:
    rented = (found["hardware"] == "8x h200") & (found["parameter"] == "price")
    np.testing.assert_allclose(found["usd_per_mtok_elasticity"][rented], 1.0, atol=1e-5)
    owned = (found["hardware"] == "rtx-4090") & (found["model"] == "llama-3.1-8b") & (found["parameter"] == "price")
    share = found["usd_per_mtok_elasticity"][owned]  # the rest is electricity
    assert np.all((share > 0.1) & (share < 0.9))
    asked = plan(replace(SPEC, usd_per_gpu_hour=(0.5,)))
    at = sensitivities(asked, np.asarray([3]))
    assert at["usd_per_mtok_elasticity"][PARAMETERS.index("price")] == pytest.approx(1.0, abs=1e-5)


def test_one_row_for_each_cell_and_parameter(found: Result) -> None:
    assert found.shape == (plan(SPEC).n_cells * len(PARAMETERS),)
    assert found["parameter"][:6].tolist() == list(PARAMETERS)
    assert sensitivities(plan(SPEC), np.zeros(0, np.int64)).shape == (0,)
