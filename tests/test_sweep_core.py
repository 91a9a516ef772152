"""What a sweep keeps, against loops over its cells: reasons, best of groups, top and front; blocks, hints and ties."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from sim.sweeps import plan as plans
from sim.sweeps.blocks import Sweeper, hint_of, reason_names
from sim.sweeps.parts import Part, merge
from sim.sweeps.plan import Plan, plan
from tests import sweep_cells as sweeps
from tests.oracle import sweep as oracle

BASE = sweeps.named(
    model=("llama-3.1-8b", "gpt-oss-120b", "deepseek-v3"), hardware=("h100-sxm", "rtx-4090", "m3-ultra"), gpus=(1, 2),
    prompt_tokens=(100, 5000), output_tokens=(2, 400), concurrency=(1, 16, 200), usd_per_gpu_hour=(None, 2.0),
    usd_factor=(1.0, 0.5), minimize=("usd_per_mtok", "tpot_s", "ttft_s"), top=7,
)  # fmt: skip
BYS = [
    (), ("model",), ("hardware", "gpus"), ("prompt_tokens",), ("concurrency",), ("usd_factor",), ("usd_per_gpu_hour",),
    ("model", "output_tokens", "concurrency", "usd_factor"), ("prompt_tokens", "usd_per_gpu_hour", "hardware"),
]  # fmt: skip
LIMITS = {"usd_per_mtok": "<=", "ttft_s": "<=", "output_tokens_per_s": ">=", "usd": "<=", "e2e_s": "<="}


def same(a: Part, b: Part) -> None:
    """Every field, to the last bit."""
    for name in Part.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def every_cell(found: Plan) -> list[dict[str, Any]]:
    """The axes of every cell, by loops over the values of the axes."""
    spec = found.spec
    rows = [sweeps.own(found, row) for row in range(found.n_rows)]
    lengths = [
        {"prompt_tokens": p, "output_tokens": o, "context_tokens": p + o}
        for p in spec.prompt_tokens
        for o in spec.output_tokens
    ]
    prices = [{"usd_per_gpu_hour": u, "usd_factor": f} for u in spec.usd_per_gpu_hour for f in spec.usd_factor]
    return list(oracle.cells(rows, lengths, spec.concurrency, prices))


def hold(found: Plan, part: Part, reasons: list[list[bool]], values: list[list[float]]) -> None:
    """The part is what loops find. reasons: of each cell; values: of each objective, of each cell."""
    axes = every_cell(found)
    assert part.n_cells == found.n_cells == len(axes)
    first, alone = oracle.counts(reasons)
    assert (part.first.tolist(), part.alone.tolist()) == (first, alone)
    assert part.n_cells - part.first.sum() == sum(not any(cell) for cell in reasons)
    assert list(zip(part.top.tolist(), part.top_index.tolist(), strict=True)) == oracle.top(values[0], found.spec.top)
    points = list(zip(*values, strict=True))
    assert part.front_index.tolist() == oracle.front(points)
    assert [tuple(point) for point in part.front.tolist()] == [points[i] for i in part.front_index]
    groups = [tuple(cell[name] for name in found.spec.by) for cell in axes]
    assert found.n_groups == len(set(groups))
    for d, of in enumerate(values):
        expected = {i: value for value, i in oracle.best(of, groups).values()}
        kept = part.best_index[d] >= 0
        assert np.all(np.isinf(part.best[d][~kept]))
        assert dict(zip(part.best_index[d][kept].tolist(), part.best[d][kept].tolist(), strict=True)) == expected


class Tabled(Sweeper):
    """A sweeper whose cells are judged by tables in place of kernels: reasons and objectives (R, L, C, Q or 1)."""

    def __init__(self, found: Plan, code: np.ndarray, values: list[np.ndarray]) -> None:
        super().__init__(found)
        self.tables = (code, *(np.where(code == 0, value, np.inf).astype(np.float32) for value in values))

    def cells(self, block: plans.Block) -> Any:
        """The block itself."""
        return block

    def score(self, made: Any) -> tuple[Any, tuple]:
        """The part of the tables that the block covers, padded."""
        sizes = [self.sizes[name] for name in ("deployments", "lengths", "concurrency")]
        part = (slice(made.first_row, made.first_row + made.n_rows),
                slice(made.first_length, made.first_length + made.n_lengths))  # fmt: skip
        turn = [("deployments", "lengths", "concurrency", "prices").index(name) for name in self.dims]

        def laid(table: np.ndarray, padding: float) -> Any:
            own = table[part]
            grown = np.full((*sizes, own.shape[-1]), padding, own.dtype)
            grown[tuple(slice(n) for n in own.shape)] = own
            return jnp.asarray(np.transpose(grown, turn))

        return laid(self.tables[0], -1), tuple(laid(value, np.inf) for value in self.tables[1:])


def tables(found: Plan, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Random reasons and few distinct values, so that most are ties; some do not depend on prices."""
    random = np.random.default_rng(seed)
    *grid, n_prices = sweeps.shape_of(found)
    code = random.choice([0, 0, 0, 1, 2, 6, 16], (*grid, 1)).astype(np.int32)
    depths = [n_prices, 1, n_prices, 1, 1][: len(found.spec.minimize)]
    return code, [random.integers(1, 6, (*grid, depth)).astype(np.float32) for depth in depths]


