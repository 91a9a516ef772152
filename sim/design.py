"""The hardware that a workload needs: factors of a machine's parameters under which figures keep to limits.

In the logarithms of the factors this is nearly a geometric program: a time is a sum of p-norms of terms a / f, which is
convex there, and the cost Σ w·log f is linear. So a coarse grid finds the region, a descent on the augmented Lagrangian
the optimum, and lines searched point by point make the answer keep to the limits, and barely.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from sim import errors, units
from sim.point import Point, Setup, answer
from sim.scaling import scaled

FREE = ("bandwidth", "compute", "link", "memory")
AT_LEAST = ("user_tokens_per_s", "output_tokens_per_s")
FIGURES = ("ttft_s", "tpot_s", "e2e_s", "usd_per_hour", "usd_per_mtok", "joules_per_token", "power_w", *AT_LEAST)
SIGNS = np.asarray([-1.0 if name in AT_LEAST else 1.0 for name in FIGURES], np.float32)
MEMORY = np.asarray([name == "memory" for name in FREE])
GROWTH = "growth"
N_POINTS = 4096  # of a grid, and of a line
ROUNDS, STEPS = 30, 60  # of multipliers, and of Adam in each
RATE = 0.1  # of Adam, in logarithms of factors
STIFFNESS, STIFFER = 10.0, 1.2  # of the penalty, and its growth from round to round
MOST_STIFF = 1e3
ROUNDING = 1e-5  # of logarithms
FIRST = 2  # columns of an excess before those of FIGURES


@dataclass(frozen=True)
class Design:
    """A machine, and what is wanted of it. Vectors over FREE: (P,); over FIGURES: (J,).

    weights: (P,) of the logarithms of the factors in the cost, where `objective` is GROWTH; growth: (P,) exponents by
    which the price of a device grows with a factor. low, high: (P,) bounds of the logarithms of the factors, both 0
    of what is not free.
    """

    setup: Setup
    point: Point  # scalars
    limits: dict[str, float]  # by FIGURES
    objective: str
    weights: np.ndarray
    growth: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def free(self) -> np.ndarray:
        """(P,) what may move."""
        return self.high > self.low

    @property
    def numbers(self) -> tuple:
        """Arguments of `_judge` and `_descend`. A price that is unknown, of which nothing depends, is 1."""
        limits = np.asarray([np.log(self.limits.get(n, np.inf if n not in AT_LEAST else 1e-30)) for n in FIGURES])
        weights = self.weights if self.objective == GROWTH else 0 * self.weights
        aims = np.asarray([name == self.objective for name in FIGURES], np.float32)
        priced = replace(self.point, usd_per_device_s=np.nan_to_num(self.point.usd_per_device_s, nan=1.0))
        setup = self.setup
        vectors = (np.float32(part) for part in (limits, weights, aims, self.growth))
        return setup.model, setup.device, setup.engine, priced, *vectors

    def judge(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(cost (N,), excess (N, FIRST + J)) of N_POINTS logarithms of factors (N, P).

        Excess is at most 0 where something is kept: first that weights and cache fit, then log of the users over those
        that run at once, then log of figure over limit. Where they do not fit, all is infinite.
        """
        cost, excess = _judge(np.asarray(x, np.float32), *self.numbers)
        return np.asarray(cost), np.asarray(excess)

    def moved(self, x: np.ndarray) -> tuple[Setup, Point]:
        """The machine and its price under these logarithms of factors (P,)."""
        setup, point = _moved(self.setup, self.point, np.float32(self.growth), np.float32(x))
        device, engine, point = jax.tree.map(np.asarray, (setup.device, setup.engine, point))
        return Setup(setup.model, device, engine), point


def _moved(setup: Setup, point: Point, growth: Array, x: Array) -> tuple[Setup, Point]:
    price = point.usd_per_device_s * jnp.exp(jnp.sum(growth * x))
    return scaled(setup, dict(zip(FREE, jnp.exp(x), strict=True))), replace(point, usd_per_device_s=price)


def _figures(setup: Setup, point: Point) -> tuple[Array, Array, Array]:
    """(logarithms of FIGURES, whether it fits, logarithm of the users over those that run at once)."""
    found = answer(setup.model, setup.device, setup.engine, point)
    state, money = found.steady, found.economics
    figures = {
        "ttft_s": state.ttft_s,
        "tpot_s": state.tpot_s,
        "e2e_s": state.e2e_s,
        "usd_per_hour": money.usd_per_hour,
        "usd_per_mtok": money.usd_per_output_token * units.MILLION,
        "joules_per_token": money.joules_per_token,
        "power_w": money.power_w,
        "user_tokens_per_s": 1.0 / state.tpot_s,
        "output_tokens_per_s": state.requests_per_s * point.output_tokens,
    }
    waiting = jnp.log(point.concurrency / state.running_sequences) - ROUNDING
    return jnp.log(jnp.stack([figures[name] for name in FIGURES])), (found.why & errors.INFEASIBLE) == 0, waiting


