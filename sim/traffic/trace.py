"""Traces of requests that others recorded, read by what is in the file; docs of the formats are in `formats`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from sim.errors import RoofcastError, clipped, sentence
from sim.measure.rows import LONGEST_PATH, place
from sim.traffic.cells import Faults
from sim.traffic.formats import NAMES, FormatName, Role
from sim.traffic.lines import line_blocks
from sim.traffic.requests import Hashes
from sim.traffic.rows import CsvReader, JsonReader, Part

REQUEST: tuple[Role, ...] = ("arrival", "prompt", "output")


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests of a file, in order of arrival; the clock starts at the first of them.

    n_failed: rows without an answer, which are left out (BurstGPT marks requests that failed by no response tokens).
    """

    format: FormatName
    arrival_s: np.ndarray  # (N,) float64, nondecreasing from 0
    prompt_tokens: np.ndarray | None  # (N,) int32
    output_tokens: np.ndarray | None  # (N,) int32; None, as the prompt, where it was not asked for and is not there
    hashes: Hashes | None = None
    n_failed: int = 0

    def __len__(self) -> int:
        return len(self.arrival_s)


def read_trace(
    path: Path,
    needed: Sequence[Role] = REQUEST,
    expected: FormatName | None = None,
    skip: int = 0,
    first: int | None = None,
    sort: bool = False,
) -> Trace:
    """The requests of a trace, without the `skip` first, and `first` of them at most.

    needed: the columns that must be there. expected: the format that it must have. sort: put rows that are out of
    order into it. Raises RoofcastError, in sentences with file and line.
    """
    where = clipped(str(path), most=LONGEST_PATH)
    blocks = (block for block in line_blocks(path) if block[1])
    numbers, lines = next(blocks, ([], []))
    if len(lines) == 1:  # the first member of a gzip file may hold the header alone
        more = next(blocks, ([], []))
        numbers, lines = numbers + more[0], lines + more[1]
    if not lines:
        raise RoofcastError(sentence("is empty", place(where, 1), "name a file of requests"))
    reader, start = _reader(numbers, lines, where, needed)
    if expected is not None and expected != reader.format:
        what = f"this is {reader.format} ({NAMES[reader.format]}), and the format asked for is {expected}"
        raise RoofcastError(sentence(what, place(where, numbers[0]), "leave format out: it is found by content"))
    enough = None if sort or first is None else skip + first
    parts = _parts(chain([(numbers[start:], lines[start:])], blocks), reader, Faults(where), sort, enough)
    whole = _joined(list(parts), reader)
    if not len(whole):
        raise RoofcastError(sentence("holds no request", place(where, numbers[0]), "name a file of requests"))
    if skip >= len(whole):
        raise RoofcastError(sentence(f"holds {len(whole):,} requests, and skip = {skip:,} leaves none", where))
    rows = np.argsort(whole.arrival_s, kind="stable") if sort else np.arange(len(whole))
    return _taken(whole, rows[skip : None if first is None else skip + first])


def _reader(
    numbers: Sequence[int], lines: Sequence[str], where: str, needed: Sequence[Role]
) -> tuple[CsvReader | JsonReader, int]:
    """A reader of the file's rows, and how many lines its header takes."""
    if lines[0].lstrip().startswith("["):
        hint = "write one object a line, as with jq -c '.[]'"
        raise RoofcastError(sentence("a list in JSON is not read", place(where, numbers[0]), hint))
    if lines[0].lstrip().startswith("{"):
        return JsonReader(), 0
    return CsvReader.of_header(lines, place(where, numbers[0]), needed), 1


def _parts(
    blocks: Iterator[tuple[list[int], list[str]]],
    reader: CsvReader | JsonReader,
    faults: Faults,
    sort: bool,
    enough: int | None,
) -> Iterator[Part]:
    """The rows, block by block, of which every one is right and, unless they will be sorted, in order.

    Nothing is read beyond the row that makes `enough`.
    """
    last, n_rows = -np.inf, 0
    for numbers, lines in blocks:
        while lines and (enough is None or n_rows < enough):
            now = len(lines) if enough is None else enough - n_rows
            part = reader.read(numbers[:now], lines[:now], faults)
            faults.raise_if_any()
            if not sort:
                _check_order(part.arrival_s, last, numbers, faults)
            last = part.arrival_s[-1]
            part = part.answered() if part.n_failed else part
            n_rows += len(part.arrival_s)
            yield part
            numbers, lines = numbers[now:], lines[now:]
        if n_rows == enough:
            return


def _check_order(arrival_s: np.ndarray, last: float, numbers: Sequence[int], faults: Faults) -> None:
    late = np.flatnonzero(np.diff(arrival_s, prepend=last) < 0)
    if late.size:
        row = int(late[0])
        by_s = (arrival_s[row - 1] if row else last) - arrival_s[row]
        hint = "sort the file by time, or set sort = true"
        faults.add("order", numbers[row], f"this request arrives {by_s:.3g} s before the one above it", hint)
        faults.raise_if_any()


def _joined(kept: list[Part], reader: CsvReader | JsonReader) -> Trace:
    """The parts in one."""

    def joined(name: str, dtype: type) -> np.ndarray | None:
        arrays = [getattr(part, name) for part in kept]
        return None if any(a is None for a in arrays) else np.concatenate([np.empty(0, dtype), *arrays])

    lengths, ids = joined("n_blocks", np.int64), joined("block_ids", np.int64)
    hashes = None
    if kept and lengths is not None and ids is not None:
        hashes = Hashes(np.concatenate([[0], np.cumsum(lengths)]), ids, reader.block_tokens)
    tokens = joined("prompt_tokens", np.int32), joined("output_tokens", np.int32)
    n_failed = sum(part.n_failed for part in kept)
    arrival_s = np.concatenate([np.empty(0), *(part.arrival_s for part in kept)])
    return Trace(reader.format, arrival_s, *tokens, hashes, n_failed)


def _taken(whole: Trace, rows: np.ndarray) -> Trace:
    arrival_s = whole.arrival_s[rows]
    prompt, output = (None if a is None else a[rows] for a in (whole.prompt_tokens, whole.output_tokens))
    hashes = None if whole.hashes is None or prompt is None else whole.hashes.take(rows, prompt)
    return replace(whole, arrival_s=arrival_s - arrival_s[0], prompt_tokens=prompt, output_tokens=output, hashes=hashes)
