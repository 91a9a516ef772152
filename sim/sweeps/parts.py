"""What is kept of a block, and how parts become one. Ties go to the lowest index, so that no order decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SLICE = 512
MANY, N_LEADERS, N_WEIGHTS = 1024, 32, 128
WORTH = 0.7  # share left by a pass after which another is not worth it


@dataclass(frozen=True)
class Part:
    """Of some cells: counts by reason, the best of each group and objective, the top, and the front. D objectives.

    Indices are of cells of the whole sweep; -1 where there is none, with an infinite value.
    """

    n_cells: int
    first: np.ndarray  # (K,) int64
    alone: np.ndarray  # (K,)
    best: np.ndarray  # (D, G) float32
    best_index: np.ndarray  # (D, G) int64
    top: np.ndarray  # (T,) float32, ascending
    top_index: np.ndarray
    front: np.ndarray  # (F, D) float32, in order of index
    front_index: np.ndarray


def empty(n_reasons: int, n_objectives: int, n_groups: int) -> Part:
    """Of no cells."""
    none = np.zeros(n_reasons, np.int64)
    best = np.full((n_objectives, n_groups), np.inf, np.float32)
    nowhere = np.zeros(0, np.int64)
    return Part(0, none, none, best, np.full(best.shape, -1, np.int64), np.zeros(0, np.float32), nowhere,
                np.zeros((0, n_objectives), np.float32), nowhere)  # fmt: skip


def merge(a: Part, b: Part, n_top: int) -> Part:
    """The part of the cells of both."""
    earlier = (a.best_index >= 0) & ((a.best_index < b.best_index) | (b.best_index < 0))
    keep = (a.best < b.best) | ((a.best == b.best) & earlier)
    top, top_index = leading(np.append(a.top, b.top), np.append(a.top_index, b.top_index), n_top)
    front, front_index = pareto(np.concatenate([a.front, b.front]), np.append(a.front_index, b.front_index))
    return Part(
        a.n_cells + b.n_cells, a.first + b.first, a.alone + b.alone,
        np.where(keep, a.best, b.best), np.where(keep, a.best_index, b.best_index),
        top, top_index, front, front_index,
    )  # fmt: skip


def leading(values: np.ndarray, index: np.ndarray, n_top: int) -> tuple[np.ndarray, np.ndarray]:
    """The least values, by value, then index."""
    if len(values) > 4 * n_top > 0:  # what is above the n-th least, with its ties, cannot be among them
        near = values <= np.partition(values, n_top - 1)[n_top - 1]
        values, index = values[near], index[near]
    order = np.lexsort((index, values))[:n_top]
    return values[order], index[order]


def pareto(values: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points that no other dominates, in order of index; of equal points the one of lowest index.

    values: (N, D). Points sorted by all objectives can only be dominated by those before them.
    """
    values, index = thinned(values, index)
    order = np.lexsort((index, *values.T[::-1]))
    values, index = values[order], index[order]
    new = np.ones(len(values), bool)
    new[1:] = np.any(values[1:] != values[:-1], axis=1)
    values, index = values[new], index[new]
    kept = np.zeros((0, values.shape[1]), values.dtype)
    chosen: list[np.ndarray] = []
    for start in range(0, len(values), SLICE):
        part, at = values[start : start + SLICE], index[start : start + SLICE]
        alive = ~_dominated(part, kept)
        part, at = part[alive], at[alive]
        alive = ~_dominated(part, part)
        kept, chosen = np.concatenate([kept, part[alive]]), [*chosen, at[alive]]
    index = np.concatenate(chosen) if chosen else index
    order = np.argsort(index)
    return kept[order], index[order]


def thinned(values: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without most of those that others dominate, where there are many: by a few that are good in all objectives."""
    while len(values) > MANY:
        left = ~_dominated(values, leaders(values[:: len(values) // MANY]))
        values, index = values[left], index[left]
        if np.mean(left) > WORTH:
            break
    return values, index


def leaders(values: np.ndarray) -> np.ndarray:
    """(≤ N_LEADERS, D) rows that have the least weighted mean of logarithms for some weights; those of most first."""
    scale = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    scale = (scale - scale.mean(axis=0)) / np.maximum(scale.std(axis=0), 1e-6)
    weights = np.random.default_rng(0).dirichlet(np.ones(values.shape[1]), N_WEIGHTS)
    means = np.einsum("nd,wd->wn", scale, weights.astype(scale.dtype))  # BLAS would wait in all its threads
    best, n_times = np.unique(np.argmin(means, axis=1), return_counts=True)
    return values[best[np.argsort(-n_times, kind="stable")[:N_LEADERS]]]


def _dominated(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """(N,) whether one of `by` is nowhere larger and somewhere smaller."""
    hit = np.zeros(len(values), bool)
    for start in range(0, len(by), 256):
        left = np.flatnonzero(~hit)
        some = by[start : start + 256]
        no_worse, better = np.ones((len(some), len(left)), bool), np.zeros((len(some), len(left)), bool)
        for d in range(values.shape[1]):
            mine = values[left, d]
            no_worse &= some[:, d, None] <= mine
            better |= some[:, d, None] < mine
        hit[left] = np.any(no_worse & better, axis=0)
    return hit
