"""The fit: a robust loss on the logarithm of forecast over measurement, Adam first and then L-BFGS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from kernels.observe import QUANTITIES
from sim.calibration.parameters import Pooling, shifted_engines, shifts
from sim.calibration.table import Arrays, Table, forecast

ERROR_SCALE = 0.08  # of the log error of a time per token: about twice the spread of repeated runs, 3 %
FIRST_TOKEN_SCALE = 0.16  # of time to first token, whose repeats differ by 6 %
TIER_B_WEIGHT = 0.25
TAILS = 3.0  # degrees of freedom of the errors: published rows hold typing errors, and runs that were not as labelled
ADAM_STEPS, ADAM_RATE = 20, 0.1
LBFGS_STEPS, LBFGS_MEMORY = 60, 15
SUFFICIENT = 1e-4  # of the decrease that the slope promises (Armijo, 1966)
SHORTEST_STEP = 1e-3
FEW_ROWS = 64
Progress = Callable[[int, int, float], None]  # steps done, steps in all, loss


@dataclass(frozen=True)
class Fit:
    """A fitted point: z (P,), its standard deviation (P,) (1: as the prior has it), and the loss after each step."""

    z: np.ndarray
    sd: np.ndarray
    losses: np.ndarray


def fit(table: Table, pooling: Pooling, weights: np.ndarray, progress: Progress = lambda *_: None) -> Fit:
    """Minimizes the loss from the prior, z = 0; weights: (M,), 0 for rows held out.

    Loss: Σ w·ρ(r/s) + ½|z|², with ρ(x) = ½(ν + 1)·ln(1 + x²/ν), ν = TAILS, of the log error r and s its scale: the
    negative logarithm of a posterior whose errors follow Student's t (Lange, Little and Taylor, 1989: a row far off
    pulls less, not more) and whose prior is z ~ N(0, 1).
    """
    losses: list[float] = []

    def value_and_gradient(z: Array) -> tuple[float, Array]:
        value, gradient, _, _ = _evaluate(table.arrays, pooling, z, weights, False)
        return float(value), gradient

    def note(value: float) -> None:
        losses.append(value)
        progress(len(losses), ADAM_STEPS + LBFGS_STEPS, value)

    z = _adam(jnp.zeros(len(pooling.spread)), value_and_gradient, note)
    z = np.asarray(_lbfgs(z, value_and_gradient, note))
    sd = 1.0 / np.sqrt(curvature(table, pooling, z, weights))
    return Fit(z, sd, np.asarray(losses))


ValueAndGradient = Callable[[Array], tuple[float, Array]]


def _adam(z: Array, value_and_gradient: ValueAndGradient, note: Callable[[float], None]) -> Array:
    method = optax.adam(optax.cosine_decay_schedule(ADAM_RATE, ADAM_STEPS, alpha=0.1))
    state = method.init(z)
    update_of = jax.jit(method.update)
    for _ in range(ADAM_STEPS):
        value, gradient = value_and_gradient(z)
        update, state = update_of(gradient, state)
        z = optax.apply_updates(z, update)
        note(value)
    return z


def _lbfgs(z: Array, value_and_gradient: ValueAndGradient, note: Callable[[float], None]) -> Array:
    """L-BFGS with steps halved until they decrease the loss enough; out here, so that the kernels compile once."""
    method = optax.scale_by_lbfgs(memory_size=LBFGS_MEMORY)
    state = method.init(z)
    update_of = jax.jit(method.update)
    value, gradient = value_and_gradient(z)
    for _ in range(LBFGS_STEPS):
        direction, state = update_of(gradient, state, z)
        slope, step = float(jnp.vdot(gradient, direction)), 1.0
        new, new_gradient = value_and_gradient(z - step * direction)
        while not new <= value - SUFFICIENT * step * slope and step > SHORTEST_STEP:
            step *= 0.5
            new, new_gradient = value_and_gradient(z - step * direction)
        if not new < value:
            break
        z, value, gradient = z - step * direction, new, new_gradient
        note(value)
    return z


def row_weights(table: Table) -> np.ndarray:
    """(M,) weights: 1/√n for each of the n rows of a configuration and quantity, a quarter of that for tier B.

    Between 1 (rows of one configuration err independently) and 1/n (they err together); a row whose harness is not
    known in detail errs about twice as far.
    """
    keys = [(row.group(), row.quantity) for row in table.rows]
    counts = Counter(keys)
    tiers = np.where([row.tier == "B" for row in table.rows], TIER_B_WEIGHT, 1.0)
    return (tiers * [counts[key] ** -0.5 for key in keys]).astype(np.float32)


def log_errors(table: Table, pooling: Pooling, z: np.ndarray) -> np.ndarray:
    """(M,) logarithms of forecast over measurement."""
    return np.asarray(_evaluate(table.arrays, pooling, z, np.zeros(len(table.rows), np.float32), False)[2])


def _scales(arrays: Arrays, xp: Any) -> Any:
    """(M,) scale of each log error, in numpy or jax.numpy."""
    return xp.where(arrays.quantity == QUANTITIES.index("ttft_s"), FIRST_TOKEN_SCALE, ERROR_SCALE)


def curvature(table: Table, pooling: Pooling, z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(P,) diagonal of the reweighted Gauss-Newton Hessian of the loss: 1 + Σ w·(ρ′(x)/x)·(∂r/∂z/s)², x = r/s."""
    arrays = table.arrays
    scales = _scales(arrays, np)
    bend = weights * (TAILS + 1.0) / (TAILS + (log_errors(table, pooling, z) / scales) ** 2) / scales**2
    by_entry = np.zeros(pooling.index.shape[:2])
    for quantity in np.unique(arrays.quantity):
        rows = (arrays.quantity == quantity).astype(np.float32)
        slopes = np.asarray(_evaluate(arrays, pooling, z, rows, True)[3])
        count, bent = (np.bincount(arrays.point, rows * x, minlength=len(slopes)) for x in (np.ones_like(bend), bend))
        mean_squares = slopes**2 * (bent / np.maximum(count, 1.0) ** 2)[:, None]  # a slope is the sum over rows
        np.add.at(by_entry, arrays.deployment, mean_squares)
    total = np.ones(len(pooling.spread))
    np.add.at(total, pooling.index, by_entry[:, :, None] * np.square(pooling.spread)[pooling.index])
    return total


