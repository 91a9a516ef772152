"""Reductions of a grid on the device: which cells keep to limits, why others do not, the best of groups, and who could
be on the Pareto front.

Cells have the axes (prices, *order of the grid). Of cells with equal values the one with the lowest index counts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernels.coefficients import Deployment
from kernels.grid import WIDE, Cells
from kernels.types import T, Workload, pytree

FIRST_REASONS = ("weights", "kv", "context", "price")  # before those of limits
PER_OUTPUT_TOKEN = ("tpot_s", "user_tokens_per_s")  # of the tokens after the first: an output of one has none
NO_INDEX = 2**31 - 1


@pytree
class Prices:
    """A price axis (Q, 1, 1, 1), and what a deployment costs by itself. NaN: unknown."""

    usd_per_device_s: Array  # (Q, 1, 1, 1) NaN: the deployment's own
    factor: Array  # (Q, 1, 1, 1)
    own_usd_per_device_s: Array  # along deployments
    usd_per_joule: Array  # along deployments, where its own price holds
    purchase_usd: Array  # along deployments, of one device


@pytree
class Reduced:
    """What leaves the device. K: reasons; D: objectives."""

    n_cells: Array
    first: Array  # (K,) cells whose first reason this is
    alone: Array  # (K,) cells that have no other reason
    best: tuple[Array, ...]  # D times least value over the axes that are not kept
    where: tuple[Array, ...]  # D times its index
    n_ranked: Array  # cells at most as large as the bar, by the first objective
    n_front: Array  # cells that no reference dominates


def figures(of: Deployment, cells: Cells, load: Workload, prices: Prices) -> dict[str, Array]:
    """What limits and objectives name, along four axes; NaN: TPOT, and its inverse, of outputs of one token."""
    of, cells, load = _beside_prices((of, cells, load))
    own = jnp.isnan(prices.usd_per_device_s)
    each = jnp.where(own, prices.own_usd_per_device_s, prices.usd_per_device_s) * prices.factor
    usd_per_s = each * cells.n_devices + jnp.where(own, prices.usd_per_joule, 0.0) * cells.power_w
    tokens_per_s = cells.requests_per_s * load.output_tokens
    tpot_s = jnp.where(load.output_tokens > 1, cells.tpot_s, jnp.nan)
    return {
        "usd_per_mtok": usd_per_s / tokens_per_s * 1e6,
        "usd_per_hour": usd_per_s * 3600.0,
        "usd": prices.purchase_usd * cells.n_devices,
        "tpot_s": tpot_s,
        "ttft_s": cells.ttft_s,
        "e2e_s": cells.e2e_s,
        "joules_per_token": cells.power_w / tokens_per_s,
        "power_w": cells.power_w,
        "n_devices": cells.n_devices,
        "user_tokens_per_s": 1.0 / tpot_s,
        "output_tokens_per_s": tokens_per_s,
    }


def _beside_prices(tree: T) -> T:
    """Grids of three axes with one of length 1 for prices."""
    return jax.tree.map(lambda a: a[None], tree)


def reasons(
    of: Deployment, cells: Cells, load: Workload, prices: Prices, found: dict[str, Array], limits: dict[str, Array],
    at_least: tuple[str, ...], priced: tuple[str, ...],
) -> list[Array]:  # fmt: skip
    """Where each reason holds against a cell: FIRST_REASONS, then limits in their order, of what fits. A figure that is
    no number keeps to no limit, except TPOT that there is none of: no token is late.
    """
    of, cells, load = _beside_prices((of, cells, load))
    mem = cells.memory
    no_weights = mem.pool_bytes <= 0
    no_rate = jnp.isnan(prices.usd_per_device_s) & jnp.isnan(prices.own_usd_per_device_s)
    unknown = [jnp.isnan(prices.purchase_usd) if name == "usd" else no_rate for name in priced]
    fits = ~no_weights & (mem.max_sequences >= 1)
    against = [
        no_weights,
        ~no_weights & ~fits,
        load.context_tokens > of.model.max_context_tokens,
        sum(unknown[1:], unknown[0]) if unknown else jnp.zeros((1, 1, 1, 1), bool),
    ]
    for name, limit in limits.items():
        missed = fits & (~(found[name] >= limit) if name in at_least else ~(found[name] <= limit))
        against.append(missed & (load.output_tokens > 1) if name in PER_OUTPUT_TOKEN else missed)
    return against


@partial(jax.jit, compiler_options=WIDE, static_argnames=("limited", "at_least", "priced", "minimize"))
def score(
    of: Deployment, cells: Cells, load: Workload, prices: Prices, valid: tuple[Array, ...], limits: tuple[Array, ...],
    limited: tuple[str, ...], at_least: tuple[str, ...], priced: tuple[str, ...], minimize: tuple[str, ...],
) -> tuple[Array, tuple[Array, ...]]:  # fmt: skip
    """(reasons against a cell as bits, -1 where it is padding; objectives, inf where there is a reason, or no figure).

    Of length 1 along axes on which they do not depend. valid: along each axis, what is no padding; limits: of what is
    limited, in the order of the reasons (a dictionary would come out of jax.jit sorted).
    """
    found = figures(of, cells, load, prices)
    named = dict(zip(limited, limits, strict=True))
    against = reasons(of, cells, load, prices, found, named, at_least, priced)
    code = sum(jnp.where(hit, 1 << k, 0).astype(jnp.int32) for k, hit in enumerate(against))
    code = jnp.where(functools.reduce(jnp.logical_and, valid), code, -1)
    ranked = [jnp.where(jnp.isnan(found[name]), jnp.inf, found[name]) for name in minimize]
    return code, tuple(jnp.where(code == 0, value, jnp.inf) for value in ranked)


def judge(
    code: Array, values: tuple[Array, ...], index: tuple[Array, ...], n_reasons: int, kept: tuple[bool, ...],
    bar: Array, references: Array,
) -> tuple[Reduced, Array]:  # fmt: skip
    """(what leaves the device, which cells could be on the front), from `score`; a jitted function for each reduction.

    index: along each axis, what it adds to a cell's index; kept: which of the four axes groups keep; bar: by the first
    objective, of what is among the best; references: (N, D) objectives of cells by which others may be dominated.
    """
    shape = np.broadcast_shapes(*(part.shape for part in index))
    n_cells, first, alone = count_reasons(code, n_reasons, math.prod(shape) // code.size)
    best, where = zip(*(least_of(value, index, kept) for value in values), strict=True)
    front = undominated(values, references)
    return Reduced(n_cells, first, alone, best, where, at_most(values[0], bar), _count(front)), front


@partial(jax.jit, compiler_options=WIDE, static_argnames="n_reasons")
def count_reasons(code: Array, n_reasons: int, cells_each: int) -> tuple[Array, Array, Array]:
    """(cells, (K,) cells whose first reason it is, (K,) cells with no other reason) of the bits of `score`."""
    lowest = jnp.where(code > 0, code & -code, 0)
    first, alone = (_count_bits(bits, n_reasons) for bits in (lowest, jnp.where(code == lowest, lowest, 0)))
    return _count(code >= 0) * cells_each, first * cells_each, alone * cells_each


def _count_bits(bits: Array, n: int) -> Array:
    """(n,) cells with each bit, added up in fields of a word along the last axis but one: each word is one pass."""
    width = bits.shape[-2].bit_length()
    each, counts = 31 // width, []
    for first in range(0, n, each):
        fields = {k: (k - first) * width for k in range(first, min(first + each, n))}
        word = jnp.sum(sum((bits >> k & 1) << at for k, at in fields.items()), axis=-2)
        counts += [jnp.sum(word >> at & (1 << width) - 1) for at in fields.values()]
    return jnp.stack(counts)


@jax.jit
def _count(hit: Array) -> Array:
    """How many; in float32, which vector units add faster, and exactly up to 2^24."""
    return jnp.sum(jnp.where(hit, jnp.float32(1), jnp.float32(0))).astype(jnp.int32)


@partial(jax.jit, compiler_options=WIDE)
def at_most(value: Array, bar: Array) -> Array:
    """Cells with a finite value of at most the bar."""
    return _count(value <= jnp.minimum(bar, jnp.finfo(value.dtype).max))


@partial(jax.jit, compiler_options=WIDE, static_argnames="kept")
def least_of(value: Array, index: tuple[Array, ...], kept: tuple[bool, ...]) -> tuple[Array, Array]:
    """(least value over the axes that are not kept, index of the first cell that has it)."""
    full = tuple(part.shape[i] if keep else 1 for i, (part, keep) in enumerate(zip(index, kept, strict=True)))
    own = [part if n > 1 else jnp.zeros_like(part[:1, :1, :1, :1]) for part, n in zip(index, value.shape, strict=True)]
    least = _reduce(jnp.min, value, kept)
    here = jnp.where((value == least) & (value < jnp.inf), sum(own[1:], own[0]), NO_INDEX)
    first = _reduce(jnp.min, here, kept)
    more = [part for part, n, keep in zip(index, value.shape, kept, strict=True) if keep and n == 1]
    least, first = jnp.broadcast_to(least, full), jnp.broadcast_to(first, full)
    first = jnp.where(first == NO_INDEX, first, sum(more, first))
    gone = tuple(i for i, keep in enumerate(kept) if not keep)
    return jnp.squeeze(least, gone), jnp.squeeze(first, gone)


def _reduce(how: Callable[..., Array], value: Array, kept: tuple[bool, ...]) -> Array:
    """Over the outer axes first, which leaves the innermost for vector units."""
    outer = tuple(i for i, keep in enumerate(kept[:-1]) if not keep)
    value = how(value, axis=outer, keepdims=True)
    return value if kept[-1] else how(value, axis=-1, keepdims=True)


@partial(jax.jit, compiler_options=WIDE)
def undominated(values: tuple[Array, ...], references: Array) -> Array:
    """Cells with finite values that no reference matches in all objectives and beats in one.

    In numbers, which vector units compare faster than truth values: largest gap ≤ 0, and smallest < 0.
    """
    score = 0.0
    for point in references:
        gaps = [reference - value for reference, value in zip(point, values, strict=True)]
        largest, smallest = functools.reduce(jnp.maximum, gaps), functools.reduce(jnp.minimum, gaps)
        score = jnp.minimum(score, jnp.where(largest <= 0, smallest, 0.0))
    return (functools.reduce(jnp.maximum, values) < jnp.inf) & (score >= 0)
