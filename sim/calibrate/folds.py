"""Which rows judge a fit: folds that no configuration straddles, and one model or device left out at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.measure import Measurement

FOLDS = 5
SEED = 0


def by_configuration(rows: Sequence[Measurement], n_folds: int = FOLDS, seed: int = SEED) -> np.ndarray:
    """(M,) fold of each row. A model x machine x engine x formats x parallelism lies in one fold, whatever its file."""
    groups = sorted({row.group() for row in rows})
    order = np.random.default_rng(seed).permutation(len(groups))
    fold = {groups[at]: n % n_folds for n, at in enumerate(order)}
    return np.asarray([fold[row.group()] for row in rows])


def by_label(labels: Sequence[str]) -> np.ndarray:
    """(M,) index of each row's label among the sorted labels: each left out in turn."""
    return np.unique(np.asarray(labels), return_inverse=True)[1]
