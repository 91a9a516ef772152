"""Whole sweeps as arrays in the order of their cells, and the sweeps that tests share."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kernels.reduce import figures
from sim.results import Result
from sim.sweeps.blocks import Sweeper
from sim.sweeps.parts import Part, merge
from sim.sweeps.plan import Plan
from sim.sweeps.spec import ROW_AXES, Spec
from sim.verbs.estimate import estimate

ARGUMENTS = ("gpus", "tp", "pp", "ep", "dp", "replicas", "max_num_batched_tokens", "max_num_seqs",
             "gpu_memory_utilization")  # fmt: skip
CELLS = ("running_sequences", "requests_per_s", "mbu_frac", "mfu_frac")
jitted_figures = jax.jit(figures)


def shape_of(plan: Plan) -> tuple[int, int, int, int]:
    """(rows, lengths, concurrencies, prices)."""
    return plan.n_rows, len(plan.lengths), plan.n_concurrency, len(plan.prices)


def unpadded(sweeper: Sweeper, array: Any, n_rows: int, n_lengths: int) -> np.ndarray:
    """A block's array in the order of cells: (rows, lengths, concurrencies, prices), without what pads it."""
    full = np.broadcast_to(np.asarray(array), sweeper.shape)
    names = ("deployments", "lengths", "concurrency", "prices")
    ordered = np.transpose(full, [sweeper.dims.index(name) for name in names])
    return ordered[:n_rows, :n_lengths, : sweeper.plan.n_concurrency]


def table(plan: Plan) -> dict[str, np.ndarray]:
    """Every figure of every cell, in the order of cells, by the grid."""
    plan = plan.whole()
    sweeper, found = Sweeper(plan), {}
    for block in plan.blocks:
        made = sweeper.cells(block)
        of, cells, load, prices, _ = made
        values = jitted_figures(of, cells, load, prices) | {name: getattr(cells, name) for name in CELLS}
        values |= {"pool_bytes": cells.memory.pool_bytes, "max_sequences": cells.memory.max_sequences}
        values["code"] = sweeper.score(made)[0]
        rows = slice(block.first_row, block.first_row + block.n_rows)
        lengths = slice(block.first_length, block.first_length + block.n_lengths)
        for name, array in values.items():
            whole = found.setdefault(name, np.empty(shape_of(plan), np.asarray(array).dtype))
            whole[rows, lengths] = unpadded(sweeper, array, block.n_rows, block.n_lengths)
    return found


def own(plan: Plan, row: int) -> dict[str, Any]:
    """What the axes of a row say."""
    return {name: getattr(plan.spec, name)[i] for name, i in zip(ROW_AXES, plan.rows.at[row], strict=True)}


def asked(plan: Plan, row: int) -> dict[str, Any]:
    """The arguments of `sim.estimate` for all lengths and concurrencies of a row, which become (L, C)."""
    named = own(plan, row)
    given = {name: named[name] for name in ARGUMENTS if named[name] is not None}
    given |= {name: named[name] for name in ("model", "hardware", "engine", "weights", "kv")}
    lengths = dict(zip(("prompt", "output", "context"), plan.lengths.T[:, :, None], strict=True))
    return {**given, **lengths, "concurrency": np.asarray(plan.spec.concurrency)[None], "pay": plan.spec.pay}


def alone(plan: Plan, row: int, **more: Any) -> Result:
    """(L, C) estimates of a row, without the sweep."""
    return estimate(**asked(plan, row), profile=plan.spec.profile, **more)


def swept(plan: Plan, order: list[int] | None = None, hints: list | None = None) -> Part:
    """The merged part of all blocks, in some order and with what each is told."""
    sweeper = Sweeper(plan)
    order = list(range(len(plan.blocks))) if order is None else order
    parts = [sweeper.evaluate(i, None if hints is None else hints[i]) for i in order]
    whole = parts[0]
    for part in parts[1:]:
        whole = merge(whole, part, plan.spec.top)
    return whole


def named(**given: Any) -> Spec:
    """A sweep of a name."""
    return Spec(name="test", **given)