def tabled(found: Plan, seed: int) -> tuple[list[list[bool]], list[list[float]]]:
    """The tables as loops take them."""
    code, values = tables(found, seed)
    shape, n = sweeps.shape_of(found), len(reason_names(found))
    spread = lambda a: np.broadcast_to(a, shape).ravel().tolist()  # noqa: E731
    codes = spread(code)
    inf_where = lambda value: [math.inf if c else v for c, v in zip(codes, spread(value), strict=True)]  # noqa: E731
    return [[bool(c >> k & 1) for k in range(n)] for c in codes], [inf_where(value) for value in values]


def split(monkeypatch: pytest.MonkeyPatch, n_states: int) -> None:
    """Blocks of at most so many cells."""
    monkeypatch.setattr(plans, "BLOCK_STATES", n_states)


@pytest.mark.parametrize("by", BYS, ids=str)
def test_ties_and_groups(by, monkeypatch):
    split(monkeypatch, 40)
    found = plan(replace(BASE, by=by, limits={"ttft_s": 1.0})).whole()
    sweeper = Tabled(found, *tables(found, len(by)))
    assert len(found.blocks) > 3 and found.n_rows % found.block_shape[0]  # the last is padded
    parts = [sweeper.evaluate(i) for i in range(len(found.blocks))]
    hold(found, functools.reduce(lambda a, b: merge(a, b, found.spec.top), parts), *tabled(found, len(by)))


@pytest.mark.parametrize("n_objectives", [1, 2, 4, 5])
def test_neither_blocks_nor_hints_nor_order_decide(n_objectives, monkeypatch):
    goals = ("usd_per_mtok", "tpot_s", "ttft_s", "e2e_s", "power_w")[:n_objectives]
    whole = None
    random = np.random.default_rng(n_objectives)
    for n_states in (10**6, 40, 6):
        split(monkeypatch, n_states)
        found = plan(replace(BASE, minimize=goals, limits={"ttft_s": 1.0})).whole()
        sweeper = Tabled(found, *tables(found, 1))
        order = random.permutation(len(found.blocks))
        if n_states == 6:
            assert found.block_shape[1] < len(found.lengths)  # the lengths are split as well
        part = None
        for i in order:
            one = sweeper.evaluate(int(i), None if part is None else hint_of(part, found.spec.top))
            part = one if part is None else merge(one, part, found.spec.top)
        whole = whole or part
        same(part, whole)
    hold(found, whole, *tabled(found, 1))


def test_a_merge_is_associative(monkeypatch):
    split(monkeypatch, 24)
    found = plan(replace(BASE, by=("model", "concurrency"), limits={"ttft_s": 1.0})).whole()
    sweeper = Tabled(found, *tables(found, 3))
    a, b, c = (sweeper.evaluate(i) for i in (0, 2, 1))
    top = found.spec.top
    left, right = merge(merge(a, b, top), c, top), merge(a, merge(b, c, top), top)
    same(left, right)
    same(left, merge(c, merge(b, a, top), top))


@functools.cache
def limited(n_states: int) -> tuple[Plan, dict[str, np.ndarray], dict[str, tuple[str, float]]]:
    """A plan with limits between the figures of its cells, and those figures."""
    figures = sweeps.table(plan(BASE))
    limits = {}
    for name, sign in LIMITS.items():
        known = np.unique(figures[name][np.isfinite(figures[name]) & (figures["code"] == 0)]).astype(float)
        share = 0.7 if sign == "<=" else 0.3
        middles = [(a + b) / 2 for a, b in itertools.pairwise(known) if b > 1.001 * a]
        limits[name] = (sign, float(middles[int(len(middles) * share)]))
    return plan(replace(BASE, limits={name: at for name, (_, at) in limits.items()})), figures, limits


