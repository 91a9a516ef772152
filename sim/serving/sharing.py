"""What prompts share, from the ids of their blocks: the tree that `kernels.prefixes` walks."""

from __future__ import annotations

import numpy as np

from sim.traffic.requests import Hashes


def prefix_tree(hashes: Hashes, prompt_tokens: np.ndarray, block_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) edge before each edge, its first block, its length; and (N, 2) last edge of each request, blocks up to it.

    Edge 0 is the root, of no blocks; there are never more than N, and those that are not used have no length. Of a
    prompt of n tokens the full blocks among its first n − 1 are shared with whoever has the same ids up to their end.
    """
    n = len(prompt_tokens)
    tree, places = np.zeros((n, 3), np.int32), np.zeros((n, 2), np.int32)
    own = [hashes.ids[a:b] for a, b in zip(hashes.offsets, hashes.offsets[1:], strict=False)]
    most = (prompt_tokens.astype(np.int64) - 1) // block_tokens
    order = sorted(range(n), key=lambda i: (own[i].tolist(), most[i]))
    common = [0] * (n + 1)  # blocks that one has in common with the one before it in this order
    for k in range(1, n):
        a, b = order[k - 1], order[k]
        ids = _common(own[a], own[b])
        common[k] = int(min(ids * hashes.block_tokens // block_tokens, most[a], most[b]))
    path, n_edges = [(0, 0)], 1  # edges from the root to where we are, each with the blocks up to its end
    for k, i in enumerate(order):
        end, cut = common[k + 1], -1
        leaf = path[-1]
        while path[-1][1] > end:
            cut, its_end = path.pop()
            first = max(end, path[-1][1])
            tree[cut] = path[-1][0], first, its_end - first
        if path[-1][1] < end:
            path.append((n_edges, end))
            n_edges += 1
            if cut >= 0:
                tree[cut, 0] = path[-1][0]
        places[i] = max(leaf, path[-1], key=lambda edge: edge[1])
    return tree, places


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Ids that both begin with."""
    m = min(len(a), len(b))
    differ = np.flatnonzero(a[:m] != b[:m])
    return int(differ[0]) if len(differ) else m
