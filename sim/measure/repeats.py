"""Rows of one configuration and load: the same row twice, and rows that contradict each other."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

from sim.errors import shown
from sim.measure.rows import Measurement, place

CONTRADICTION = 2.0  # ratio of two figures of one configuration and load, from which one of them is a mistake
ROUNDING = 1e-9  # of a ratio: 45 and 90 tokens/s are as far apart as 16 and 8 ms
# Columns of tables that say how a row came out, or where it is from, not what was run.
OUTCOMES = frozenset({
    "id", "value", "tokens_per_s", "stddev", "ttft_ms", "tpot_ms", "queued", "source_url", "source_title", "accessed",
    "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "samples_ns", "samples_ts", "test_time", "t/s",
    "S_PP t/s", "S_TG t/s", "S t/s", "T_PP s", "T_TG s", "T s", "speed_pp", "speed_tg", "speed", "t_pp", "t_tg", "t",
})  # fmt: skip


def repeated(rows: Mapping[int, Measurement]) -> dict[int, tuple[str, str, str]]:
    """Index of each row to leave out -> (reason, sentence, hint); rows: by index.

    A row stays where most of those of its configuration and load agree with it, itself and duplicates included. So of
    three the outlier goes; of two that contradict each other none can say which is wrong, and both go.
    """
    alike: dict[tuple, list[int]] = {}
    for index, row in rows.items():
        alike.setdefault(_what_ran(row), []).append(index)
    found: dict[int, tuple[str, str, str]] = {}
    for members in alike.values():
        found |= _contradictory(rows, members) | _duplicates(rows, members)
    return found


def _what_ran(found: Measurement) -> tuple:
    """Everything that two rows must share to be the same measurement: configuration, load, and other conditions."""
    load = (found.concurrency, found.prompt, found.output, found.depth, found.n_requests, *found.limits.items())
    conditions: Iterable = ()
    if found.source.split(":")[0] in ("table", "silicon", "serving", "local", "llama-bench", "llama-batched-bench"):
        conditions = (cell for cell in found.columns.items() if cell[0] not in OUTCOMES)
    return (*found.group(), found.replicas, found.source, found.quantity, found.stat, *load, *conditions)


def _duplicates(rows: Mapping[int, Measurement], members: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    first: dict[float, Measurement] = {}
    found = {}
    for index in members:
        row = rows[index]
        earlier = first.setdefault(row.value, row)
        if (earlier.file, earlier.line) != (row.file, row.line):
            what = f"the same configuration, load and {row.measured_column} as in {_where(earlier, row)}"
            found[index] = ("duplicate", what, "remove one")
    return found


def _contradictory(rows: Mapping[int, Measurement], members: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    order = sorted(members, key=lambda i: rows[i].value)
    values = [rows[i].value for i in order]
    limit = CONTRADICTION * (1 - ROUNDING)
    if values[-1] < limit * values[0]:
        return {}
    agreeing = [bisect_left(values, limit * value) - bisect_right(values, value / limit) for value in values]
    kept = [i for i, n in zip(order, agreeing, strict=True) if 2 * n > len(values)]
    return {i: _told(rows, i, kept, order) for i in set(members).difference(kept)}


def _told(
    rows: Mapping[int, Measurement], index: int, kept: Sequence[int], order: Sequence[int]
) -> tuple[str, str, str]:
    """Names a row that is used and contradicts this one, else the one that contradicts it most."""

    def ratio(other: int) -> float:
        values = rows[index].value, rows[other].value
        return max(values) / min(values)

    used = [i for i in (*kept[:1], *kept[-1:]) if ratio(i) >= CONTRADICTION * (1 - ROUNDING)]
    own, other = rows[index], rows[max(used or (order[0], order[-1]), key=ratio)]
    where = _where(other, own)
    here, there = (shown(m.in_file_unit(m.value)) for m in (own, other))
    what = f"{own.measured_column} {here} contradicts the {there} of {where}, of the same configuration and load"
    return "contradictory", what, f"check both; {where if used else 'neither'} is used"


def _where(other: Measurement, own: Measurement) -> str:
    return f"line {other.line}" if other.file == own.file else place(other.file, other.line)