@pytest.mark.parametrize("n_states", [10**6, 48])
def test_reasons_and_answers(n_states, monkeypatch):
    split(monkeypatch, n_states)
    found, figures, limits = limited(n_states)
    axes = every_cell(found)
    rows = np.arange(found.n_cells) // (found.n_cells // found.n_rows)
    own = {name: found.rows.numbers[name][rows] for name in ("usd_per_device_s", "usd_per_joule", "purchase_usd")}
    longest = np.asarray(found.rows.models.max_context_tokens)[found.rows.which[:, 0]][rows]
    flat = {name: values.ravel() for name, values in figures.items()}
    cells = [
        {**cell, "max_context_tokens": longest[i]} | {name: float(a[i]) for name, a in (flat | own).items()}
        for i, cell in enumerate(axes)
    ]
    for cell in cells:  # what the device makes of prices, in float64
        for name, usd in oracle.money(cell, cell).items():
            assert usd == pytest.approx(cell[name], rel=2e-6, nan_ok=True)
    reasons = [oracle.against(cell, limits, ("usd_per_mtok", "usd")) for cell in cells]
    first, alone = oracle.counts(reasons)
    assert min(first[0], first[3]) > 0 and sum(n > 0 for n in alone[4:]) >= 3
    values = [[math.inf if any(why) else cell[name] for cell, why in zip(cells, reasons, strict=True)]
              for name in found.spec.minimize]  # fmt: skip
    part = sweeps.swept(found)
    assert reason_names(found)[4:] == tuple(LIMITS)
    assert (part.first.tolist(), part.alone.tolist()) == (first, alone)
    hold(found, part, reasons, rounded(values, part, found))


def rounded(values: list[list[float]], part: Part, found: Plan) -> list[list[float]]:
    """As the device rounded them: two programs may differ in the last bit."""
    sweeper, whole = Sweeper(found), [np.full(sweeps.shape_of(found), np.inf, np.float32) for _ in values]
    for block in found.blocks:
        rows = found.computed(block)
        lengths = slice(block.first_length, block.first_length + block.n_lengths)
        for array, out in zip(sweeper.score(sweeper.cells(block))[1], whole, strict=True):
            out[rows, lengths] = sweeps.unpadded(sweeper, array, len(rows), block.n_lengths)
    for array, expected in zip(whole, values, strict=True):
        np.testing.assert_allclose(array.ravel(), expected, rtol=2e-6)
    return [array.ravel().tolist() for array in whole]


@pytest.mark.parametrize("names", [{}, {"model": ("deepseek-v3",)}], ids=["some", "none"])
def test_what_cannot_hold_its_weights_is_counted_as_if_computed(names, monkeypatch):
    split(monkeypatch, 48)
    wide = {"model": ("llama-3.1-8b", "deepseek-v3", "llama-3.1-70b"), "hardware": ("gb10", "h100-sxm"), "pay": "rent"}
    asked = {"usd_per_gpu_hour": (None, 2.0), "prompt_tokens": (128, 200_000), "limits": {"ttft_s": 1.0}}
    found = plan(replace(BASE, **wide | asked | names))
    assert found.live.any() == (not names) and not found.live.all()
    part, whole = sweeps.swept(found), sweeps.swept(found.whole())
    assert 0 < part.alone[0] < part.first[0] and part.n_cells == found.n_cells
    same(part, whole)


def test_an_unknown_price_is_never_ranked():
    spec = replace(BASE, model=("llama-3.1-8b",), hardware=("gb10", "h100-sxm"), pay="rent", usd_per_gpu_hour=(None,))
    found = plan(spec)
    unknown = np.isnan(found.rows.numbers["usd_per_device_s"])
    assert 0 < unknown.sum() < found.n_rows
    cells_each = found.n_cells // found.n_rows
    part = sweeps.swept(found)
    assert part.first[3] == cells_each * unknown.sum()
    for index in (part.top_index, part.front_index, part.best_index[part.best_index >= 0]):
        assert len(index) and not np.any(unknown[index // cells_each])
    fast = sweeps.swept(plan(replace(spec, minimize=("tpot_s", "ttft_s", "e2e_s"))))
    assert fast.first[3] == 0


def test_index_and_coordinates():
    found = plan(replace(BASE, by=("concurrency", "gpus")))
    at, axes = found.coordinates(np.arange(found.n_cells)), every_cell(found)
    for i, cell in enumerate(axes):
        for name, value in cell.items():
            is_none = value is None and name == "usd_per_gpu_hour"
            assert np.isnan(at[name][i]) if is_none else at[name][i] == value
    assert len({tuple(cell.values()) for cell in axes}) == found.n_cells
    sweeper = Sweeper(found)
    for block in found.blocks:
        inside = np.arange(len(found.computed(block)) * sweeper.strides["deployments"])
        np.testing.assert_array_equal(sweeper.local(sweeper.flat(inside)), inside)
