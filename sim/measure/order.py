"""Rows out of order: steps of more sequences, of one configuration and the same lengths, that take much less time."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import median

from sim.errors import shown
from sim.measure.rows import Measurement, place

FASTER_WITH_MORE = 1.5  # ratio of times per token beyond which one of two rows is a mistake: versions differ by less
PER_STEP = ("tpot_s", "itl_s", "decode_step_s")


def out_of_order(rows: Mapping[int, Measurement]) -> dict[int, tuple[str, str, str]]:
    """Index of each row to leave out -> (reason, sentence, hint); rows: by index.

    A step of more sequences reads and multiplies no less. Of rows that contradict this, the one that contradicts the
    others most goes first. Of two that contradict only each other, others at the load of one say whether that one is
    wrong; where they cannot, both go.
    """
    found: dict[int, tuple[str, str, str]] = {}
    together: dict[tuple, list[int]] = {}
    for index, row in rows.items():
        if row.quantity in PER_STEP:
            lengths = (round(row.prompt), round(row.output), row.depth)
            together.setdefault((row.source, row.quantity, row.stat, *row.group(), row.replicas, *lengths), []).append(
                index
            )
    for members in together.values():
        pairs = [(i, j) for i in members for j in members if _reversed(rows[i], rows[j])]
        while pairs:
            weights = {i: sum(_log_ratio(rows, pair) for pair in pairs if i in pair) for pair in pairs for i in pair}
            most = max(weights.values()) - 1e-9
            doubts = {i: _doubt(rows, i, members, found) for i, weight in weights.items() if weight >= most}
            worst = {i for i, doubt in doubts.items() if doubt == max(doubts.values())}
            found |= {i: _told(rows, i, next(pair for pair in pairs if i in pair)) for i in worst}
            pairs = [pair for pair in pairs if not set(pair) & worst]
    return found | _same_lines(rows, found)


def _reversed(fewer: Measurement, more: Measurement) -> bool:
    return fewer.concurrency < more.concurrency and fewer.value > FASTER_WITH_MORE * more.value


def _doubt(rows: Mapping[int, Measurement], index: int, members: Sequence[int], found: Collection[int]) -> int:
    """What the others at a row's load say of it: -1 that it is right, 1 that it is wrong, 0 nothing."""
    own = rows[index]
    others = [
        rows[i].value for i in members if i != index and i not in found and rows[i].concurrency == own.concurrency
    ]
    if not others:
        return 0
    return 1 if abs(math.log(own.value / median(others))) > math.log(FASTER_WITH_MORE) else -1


def _log_ratio(rows: Mapping[int, Measurement], pair: tuple[int, int]) -> float:
    return math.log(rows[pair[0]].value / rows[pair[1]].value)


def _told(rows: Mapping[int, Measurement], index: int, pair: tuple[int, int]) -> tuple[str, str, str]:
    own, other = rows[index], rows[pair[0] if index == pair[1] else pair[1]]
    here, there = (shown(m.in_file_unit(m.value)) for m in (own, other))
    what = (
        f"{own.measured_column} {here} at concurrency {own.concurrency} contradicts the {there} at "
        f"{other.concurrency} of {place(other.file, other.line)}: more sequences take no less time"
    )
    return "contradictory", what, "check the labels of both"


def _same_lines(
    rows: Mapping[int, Measurement], found: dict[int, tuple[str, str, str]]
) -> dict[int, tuple[str, str, str]]:
    """The other figures of the rows left out: a row that was not run as labelled is wrong in all of them."""
    lines = {(rows[i].file, rows[i].line): told for i, told in found.items()}
    return {i: lines[row.file, row.line] for i, row in rows.items() if (row.file, row.line) in lines}
