"""Several devices of one machine: rows of a block side by side."""

from __future__ import annotations

from typing import TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")
ROWS = "rows"


def place_rows(tree: T) -> T:
    """Arrays (N, ...) with the rows split over the local devices; what is computed from them row by row stays split.

    All devices take part where N is a multiple of their number; else as many of them as divide N. One device: the
    tree as it is.
    """
    n_rows = {leaf.shape[0] for leaf in jax.tree.leaves(tree)}
    if len(n_rows) != 1:
        raise ValueError(f"arrays of {sorted(n_rows)} rows do not share an axis of rows")
    devices = jax.local_devices()
    n = max(k for k in range(1, len(devices) + 1) if min(n_rows) % k == 0)
    if n == 1:
        return tree
    mesh = Mesh(devices[:n], (ROWS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(ROWS)))