def _cost(
    x: Array, model: Any, device: Any, engine: Any, point: Point, limits: Array, weights: Array, aims: Array,
    growth: Array,
) -> tuple[Array, tuple[Array, Array, Array]]:  # fmt: skip
    """(cost, (excess over the limits (J,), and the others of `_figures`)) of one vector of logarithms of factors."""
    logs, *laws = _figures(*_moved(Setup(model, device, engine), point, growth, x))
    return jnp.sum(weights * x) + jnp.sum(aims * logs), (SIGNS * (logs - limits), *laws)


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})
def _judge(x: Array, *numbers: Any) -> tuple[Array, Array]:
    cost, (excess, fits, waiting) = jax.vmap(lambda one: _cost(one, *numbers))(x)
    excess = jnp.concatenate([jnp.zeros((len(x), 1), x.dtype), waiting[:, None], excess], axis=1)
    return jnp.where(fits, cost, jnp.inf), jnp.where(fits[:, None], excess, jnp.inf)


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})
def _descend(x: Array, low: Array, high: Array, moves: Array, *numbers: Any) -> Array:
    """Where the augmented Lagrangian ends: cost + Σ (max(0, λ + μ·g)² − λ²) / 2μ, by Adam within bounds.

    moves: (P,) 0 for a parameter that stays, since it acts in steps.
    """

    def lagrangian(x: Array, multipliers: Array, stiffness: Array) -> tuple[Array, Array]:
        cost, (excess, *_) = _cost(x, *numbers)
        pushed = jnp.maximum(multipliers + stiffness * excess, 0.0)
        return cost + jnp.sum(pushed**2 - multipliers**2) / (2.0 * stiffness), pushed

    method = optax.adam(optax.cosine_decay_schedule(RATE, ROUNDS * STEPS, alpha=1e-3))

    def step(carry: tuple, i: Array) -> tuple[tuple, None]:
        x, memory, multipliers, stiffness = carry
        slope, pushed = jax.grad(lagrangian, has_aux=True)(x, multipliers, stiffness)
        change, memory = method.update(slope * moves, memory)
        ends = (i + 1) % STEPS == 0
        multipliers = jnp.where(ends, pushed, multipliers)
        stiffness = jnp.where(ends, jnp.minimum(stiffness * STIFFER, MOST_STIFF), stiffness)
        return (jnp.clip(optax.apply_updates(x, change), low, high), memory, multipliers, stiffness), None

    start = (x, method.init(x), jnp.zeros(len(FIGURES), x.dtype), jnp.asarray(STIFFNESS, x.dtype))
    return jax.lax.scan(step, start, jnp.arange(ROUNDS * STEPS))[0][0]


def descended(design: Design, x: np.ndarray) -> np.ndarray:
    """The optimum near x, which may still miss a limit by rounding. Memory stays: no gradient sees its steps."""
    found = _descend(*map(np.float32, (x, design.low, design.high, ~MEMORY)), *design.numbers)
    return np.clip(np.asarray(found, np.float64), design.low, design.high)


def grid(design: Design) -> np.ndarray:
    """(N_POINTS, P) points over the bounds, in equal ratios."""
    each = round(N_POINTS ** (1 / design.free.sum()))
    axes = [np.linspace(a, b, each if b > a else 1) for a, b in zip(design.low, design.high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    return np.resize(points, (N_POINTS, len(axes)))


def first_kept(design: Design, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The point nearest to `start` on the line to `end` that keeps to the limits; `end`, which does, if none does."""
    for _ in range(2):
        points = start + np.linspace(0, 1, N_POINTS)[:, None] * (end - start)
        kept = np.flatnonzero(np.all(design.judge(points)[1] <= 0, axis=1))
        if not len(kept):
            return end
        start, end = points[max(kept[0] - 1, 0)], points[kept[0]]
    return end


def solve(design: Design) -> tuple[np.ndarray | None, np.ndarray]:
    """((P,) logarithms of the factors of least cost that keep to the limits, or None; (N, FIRST + J) excesses)."""
    points = grid(design)
    cost, excess = design.judge(points)
    kept = np.all(excess <= 0, axis=1)
    by_line = design.objective == GROWTH and design.free.sum() == 1
    if kept.any():
        best = points[np.argmin(np.where(kept, cost, np.inf))]
        if not by_line:  # memory first: gradients do not see it
            best = shrunk(design, best, design.free & MEMORY) if design.objective == GROWTH else best
            best = first_kept(design, descended(design, best), best)
        found = best
    elif by_line:
        return None, excess
    else:
        found = descended(design, points[np.argmin(np.max(excess, axis=1))])
        if np.any(design.judge(np.resize(found, points.shape))[1][0] > 0):
            return None, excess
    found = shrunk(design, found, design.free) if design.objective == GROWTH else found
    return beyond_step(design, found), excess


def beyond_step(design: Design, x: np.ndarray) -> np.ndarray:
    """x with so little more memory that rounding does not decide whether another sequence fits, where limits allow."""
    more = np.clip(x + ROUNDING * (design.free & MEMORY), design.low, design.high)
    kept = np.all(design.judge(np.resize(more, (N_POINTS, len(x))))[1][0] <= 0)
    return more if kept else x


def shrunk(design: Design, x: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Each of these factors in turn as small as the limits let it be."""
    x = np.asarray(x, np.float64)
    for i in np.flatnonzero(which):
        least = x.copy()
        least[i] = design.low[i]
        x = first_kept(design, least, x)
    return x
