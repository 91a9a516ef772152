"""A sweep as loops: cells one by one in plain Python, with neither arrays nor anything of `sim.sweep`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any


def cells(
    rows: Sequence[dict], lengths: Sequence[dict], users: Sequence[int], prices: Sequence[dict]
) -> Iterator[dict]:
    """The axes of each cell, in the order in which cells are counted."""
    for row, length, concurrency, price in itertools.product(rows, lengths, users, prices):
        yield {**row, **length, "concurrency": concurrency, **price}


def money(cell: dict[str, Any], at: dict[str, float]) -> dict[str, float]:
    """What a cell costs. cell: figures of the deployment, and its own price; at: the price asked for, or None."""
    if at["usd_per_gpu_hour"] is None:
        per_device_s, per_joule = cell["usd_per_device_s"], cell["usd_per_joule"]
    else:
        per_device_s, per_joule = at["usd_per_gpu_hour"] / 3600, 0.0
    usd_per_s = per_device_s * at["usd_factor"] * cell["n_devices"] + per_joule * cell["power_w"]
    return {
        "usd_per_hour": usd_per_s * 3600,
        "usd_per_mtok": usd_per_s / cell["output_tokens_per_s"] * 1e6,
        "usd": cell["purchase_usd"] * cell["n_devices"],
    }


def against(cell: dict[str, float], limits: dict[str, tuple[str, float]], priced: Sequence[str]) -> list[bool]:
    """Which reasons hold against a cell: weights, kv, context, price; of what fits, limits ("<=" or ">=", a number)."""
    reasons = [
        cell["pool_bytes"] <= 0,
        cell["pool_bytes"] > 0 and cell["max_sequences"] < 1,
        cell["context_tokens"] > cell["max_context_tokens"],
        any(math.isnan(cell[name]) for name in priced),
    ]
    for name, (sign, limit) in limits.items():
        reasons.append(not any(reasons[:2]) and not (cell[name] <= limit if sign == "<=" else cell[name] >= limit))
    return reasons


def counts(reasons: Sequence[Sequence[bool]]) -> tuple[list[int], list[int]]:
    """(cells by their first reason, cells by their only reason)."""
    n = len(reasons[0])
    first, alone = [0] * n, [0] * n
    for cell in reasons:
        if any(cell):
            first[list(cell).index(True)] += 1
        if sum(cell) == 1:
            alone[list(cell).index(True)] += 1
    return first, alone


def top(values: Sequence[float], n: int) -> list[tuple[float, int]]:
    """The n least finite ones with their places; of equal ones the first."""
    return sorted((value, i) for i, value in enumerate(values) if value < math.inf)[:n]


def front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Places of the finite points that no other matches everywhere and beats somewhere; of equal ones the first."""
    known: dict[tuple[float, ...], int] = {}
    for i, point in enumerate(points):
        if max(point) < math.inf:
            known.setdefault(point, i)
    beats = lambda a, b: a != b and all(x <= y for x, y in zip(a, b, strict=True))  # noqa: E731
    return [i for point, i in known.items() if not any(beats(other, point) for other in known)]


def best(values: Sequence[float], groups: Sequence[Hashable]) -> dict[Hashable, tuple[float, int]]:
    """The least finite value of each group and its place; of equal ones the first."""
    found: dict[Hashable, tuple[float, int]] = {}
    for i, (value, group) in enumerate(zip(values, groups, strict=True)):
        if value < math.inf and (group not in found or value < found[group][0]):
            found[group] = (value, i)
    return found
