"""One block of a sweep: evaluated and judged on the device; what could matter comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from kernels.coefficients import ORDER, coefficients
from kernels.grid import Cells, grid
from kernels.reduce import FIRST_REASONS, NO_INDEX, Prices, Reduced, judge, score
from kernels.types import Workload
from sim.lower import NO_LIMIT
from sim.sweeps.devices import place_rows
from sim.sweeps.parts import Part, leading, pareto
from sim.sweeps.plan import LANES, Block, Plan
from sim.sweeps.rows import TUNED, rent
from sim.sweeps.spec import AT_LEAST, LENGTH_AXES, PRICE_AXES, PRICED, ROW_AXES

N_REFERENCES = 16
AXIS = ("prices", *ORDER)


@dataclass(frozen=True)
class Hint:
    """What other blocks found: a bar for the top, and points that others may be dominated by. It only saves work."""

    bar: float
    references: np.ndarray  # (N_REFERENCES, D), infinite where there is none


class Sweeper:
    """Evaluates the blocks of a plan; what does not depend on the block is made once, and stays on the device."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        rows, lengths = plan.block_shape
        sizes = dict(zip(AXIS, (len(plan.prices), rows, lengths, plan.n_concurrency), strict=True))
        multiple = {plan.order[-1]: LANES}
        if rows >= jax.local_device_count():
            multiple["deployments"] = math.lcm(multiple.get("deployments", 1), jax.local_device_count())
        sizes |= {name: -(-sizes[name] // n) * n for name, n in multiple.items()}
        self.sizes = sizes
        self.dims = ("prices", *plan.order)
        self.shape = tuple(sizes[name] for name in self.dims)
        self.trees = jax.device_put((plan.rows.models, plan.rows.devices, plan.rows.engines))
        self.priced = tuple(name for name in PRICED if name in (*plan.spec.limits, *plan.spec.minimize))
        self.ways = tuple(bool(np.any(plan.rows.numbers[name] > 1)) for name in ("dp", "pp", "ep"))

    def along(self, name: str, values: np.ndarray) -> np.ndarray:
        """Values on one axis, with axes of length 1 for the others."""
        return np.reshape(values, [self.sizes[name] if name == dim else 1 for dim in self.dims])

    def price_axis(self, values: np.ndarray) -> np.ndarray:
        """Along prices; of length 1 where all are the same."""
        same = np.all(np.isnan(values)) or np.all(values == values[0])
        return np.float32(values[:1]).reshape(1, 1, 1, 1) if same else self.along("prices", np.float32(values))

    def places(self, block: Block) -> dict[str, tuple[np.ndarray, int]]:
        """Of each axis, positions of what a block computes, the last one repeated; and how many are not repeated."""
        found = {
            "deployments": self.plan.computed(block),
            "lengths": block.first_length + np.arange(block.n_lengths),
            "concurrency": np.arange(self.plan.n_concurrency),
            "prices": np.arange(len(self.plan.prices)),
        }
        return {n: (np.pad(at, (0, self.sizes[n] - len(at)), "edge" if len(at) else "constant"), len(at))
                for n, at in found.items()}  # fmt: skip

    @cached_property
    def strides(self) -> dict[str, int]:
        """What a step on each axis adds to the index of a cell in a block."""
        _, lengths = self.plan.block_shape
        n, q = self.plan.n_concurrency, len(self.plan.prices)
        return {"deployments": lengths * n * q, "lengths": n * q, "concurrency": q, "prices": 1}

    @cached_property
    def index(self) -> tuple[np.ndarray, ...]:
        """Of each axis of the grid, what it adds to the index in the block."""
        return tuple(
            self.along(n, np.arange(self.sizes[n], dtype=np.int32) * np.int32(self.strides[n])) for n in self.dims
        )

    def global_index(self, block: Block, local: np.ndarray) -> np.ndarray:
        """Index in the sweep of cells by their index in the block."""
        local = local.astype(np.int64)
        per_length = self.strides["lengths"]
        row, rest = np.divmod(local, self.strides["deployments"])
        length, rest = np.divmod(rest, per_length)
        row, length = self.plan.computed(block)[row], block.first_length + length
        return (row * len(self.plan.lengths) + length) * per_length + rest

    def cells(self, block: Block) -> tuple[Any, Cells, Workload, Prices, tuple[np.ndarray, ...]]:
        """(deployments, figures, workload, prices, what is no padding) of a block, on the device."""
        plan, rows = self.plan, self.plan.rows
        places = self.places(block)
        at = places["deployments"][0]
        numbers = {name: values[at] for name, values in rows.numbers.items()}
        layout = jax.tree.map(lambda a: a[at], rows.layouts)
        chosen = plan.lengths[places["lengths"][0]].astype(np.float32)
        same = np.ones(len(chosen), np.float32)
        lengths = Workload(same, *chosen.T, same * NO_LIMIT, same * NO_LIMIT, same * 0)
        levels = np.asarray(plan.spec.concurrency, np.float32)[places["concurrency"][0]]
        tuned = {name: numbers[name] for name in TUNED}
        which, layout, tuned = place_rows((rows.which[at], layout, tuned))
        of, served, load = coefficients(*self.trees, which, layout, tuned, lengths, levels, order=plan.order)
        found = grid(of, served, load, self.ways)
        prices = Prices(
            usd_per_device_s=self.price_axis(rent(plan.prices[:, 0])),
            factor=self.price_axis(plan.prices[:, 1]),
            own_usd_per_device_s=self.along("deployments", numbers["usd_per_device_s"]),
            usd_per_joule=self.along("deployments", numbers["usd_per_joule"]),
            purchase_usd=self.along("deployments", numbers["purchase_usd"]),
        )
        valid = tuple(self.along(name, np.arange(self.sizes[name]) < places[name][1]) for name in ORDER)
        return of, found, load, prices, valid

    def score(self, made: tuple) -> tuple[Any, tuple]:
        """(reasons, objectives) of `cells`, on the device."""
        spec = self.plan.spec
        limits, limited = tuple(np.float32(limit) for limit in spec.limits.values()), tuple(spec.limits)
        return score(*made, limits, limited=limited, at_least=AT_LEAST, priced=self.priced, minimize=spec.minimize)

    def judged(self, code: Any, values: tuple, hint: Hint) -> tuple[Reduced, Any]:
        """The device's reductions."""
        n = len(FIRST_REASONS) + len(self.plan.spec.limits)
        bar, references = np.float32(hint.bar), hint.references.astype(np.float32)
        return judge(code, values, self.index, n_reasons=n, kept=self.kept, bar=bar, references=references)

    @cached_property
    def kept(self) -> tuple[bool, ...]:
        """Which axes of the grid the groups keep; deployments are grouped on the host."""
        by = self.plan.spec.by
        of = {"lengths": LENGTH_AXES, "concurrency": ("concurrency",), "prices": PRICE_AXES, "deployments": ROW_AXES}
        return tuple(dim == "deployments" or any(name in by for name in of[dim]) for dim in self.dims)

    def evaluate(self, i_block: int, hint: Hint | None = None) -> Part:
        """The part of a block."""
        block = self.plan.blocks[i_block]
        code, values = self.score(self.cells(block))
        if hint is None:
            hint = self.own_hint(self.judged(code, values, self.no_hint)[0], values)
        reduced, front = self.judged(code, values, hint)
        best, best_index = self.best(block, reduced)
        top, top_index = self.picked(block, values[0], hint.bar, int(reduced.n_ranked))
        some = self.everywhere(front)[0] if int(reduced.n_front) else np.zeros(0, np.int64)
        points = np.stack([self.at(value, some) for value in values], axis=1)
        front_values, front_index = pareto(points, self.global_index(block, self.local(some)))
        first, alone = self.heavy(block)
        return Part(
            int(reduced.n_cells + first.sum()), np.asarray(reduced.first) + first, np.asarray(reduced.alone) + alone,
            best, best_index, top, top_index, front_values, front_index,
        )  # fmt: skip

    def heavy(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """(K,) cells of rows that are not computed by their first reason, and by their only one: their weights."""
        plan, rows = self.plan, self.plan.rows
        at = np.setdiff1d(np.arange(block.first_row, block.first_row + block.n_rows), plan.computed(block))
        context = plan.lengths[block.first_length : block.first_length + block.n_lengths, 2]
        short = np.asarray(rows.models.max_context_tokens)[rows.which[at, 0], None] < context
        unpriced = np.zeros((len(at), len(plan.prices)), bool)
        for name in self.priced:
            own = rows.numbers["purchase_usd" if name == "usd" else "usd_per_device_s"][at, None]
            unpriced |= np.isnan(own) & (name == "usd" or np.isnan(plan.prices[:, 0]))
        both = np.zeros((2, len(FIRST_REASONS) + len(plan.spec.limits)), np.int64)
        both[:, 0] = short.size * len(plan.prices), np.sum(np.sum(~short, axis=1) * np.sum(~unpriced, axis=1))
        first, alone = both * plan.n_concurrency
        return first, alone

    @property
    def no_hint(self) -> Hint:
        """For a first block."""
        return Hint(np.inf, np.full((N_REFERENCES, len(self.plan.spec.minimize)), np.inf))

    def own_hint(self, reduced: Reduced, values: tuple) -> Hint:
        """References from the best cells of the block's own groups."""
        where = np.unique(np.concatenate([np.asarray(w).ravel() for w in reduced.where]))
        where = where[where != NO_INDEX]
        where = where[evenly(len(where))]
        points = [self.at(value, self.flat(where)) for value in values]
        return Hint(np.inf, spread(np.stack(points, axis=1), len(values)))

    def everywhere(self, mask: Any) -> tuple[np.ndarray, ...]:
        """Places in the grid's flattened arrays where a mask holds."""
        return np.nonzero(np.broadcast_to(np.asarray(mask), self.shape).ravel())

    def at(self, value: Any, flat: np.ndarray) -> np.ndarray:
        """Values of a grid's array, of length 1 along some axes, at places in the flattened ones."""
        array = np.asarray(value)
        place = np.unravel_index(flat, self.shape)
        return array[tuple(i if n > 1 else 0 * i for i, n in zip(place, array.shape, strict=True))]

    def flat(self, local: np.ndarray) -> np.ndarray:
        """Place in the grid's flattened arrays of cells by their index in the block."""
        at, rest = {}, local.astype(np.int64)
        for name, stride in self.strides.items():
            at[name], rest = np.divmod(rest, stride)
        return np.ravel_multi_index(tuple(at[dim] for dim in self.dims), self.shape)

    def local(self, flat: np.ndarray) -> np.ndarray:
        """Index in the block of cells by their place in the grid's flattened arrays."""
        at = np.unravel_index(flat, self.shape)
        return sum(np.asarray(i, np.int64) * self.strides[dim] for dim, i in zip(self.dims, at, strict=True))

    def picked(self, block: Block, ranked: Any, bar: float, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The leading cells by the first objective among those at most at the bar."""
        if n == 0:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        flat = np.broadcast_to(np.asarray(ranked), self.shape).ravel()
        some = np.flatnonzero((flat <= bar) & (flat < np.inf))
        return leading(flat[some], self.global_index(block, self.local(some)), self.plan.spec.top)

    def best(self, block: Block, reduced: Reduced) -> tuple[np.ndarray, np.ndarray]:
        """(D, G) best values and indices of all groups."""
        n = self.plan.n_groups
        group = self.groups(block)
        values, where = [], []
        for value, index in zip(reduced.best, reduced.where, strict=True):
            value, index = np.asarray(value).ravel(), np.asarray(index).ravel()
            real = (group >= 0) & (index != NO_INDEX)
            some, value, index = group[real], value[real], index[real]
            least = np.full(n, np.inf, np.float32)
            np.minimum.at(least, some, value)
            first = np.full(n, NO_INDEX, np.int64)
            ties = value == least[some]
            np.minimum.at(first, some[ties], index[ties])
            values.append(least)
            known = first != NO_INDEX
            first[~known] = -1
            first[known] = self.global_index(block, first[known])
            where.append(first)
        return np.stack(values), np.stack(where)

    def groups(self, block: Block) -> np.ndarray:
        """Group of each element of the kept axes, flattened; -1 of padding."""
        plan = self.plan
        places, total, padding = self.places(block), 0, False
        for dim, keep in zip(self.dims, self.kept, strict=True):
            if not keep:
                continue
            ids, stride = plan.group_axes[dim]
            at, n = places[dim]
            own = self.along(dim, ids[at] * stride)
            total, padding = total + own, padding | self.along(dim, np.arange(self.sizes[dim]) >= n)
        return np.where(padding, -1, total).ravel()


def spread(points: np.ndarray, n_objectives: int) -> np.ndarray:
    """(N_REFERENCES, D) of the points, from end to end of the first objective, and none."""
    out = np.full((N_REFERENCES, n_objectives), np.inf)
    finite = points[np.all(np.isfinite(points), axis=1)]
    order = np.argsort(finite[:, 0], kind="stable")
    some = order[evenly(len(order))]
    out[: len(some)] = finite[some]
    return out


def evenly(n: int) -> np.ndarray:
    """Places of at most N_REFERENCES of n, from end to end."""
    return np.linspace(0, n - 1, min(n, N_REFERENCES)).astype(int)


def hint_of(part: Part, n_top: int) -> Hint:
    """What a merged part tells later blocks."""
    bar = float(part.top[-1]) if len(part.top) >= n_top else np.inf
    return Hint(bar, spread(part.front.astype(float), part.best.shape[0]))


def reason_names(plan: Plan) -> tuple[str, ...]:
    """Reasons in the order of a part's counts."""
    return (*FIRST_REASONS, *plan.spec.limits)
