"""Which rows judge a fit: folds that no configuration straddles, and one model or device left out at a time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from sim.measure import Measurement

FOLDS = 5
SEED = 0


def by_configuration(rows: Sequence[Measurement], n_folds: int = FOLDS, seed: int = SEED) -> np.ndarray:
    """(M,) fold of each row. A model x machine x engine x formats x parallelism lies in one fold, whatever its file."""
    return _by_key([row.group() for row in rows], n_folds, seed)


def by_row(rows: Sequence[Measurement], n_folds: int = FOLDS, seed: int = SEED) -> np.ndarray:
    """(M,) fold of each row of the files, whose figures stay together: for a few rows of one configuration."""
    return _by_key([(row.file, row.line) for row in rows], n_folds, seed)


def _by_key(keys: Sequence[Hashable], n_folds: int, seed: int) -> np.ndarray:
    groups = sorted(set(keys))
    order = np.random.default_rng(seed).permutation(len(groups))
    fold = {groups[at]: n % n_folds for n, at in enumerate(order)}
    return np.asarray([fold[key] for key in keys])
