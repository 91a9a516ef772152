"""Rows out of order: of one configuration, more sequences or longer prompts that take much less time."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import median

from sim.errors import shown
from sim.measure.rows import Measurement, place

# Ratio of times beyond which one of two rows is a mistake. Steps of two versions differ by less. First tokens scatter
# more, and what breaks their order is a server that compiles kernels while it is measured.
FASTER_WITH_MORE = {"tpot_s": 1.5, "itl_s": 1.5, "decode_step_s": 1.5, "ttft_s": 2.5}


def out_of_order(rows: Mapping[int, Measurement]) -> dict[int, tuple[str, str, str]]:
    """Index of each row to leave out -> (reason, sentence, hint); rows: by index.

    A step of more sequences, or behind longer prompts, reads and multiplies no less, and a first token comes no sooner.
    A first token that comes later had to wait for something else, and goes. Of steps that contradict each other, the
    one that contradicts most goes first. Of two that contradict only each other, others at the load of one say whether
    that one is wrong; where they cannot, both go.
    """
    found: dict[int, tuple[str, str, str]] = {}
    together: dict[tuple, list[int]] = {}
    for index, row in rows.items():
        if row.quantity in FASTER_WITH_MORE:
            same = (row.source, row.quantity, row.stat, *row.group(), row.replicas, round(row.output), row.depth)
            together.setdefault(same, []).append(index)
    for members in together.values():
        pairs = [(i, j) for i in members for j in members if _reversed(rows[i], rows[j])]
        while pairs:
            late = {i for i, j in pairs if rows[i].quantity == "ttft_s"}
            weights = {i: sum(_log_ratio(rows, pair) for pair in pairs if i in pair) for pair in pairs for i in pair}
            most = max(weights.values()) - 1e-9
            doubts = {i: _doubt(rows, i, members, found) for i, weight in weights.items() if weight >= most}
            worst = late or {i for i, doubt in doubts.items() if doubt == max(doubts.values())}
            found |= {i: _told(rows, i, next(pair for pair in pairs if i in pair)) for i in worst}
            pairs = [pair for pair in pairs if not set(pair) & worst]
    return found | _same_lines(rows, found)


def _reversed(less: Measurement, more: Measurement) -> bool:
    """Whether a load takes much longer than one that is nowhere smaller, and larger somewhere."""
    small, large = _size(less), _size(more)
    no_more = small != large and small[0] <= large[0] and small[1] <= large[1]
    return no_more and less.value > FASTER_WITH_MORE[less.quantity] * more.value


def _size(row: Measurement) -> tuple[int, int]:
    """(sequences, prompt tokens) of a load."""
    return row.concurrency, round(row.prompt)


def _doubt(rows: Mapping[int, Measurement], index: int, members: Sequence[int], found: Collection[int]) -> int:
    """What the others at a row's load say of it: -1 that it is right, 1 that it is wrong, 0 nothing."""
    own = rows[index]
    others = [rows[i].value for i in members if i != index and i not in found and _size(rows[i]) == _size(own)]
    if not others:
        return 0
    return 1 if abs(math.log(own.value / median(others))) > math.log(FASTER_WITH_MORE[own.quantity]) else -1


def _log_ratio(rows: Mapping[int, Measurement], pair: tuple[int, int]) -> float:
    return math.log(rows[pair[0]].value / rows[pair[1]].value)


def _told(rows: Mapping[int, Measurement], index: int, pair: tuple[int, int]) -> tuple[str, str, str]:
    own, other = rows[index], rows[pair[0] if index == pair[1] else pair[1]]
    here, there = (shown(m.in_file_unit(m.value)) for m in (own, other))
    what = (
        f"{own.measured_column} {here} at {_load(own)} contradicts the {there} at {_load(other)} of "
        f"{place(other.file, other.line)}: more sequences and longer prompts take no less time"
    )
    return "contradictory", what, "check the labels of both, and that the server was warm"


def _load(row: Measurement) -> str:
    return f"concurrency {row.concurrency} with {shown(round(row.prompt))} prompt tokens"


def _same_lines(
    rows: Mapping[int, Measurement], found: dict[int, tuple[str, str, str]]
) -> dict[int, tuple[str, str, str]]:
    """The other figures of the rows left out: a row that was not run as labelled is wrong in all of them."""
    lines = {(rows[i].file, rows[i].line): told for i, told in found.items()}
    return {i: lines[row.file, row.line] for i, row in rows.items() if (row.file, row.line) in lines}
