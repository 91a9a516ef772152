"""The cells of a block, for those who want all of them."""

from __future__ import annotations

import jax
import numpy as np

from kernels.reduce import figures
from sim.sweeps.blocks import Sweeper, reason_names
from sim.sweeps.spec import FIGURE_UNITS, LENGTH_AXES, NAME_AXES, ROW_AXES

UNITS = {"index": "1", **FIGURE_UNITS, "reason": ""}

_figures = jax.jit(figures)


def kept_cells(sweeper: Sweeper, i_block: int, everything: bool) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(columns, units) of the cells of a block that have no reason against them, or of all: axes, then figures.

    A cell that is refused has its first reason, and figures only where its weights and its cache fit.
    """
    block = sweeper.plan.blocks[i_block]
    made = sweeper.cells(block)
    code, _ = sweeper.score(made)
    found = _figures(*made[:4])
    flat = sweeper.everywhere((np.asarray(code) >= 0) if everything else (np.asarray(code) == 0))[0]
    index = sweeper.global_index(block, sweeper.local(flat))
    order = np.argsort(index)
    flat, index = flat[order], index[order]
    own = sweeper.at(code, flat)
    columns = {"index": index, **sweeper.plan.coordinates(index)}
    fits = own & 3 == 0
    columns |= {name: np.where(fits, sweeper.at(value, flat), np.nan) for name, value in found.items()}
    columns["n_devices"] = sweeper.at(found["n_devices"], flat).astype(np.int64)
    names = np.asarray(["", *reason_names(sweeper.plan)])
    first = np.where(own > 0, np.log2(np.maximum(own & -own, 1)).astype(int) + 1, 0)
    columns["reason"] = names[first]
    axes = {name: "" if name in NAME_AXES else "1" for name in ROW_AXES}
    axes |= dict.fromkeys(LENGTH_AXES, "tokens") | {"concurrency": "1", "usd_per_gpu_hour": "USD/h", "usd_factor": "1"}
    return columns, {name: (axes | UNITS)[name] for name in columns}
