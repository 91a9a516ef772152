"""Reductions of small random arrays, against loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.reduce import NO_INDEX, least_of, undominated
from sim.sweeps.parts import leading, pareto
from tests.oracle import sweep as oracle

few = st.integers(0, 4).map(float)


@given(st.lists(st.tuples(few, few, few), max_size=60), st.integers(1, 4096))
def test_pareto(points, size):
    values = np.array(points, np.float32).reshape(-1, 3)
    index = np.random.default_rng(size).permutation(len(points)) * 3
    order = np.argsort(index)
    kept, where = pareto(values, index)
    expected = oracle.front([tuple(p) for p in values[order].tolist()])
    assert where.tolist() == [int(index[order[i]]) for i in expected]
    assert kept.tolist() == values[order[expected]].tolist() if expected else not len(kept)


def test_pareto_of_many_slices():
    values = np.random.default_rng(0).integers(0, 25, (9000, 4)).astype(np.float32)
    _, where = pareto(values, np.arange(len(values)))
    assert where.tolist() == oracle.front([tuple(p) for p in values.tolist()])


@given(st.lists(few, max_size=80), st.integers(1, 9))
def test_leading(values, n):
    index = np.arange(len(values))[::-1].copy()
    found = leading(np.array(values, np.float32), index, n)
    expected = sorted(zip(values, index.tolist(), strict=True))[:n]
    assert list(zip(*(part.tolist() for part in found), strict=True)) == expected


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(0, 1, 0, 1), (1, 1, 1, 1), (0, 1, 0, 0), (1, 0, 1, 1)]),
       st.sampled_from([(2, 3, 1, 16), (1, 3, 2, 16)]))  # fmt: skip
def test_least_of(seed, kept, shape):
    random = np.random.default_rng(seed)
    full = (2, 3, 2, 16)
    strides = random.permutation([1, 16, 48, 96])
    index = tuple(
        (np.arange(n, dtype=np.int32) * stride).reshape([-1 if i == d else 1 for i in range(4)])
        for d, (n, stride) in enumerate(zip(full, strides, strict=True))
    )
    value = random.choice([1, 2, 3, np.inf], shape, p=[0.1, 0.1, 0.1, 0.7]).astype(np.float32)
    least, where = least_of(value, index, tuple(map(bool, kept)))
    wide, at = np.broadcast_to(value, full).ravel(), np.broadcast_to(sum(index[1:], index[0]), full).ravel()
    groups = [tuple(i for i, keep in zip(place, kept, strict=True) if keep) for place in np.ndindex(full)]
    ranked = sorted(range(wide.size), key=lambda i: at[i])
    expected = oracle.best([float(wide[i]) for i in ranked], [groups[i] for i in ranked])
    for place in np.ndindex(least.shape):
        value_there, there = expected.get(place, (np.inf, None))
        assert float(least[place]) == value_there
        assert int(where[place]) == (NO_INDEX if there is None else at[ranked[there]])


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 16))
def test_undominated(seed, n_references):
    random = np.random.default_rng(seed)
    shapes = [(2, 3, 4, 5), (1, 3, 4, 5), (2, 3, 4, 5)]
    values = [random.choice([1, 1.0000001, 2, 3, np.inf], s).astype(np.float32) for s in shapes]
    references = np.full((16, 3), np.inf, np.float32)
    references[:n_references] = random.choice([1, 1.0000001, 2, 3], (n_references, 3))
    found = undominated(tuple(values), references)
    for place in np.ndindex(*shapes[0]):
        mine = [v[tuple(i if n > 1 else 0 for i, n in zip(place, v.shape, strict=True))] for v in values]
        beaten = any(np.all(r <= mine) and np.any(r < mine) for r in references)
        assert bool(found[place]) == (bool(np.all(np.isfinite(mine))) and not beaten)
