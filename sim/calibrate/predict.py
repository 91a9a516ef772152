"""Forecasts of measurements under a profile, and how far they spread over what the profile holds possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kernels.types import Engine
from sim import catalog
from sim.calibrate.table import Table, observe_point
from sim.engines import engines
from sim.intervals import N_DRAWS
from sim.lower import drawn_engines
from sim.point import stack
from sim.profiles import Profile

LEAST_SIZE = 128  # points are padded to powers of two from here on, so that few lengths are compiled
FEW = 1024
_every = jax.vmap(observe_point)
_observe = jax.jit(_every)
_observe_few = jax.jit(_every, compiler_options={"xla_backend_optimization_level": "0"})  # compiles in half the time


def predict(table: Table) -> np.ndarray:
    """(M,) forecasts in the quantities' units, with the table's own engines."""
    return _forecaster(table)(table.arrays.engines, table.arrays.deployment)


def log_variance(table: Table, profile: Profile, progress: Callable[[int, int], None] = lambda *_: None) -> np.ndarray:
    """(M,) variance of the log forecast over engines drawn from the profile, by all rows of a context the same ones."""
    keys = [(at.engine, at.device.id, at.kind) for at in table.contexts]
    places = dict(zip(keys, table.contexts, strict=True))
    drawn = [
        drawn_engines(engines()[at.engine], catalog.machine_of(at.device, 1), profile, at.kind, N_DRAWS)
        for at in places.values()
    ]
    index = np.asarray([list(places).index(key) for key in keys])[table.arrays.deployment]
    run = _forecaster(table)
    logs = []
    for n, chosen in enumerate(zip(*drawn, strict=True), 1):
        logs.append(np.log(run(stack(list(chosen)), index)))
        progress(n, N_DRAWS)
    return np.var(logs, axis=0)


def _forecaster(table: Table) -> Callable[[Engine, Any], np.ndarray]:
    """Forecasts (M,) from stacked engines and the index of each point's (N,)."""
    arrays = table.arrays
    n = len(arrays.deployment)
    padded = max(LEAST_SIZE, 1 << (n - 1).bit_length())

    def grown(tree: Any, index: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[np.pad(index, (0, padded - n), mode="edge")], tree)

    every = np.arange(n)
    models, devices = (grown(tree, arrays.deployment) for tree in (arrays.models, arrays.devices))
    points, depth = grown(arrays.points, every), grown(arrays.depth_tokens, every)
    observe = _observe_few if padded <= FEW else _observe

    def run(some: Engine, index: Any) -> np.ndarray:
        found = np.asarray(observe(models, devices, grown(some, index), points, depth), np.float64)
        return found[arrays.point, arrays.quantity]

    return run
