"""The grid of a sweep is the single estimate of each of its cells."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from kernels import coefficients, grid, reduce
from sim import catalog
from sim.engines import engines
from sim.sweeps.plan import Plan, plan
from tests import sweep_cells as sweeps

RTOL = 2e-6
ROWS = 60
SAME = ("tpot_s", "e2e_s", "requests_per_s", "output_tokens_per_s", "user_tokens_per_s", "mbu_frac", "mfu_frac",
        "power_w", "running_sequences", "usd_per_hour", "usd_per_mtok", "joules_per_token")  # fmt: skip
PROGRAMS = (coefficients.coefficients, grid.batch, grid.steps, grid.finish, reduce.score, reduce.count_reasons,
            reduce.at_most, reduce.least_of, reduce.undominated)  # fmt: skip
LENGTHS = {"prompt_tokens": (1, 700, 9000), "output_tokens": (1, 150)}
USERS = (1, 2, 7, 50, 300, 5000)
NAMES = sweeps.named(
    model=tuple(catalog.models()),
    hardware=("h100-sxm", "2x mi300x", "m3-ultra-96gb", "4x-rtx-4090", "gb200-nvl72"),
    weights=("native", "q4_k_m", "mlx4"), kv=(None, "fp8"), engine=(None, *engines()),
    concurrency=USERS, usd_per_gpu_hour=(None, 2.5), **LENGTHS,
)  # fmt: skip
LAYOUTS = sweeps.named(
    model=("deepseek-v3", "llama-3.1-70b", "gpt-oss-120b"),
    hardware=("h100-sxm", "mi300x", "m3-ultra"), engine=("vllm", "sglang", "llamacpp", None), gpus=(None, 8, 16),
    tp=(None, 1, 4), pp=(None, 2), ep=(None, 4), dp=(None, 2), replicas=(None, 2, 4),
    max_num_batched_tokens=(None, 512), max_num_seqs=(None, 17), gpu_memory_utilization=(None, 0.7),
    concurrency=USERS, usd_per_gpu_hour=(None, 2.5), **LENGTHS,
)  # fmt: skip


@functools.cache
def made(which: str) -> tuple[Plan, dict[str, np.ndarray]]:
    """A plan and the table of its cells."""
    found = plan({"names": NAMES, "layouts": LAYOUTS}[which])
    return found, sweeps.table(found)


def chosen(found: Plan, n: int) -> list[int]:
    """Random rows, among which is every value of every axis that some row has."""
    random = np.random.default_rng(0)
    rows = random.choice(found.n_rows, n, replace=False).tolist()
    for axis in found.rows.at.T:
        rows += [random.choice(np.flatnonzero(axis == value)) for value in np.unique(axis) if value not in axis[rows]]
    return rows


def test_every_name_is_in_some_row():
    of_names, of_layouts = (made(which)[0].rows.at for which in ("names", "layouts"))
    for rows, spec in ((of_names, NAMES), (of_layouts, LAYOUTS)):
        assert [len(np.unique(axis)) for axis in rows.T] == [len(v) for v in list(spec.axes.values())[: rows.shape[1]]]


@pytest.mark.parametrize("which", ["names", "layouts"])
def test_cells_are_estimates(which):
    """To float32's rounding of every figure.

    TTFT holds what a request waits: the whole of its time less its service. That difference has the rounding of the
    whole, so that TTFT is held to 2e-6 of the end-to-end time. Free memory, also a difference, to that of the usable.
    """
    found, table = made(which)
    rows = chosen(found, ROWS)
    n_fit, n_queue = 0, 0
    for row in rows:
        rent = None if found.rows.numbers["usd_per_device_s"][row] > 0 else np.nan
        for at_price, more in enumerate(({}, {"price": 2.5})):
            alone = sweeps.alone(found, row, **more)
            cells = {name: values[row, :, :, at_price] for name, values in table.items()}
            fits = (cells["code"] & 7) == 0
            np.testing.assert_array_equal(fits, alone["fits"])
            context = f"{sweeps.own(found, row)}"
            for name in SAME:
                expected = alone[name][fits]
                none = rent is not None and not more and name.startswith("usd")
                none = none | ((name in reduce.PER_OUTPUT_TOKEN) & (alone["output_tokens"][fits] == 1))
                np.testing.assert_array_equal(np.isfinite(expected), ~none)
                np.testing.assert_allclose(cells[name][fits], expected, rtol=RTOL, err_msg=f"{name} of {context}")
            np.testing.assert_allclose(cells["n_devices"], alone["n_gpus"])
            held, whole = cells["max_sequences"], alone["max_sequences"]
            assert np.all((whole <= held * (1 + RTOL)) & (held * (1 - RTOL) < whole + 1))
            pool = alone["free_bytes"] + alone["kv_bytes"] + alone["state_bytes"]
            near(cells["pool_bytes"][fits], pool[fits], alone["usable_bytes"][fits], context)
            near(cells["ttft_s"][fits], alone["ttft_s"][fits], alone["e2e_s"][fits], context)
            n_fit += fits.sum()
            n_queue += np.sum(alone["running_sequences"][fits] < 0.9 * alone["concurrency"][fits])
    assert n_fit > 0.5 * fits.size * len(rows) and n_queue > 0.1 * n_fit


def near(found: np.ndarray, expected: np.ndarray, whole: np.ndarray, context: str) -> None:
    """Differences of the size of the rounding of what they are part of."""
    off = np.abs(found.astype(float) - expected) / whole
    assert np.max(off, initial=0.0) <= RTOL, context


ORDERS = [
    ("lengths", "concurrency", "deployments"),
    ("deployments", "concurrency", "lengths"),
    ("deployments", "lengths", "concurrency"),
]
SMALL = sweeps.named(
    model=("llama-3.1-8b", "gpt-oss-120b"), hardware=("h100-sxm", "m3-ultra"), gpus=(1, 2), dp=(None, 2),
    prompt_tokens=(100, 5000), output_tokens=(200,), concurrency=(1, 20, 500), usd_per_gpu_hour=(None, 1.0),
)  # fmt: skip


def test_the_order_of_the_axes_changes_nothing():
    tables = []
    for order in ORDERS:
        found = plan(SMALL)
        found.__dict__["order"] = order  # in place of the one that suits the sizes
        tables.append(sweeps.table(found))
    code = tables[0]["code"]
    assert 0 in code
    fits = code == 0
    for table in tables[1:]:
        np.testing.assert_array_equal(table["code"], code)
        for name in (*SAME, "ttft_s"):
            rtol = 30 * RTOL if name == "ttft_s" else RTOL
            np.testing.assert_allclose(table[name][fits], tables[0][name][fits], rtol=rtol, err_msg=name)


def test_a_sweep_of_the_same_shape_compiles_nothing():
    sweeps.swept(plan(SMALL))
    before = {f: f._cache_size() for f in PROGRAMS}
    assert all(before.values())
    other = replace(SMALL, model=("qwen3-32b", "gpt-oss-20b"), hardware=("h200", "m3-ultra-96gb"), prompt_tokens=(7, 8),
                    concurrency=(3, 5, 7), usd_per_gpu_hour=(None, 9.0))  # fmt: skip
    part = sweeps.swept(plan(other))
    assert part.n_cells == plan(other).n_cells == plan(SMALL).n_cells
    assert {f: f._cache_size() for f in PROGRAMS} == before