def _evaluate(
    arrays: Arrays, pooling: Pooling, z: Array, weights: Array, linear: bool
) -> tuple[Array, Array, Array, Array]:
    """`_evaluated`, compiled: for a few rows hardly optimized, since compiling then takes longer than the fits."""
    run = _evaluate_few if len(arrays.point) <= FEW_ROWS else _evaluate_many
    return run(arrays, pooling, z, weights, linear)


def _evaluated(
    arrays: Arrays, pooling: Pooling, z: Array, weights: Array, linear: Array
) -> tuple[Array, Array, Array, Array]:
    """(loss, its gradient in z (P,), log errors (M,), slopes (N, S) of Σ over a point's rows in its own shift).

    The slopes are of Σ w·r where `linear`, of Σ w·ρ(r/s) otherwise. One function for all of it compiles once.
    """

    def errors_of(shift: Array) -> Array:
        engines = shifted_engines(jax.tree.map(lambda leaf: leaf[arrays.deployment], arrays.engines), shift)
        return jnp.log(forecast(arrays, engines)) - jnp.log(arrays.measured)

    errors, pull = jax.vjp(errors_of, shifts(pooling, z)[arrays.deployment])
    scales = _scales(arrays, jnp)
    scaled = errors / scales
    steepness = (TAILS + 1.0) * scaled / (TAILS + scaled**2) / scales
    (slopes,) = pull(jnp.where(linear, weights, weights * steepness))
    by_parameter = jnp.zeros_like(z).at[pooling.index[arrays.deployment]].add(slopes[:, :, None])
    value = jnp.sum(weights * 0.5 * (TAILS + 1.0) * jnp.log1p(scaled**2 / TAILS)) + 0.5 * jnp.sum(z**2)
    return value, by_parameter * pooling.spread + z, errors, slopes


_evaluate_many = jax.jit(_evaluated, compiler_options={"xla_backend_optimization_level": "1"})
_evaluate_few = jax.jit(_evaluated, compiler_options={"xla_backend_optimization_level": "0"})
