"""The order of a sweep: rows, then lengths, then concurrency, then prices; and its blocks."""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import numpy as np

from kernels.coefficients import ORDER, pools
from sim.bounds import MOST_CELLS
from sim.errors import RoofcastError, sentence
from sim.sweeps.rows import TUNED, Rows, Tell, checked_names, rows_of
from sim.sweeps.spec import LENGTH_AXES, PRICE_AXES, ROW_AXES, Spec

BLOCK_CELLS = 1 << 20  # of a block, so that its objectives take a few MiB
BLOCK_STATES = 1 << 18  # of them that differ in more than their price: intermediate arrays, that fit in a cache
MOST_SIDE = 1 << 22  # levels times prices, which no block divides: counts are exact in float32 up to 2^24
POOLS = 1 << 16  # deployments whose memory is looked at at once
NEARLY = 1e-3  # of a device's memory
LANES = 16  # of a vector unit: the innermost axis is padded to a multiple


@dataclass(frozen=True)
class Block:
    """A part of the rows, whether computed or not, and of the lengths."""

    first_row: int
    n_rows: int
    first_length: int
    n_lengths: int


@dataclass(frozen=True)
class Plan:
    """A sweep, its deployments, and the shape that every block is padded to."""

    spec: Spec
    rows: Rows
    lengths: np.ndarray  # (L, 3) prompt, output and context tokens
    prices: np.ndarray  # (Q, 2) USD per device-hour (NaN: the deployment's own), factor
    live: np.ndarray  # (R,) rows to compute; the others cannot hold their weights, and are only counted

    @property
    def n_rows(self) -> int:
        """Deployments."""
        return len(self.rows)

    @property
    def n_concurrency(self) -> int:
        """Concurrency levels."""
        return len(self.spec.concurrency)

    @property
    def n_cells(self) -> int:
        """Configurations."""
        return math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(rows, lengths, concurrency levels, prices): cells are counted in this order, the last first."""
        return self.n_rows, len(self.lengths), self.n_concurrency, len(self.prices)

    @cached_property
    def block_shape(self) -> tuple[int, int]:
        """(rows, lengths) of a block."""
        levels = self.n_concurrency
        most = max(min(BLOCK_STATES, BLOCK_CELLS // len(self.prices)) // levels, 1)
        n_lengths = min(len(self.lengths), most)
        return max(min(int(np.count_nonzero(self.live)), most // n_lengths), 1), n_lengths

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """In order of rows, then of lengths; each of so many rows to compute, and of those between them."""
        rows, lengths = self.block_shape
        edges = [0, *np.flatnonzero(self.live)[rows::rows].tolist(), self.n_rows]
        return tuple(
            Block(first, last - first, n, min(lengths, len(self.lengths) - n))
            for first, last in itertools.pairwise(edges)
            for n in range(0, len(self.lengths), lengths)
        )

    def computed(self, block: Block) -> np.ndarray:
        """Rows of a block that are computed."""
        return block.first_row + np.flatnonzero(self.live[block.first_row : block.first_row + block.n_rows])

    def whole(self) -> Plan:
        """The same with all rows computed."""
        return replace(self, live=np.ones(self.n_rows, bool))

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Axes of the grid, the one that fills vector units last."""
        sizes = dict(zip(ORDER, (*self.block_shape, self.n_concurrency), strict=True))
        inner = next((name for name in reversed(ORDER) if sizes[name] >= LANES), max(ORDER, key=lambda n: sizes[n]))
        return (*(name for name in ORDER if name != inner), inner)

    @cached_property
    def group_axes(self) -> dict[str, tuple[np.ndarray, int]]:
        """Of each axis of the grid, the group of each position, and what a group adds to a group's number."""
        by = self.spec.by
        rows = self.rows.at[:, [i for i, name in enumerate(ROW_AXES) if name in by]]
        lengths = self.lengths[:, [i for i, name in enumerate(LENGTH_AXES) if name in by]]
        known = np.nan_to_num(self.prices, nan=-1.0)  # the deployment's own price is one value, where NaN is no two
        prices = known[:, [i for i, name in enumerate(PRICE_AXES) if name in by]]
        levels = np.asarray(self.spec.concurrency)[:, None][:, : int("concurrency" in by)]
        found, stride = {}, 1
        for name, table in (("prices", prices), ("concurrency", levels), ("lengths", lengths), ("deployments", rows)):
            if table.shape[1]:
                ids = np.unique(table, axis=0, return_inverse=True)[1].ravel()
            else:
                ids = np.zeros(len(table), np.int64)
            found[name] = (ids, stride)
            stride *= int(ids.max()) + 1
        return found

    @property
    def n_groups(self) -> int:
        """Groups of `by`."""
        ids, stride = self.group_axes["deployments"]
        return stride * (int(ids.max()) + 1)

    def coordinates(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Values on every axis of cells, by their index."""
        row, length, level, price = np.unravel_index(index, self.shape)
        at = self.rows.at[row]
        found = {name: _values(getattr(self.spec, name), at[:, i]) for i, name in enumerate(ROW_AXES)}
        found |= {name: self.lengths[length, i] for i, name in enumerate(LENGTH_AXES)}
        found["concurrency"] = np.asarray(self.spec.concurrency)[level]
        return found | {name: self.prices[price, i] for i, name in enumerate(PRICE_AXES)}


def _values(axis: tuple, at: np.ndarray) -> np.ndarray:
    return np.asarray(axis, object)[at]


def plan(spec: Spec, progress: Tell | None = None, live: np.ndarray | None = None) -> Plan:
    """Checks the names, combines and lowers; progress: of the deployments; live: of a plan of the same.

    RoofcastError with all that is wrong.
    """
    checked_names(spec)
    lengths = [
        (prompt, output, prompt + output if context is None else context)
        for prompt in spec.prompt_tokens
        for output in spec.output_tokens
        for context in spec.context_tokens
    ]
    short = next((at for at in lengths if at[2] < at[0] + at[1]), None)
    if short:
        what = f"{short[2]} tokens cannot hold prompt + output = {short[0] + short[1]}"
        raise RoofcastError(sentence(what, "context_tokens", f"take at least {short[0] + short[1]}, or leave it out"))
    prices = [(np.nan if usd is None else usd, factor) for usd in spec.usd_per_gpu_hour for factor in spec.usd_factor]
    most = int(np.prod([float(len(values)) for values in spec.axes.values()]))
    side = len(spec.concurrency) * len(prices)
    if side > MOST_SIDE:
        what = f"{len(spec.concurrency):,} levels times {len(prices):,} prices are more than {MOST_SIDE:,}"
        raise RoofcastError(sentence(what, "concurrency", "take fewer of one of them"))
    if most > MOST_CELLS:
        largest = max(spec.axes, key=lambda name: len(spec.axes[name]))
        what = f"the axes make {most:.3g} configurations, above the bound of {MOST_CELLS:.0e}"
        raise RoofcastError(sentence(what, largest, f"it has {len(spec.axes[largest]):,} values: take fewer"))
    rows = rows_of(spec, progress)
    live = hold_weights(rows) if live is None else live
    return Plan(spec, rows, np.asarray(lengths, np.int64), np.asarray(prices, np.float64), live)


def hold_weights(rows: Rows) -> np.ndarray:
    """(R,) whether the weights fit, or nearly: a block, compiled apart, may round the other way."""
    each = (rows.which, rows.layouts, {name: rows.numbers[name] for name in TUNED})
    size = min(POOLS, 1 << (len(rows) - 1).bit_length())  # few programs
    found = np.ones(len(rows), bool)
    for first in range(0, len(rows), size):
        at = np.minimum(np.arange(first, first + size), len(rows) - 1)
        own = jax.tree.map(operator.itemgetter(at), each)
        pool_bytes, device_bytes = (np.asarray(a) for a in pools(rows.models, rows.devices, rows.engines, *own))
        found[at] = pool_bytes > -NEARLY * device_bytes
    return found
