"""By how many percent the figures of cells change where a parameter of the hardware is one percent more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sim import errors
from sim.lower import NO_LIMIT
from sim.point import Point, Setup, answer
from sim.results import Result
from sim.scaling import scaled
from sim.sweeps.plan import Plan
from sim.sweeps.rows import rent
from sim.sweeps.spec import NAME_AXES

FIGURES = ("output_tokens_per_s", "usd_per_mtok", "tpot_s", "ttft_s")
SMOOTH = ("bandwidth", "compute", "link", "overhead", "price")
PARAMETERS = (*SMOOTH, "memory")
MEMORY_RATIO = 1.1
BLOCK = 128  # cells of one compiled call


def sensitivities(plan: Plan, index: np.ndarray) -> Result:
    """Elasticities d log figure / d log parameter of cells, by their index: one row for each cell and parameter.

    Parameters are those of `sim.scaling.scaled`, and price: USD per device-hour. By gradients, except memory: it acts
    in steps (a sequence more fits or does not), so its figure is that of 10 % more, log(f(1.1·m) / f(m)) / log 1.1.
    An elasticity of TPOT to bandwidth of −0.8 says that 1 % more bandwidth takes 0.8 % off TPOT. Those of a time sum to
    −1 over bandwidth, compute and link less overhead: a machine twice as fast in all takes half the time. At a kink,
    such as a limit just reached, the gradient is of one side. NaN where a cell does not fit, or has no price.
    """
    index = np.atleast_1d(np.asarray(index, np.int64))
    found = np.concatenate([_block(plan, index[i : i + BLOCK]) for i in range(0, len(index), BLOCK)] or [_none()])
    each = np.repeat(index, len(PARAMETERS))
    at = plan.coordinates(each)
    axes = [name for name, values in plan.spec.axes.items() if len(values) > 1 or name in ("model", "hardware")]
    columns = {"index": each} | {name: at[name] for name in axes}
    columns["parameter"] = np.tile(np.asarray(PARAMETERS), len(index))
    columns |= {f"{name}_elasticity": found[:, :, i].ravel() for i, name in enumerate(FIGURES)}
    units = {name: "" if name in (*NAME_AXES, "parameter") else "1" for name in columns}
    return Result(columns, units, ("memory: by 10 % more of it, as it acts in steps; all others: gradients",))


def _none() -> np.ndarray:
    return np.zeros((0, len(PARAMETERS), len(FIGURES)), np.float32)


def _block(plan: Plan, index: np.ndarray) -> np.ndarray:
    """(N, parameters, figures) elasticities, N at most BLOCK."""
    model, device, engine, point = jax.tree.map(lambda a: np.resize(a, (BLOCK, *a.shape[1:])), cells(plan, index))
    roomy = replace(device, memory_bytes=device.memory_bytes * np.float32(MEMORY_RATIO))
    slopes, now, why = (np.asarray(part) for part in _slopes(model, device, engine, point))
    more = np.asarray(_slopes(model, roomy, engine, point)[1])
    both = np.concatenate([slopes, (more - now)[:, None] / np.log(MEMORY_RATIO)], axis=1) + 0.0  # no -0.0
    alone = (np.asarray(FIGURES) == "tpot_s") & (point.output_tokens[:, None] == 1)
    absent = ((why & errors.INFEASIBLE)[:, None] > 0) | alone
    return np.where(absent[:, None], np.nan, both)[: len(index)]


def cells(plan: Plan, index: np.ndarray) -> tuple[Any, Any, Any, Point]:
    """(N,) models, devices, engines and points of cells, by their index."""
    row, length, level, price = np.unravel_index(index, plan.shape)
    rows, which = plan.rows, plan.rows.which[row]
    trees = (rows.models, rows.devices, rows.engines)
    model, device, engine = (jax.tree.map(lambda a, i=i: a[which[:, i]], tree) for i, tree in enumerate(trees))
    own = {name: values[row] for name, values in rows.numbers.items() if name != "purchase_usd"}
    usd, factor = plan.prices[price].T
    asked = ~np.isnan(usd)
    own["usd_per_device_s"] = np.where(asked, rent(usd), own["usd_per_device_s"]) * factor
    own["usd_per_joule"] = np.where(asked, 0.0, own["usd_per_joule"])
    numbers = own | {
        "concurrency": np.asarray(plan.spec.concurrency)[level],
        **dict(zip(("prompt_tokens", "output_tokens", "context_tokens"), plan.lengths[length].T, strict=True)),
        "mixes_prefill": engine.mixes_prefill, "admission_steps": engine.admission_steps,
    }  # fmt: skip
    same = {"kv_pool_tokens": NO_LIMIT, "n_requests": NO_LIMIT, "length_spread": 0.0, "host_layer_frac": 0.0,
            "host_expert_frac": 0.0}  # fmt: skip
    numbers |= {name: np.full(len(row), value) for name, value in same.items()}
    return model, device, engine, Point(**{name: np.asarray(values, np.float32) for name, values in numbers.items()})


def _of_cell(model: Any, device: Any, engine: Any, point: Point) -> tuple[Array, Array, Array]:
    """((SMOOTH, FIGURES) elasticities, logarithms of the figures, why it does not fit); unbatched."""
    start = jnp.zeros(len(SMOOTH), jnp.float32)
    slopes, (now, why) = jax.jacfwd(_logs, argnums=2, has_aux=True)(Setup(model, device, engine), point, start)
    return slopes.T, now, why


def _logs(setup: Setup, point: Point, by: Array) -> tuple[Array, tuple[Array, Array]]:
    """(logarithms of FIGURES, (the same, why a cell does not fit)); by: logarithms of the factors of SMOOTH."""
    *factors, price = jnp.exp(by)
    faster = scaled(setup, dict(zip(SMOOTH, factors, strict=False)))
    dearer = replace(point, usd_per_device_s=point.usd_per_device_s * price)
    found = answer(faster.model, faster.device, faster.engine, dearer)
    rate = found.steady.requests_per_s * point.output_tokens
    cost = found.economics.usd_per_output_token
    logs = jnp.log(jnp.stack([rate, cost, found.steady.tpot_s, found.steady.ttft_s]))
    return logs, (logs, found.why)


_slopes = jax.jit(jax.vmap(_of_cell), compiler_options={"xla_backend_optimization_level": "0"})
