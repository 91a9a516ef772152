"""Rows of CSV and of JSONL to arrays, a block of lines at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from sim.errors import RoofcastError, did_you_mean, sentence
from sim.measure.tables import SEPARATORS
from sim.traffic import cells
from sim.traffic.cells import Faults
from sim.traffic.formats import KNOWN, Column, FormatName, Role, columns, csv_format, folded
from sim.units import MILLI, NANO

COLUMNS = "the columns of a trace are arrival_s, prompt_tokens, output_tokens"
FIELDS = ("timestamp", "input_length", "output_length")
CUT = "this line is cut off or no JSON"


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a trace; arrays are None where the file has no such column."""

    arrival_s: np.ndarray  # (M,) float64, from the file's own zero
    prompt_tokens: np.ndarray | None  # (M,) int32
    output_tokens: np.ndarray | None  # (M,) int32; 0 of a request that failed
    n_blocks: np.ndarray | None = None  # (M,) int64
    block_ids: np.ndarray | None = None  # (sum of n_blocks,) int64
    n_failed: int = 0

    def answered(self) -> Part:
        """Without the requests that failed."""
        assert self.output_tokens is not None
        kept = self.output_tokens > 0
        prompt = None if self.prompt_tokens is None else self.prompt_tokens[kept]
        return Part(self.arrival_s[kept], prompt, self.output_tokens[kept], n_failed=self.n_failed)


@dataclass
class CsvReader:
    """Reads rows of CSV under a header that is known."""

    format: FormatName
    separator: str
    width: int
    columns: dict[Role, Column]
    dates: bool
    origin_ns: int | None = None
    block_tokens: int = 0

    @classmethod
    def of_header(cls, lines: Sequence[str], where: str, needed: Sequence[Role]) -> CsvReader:
        """The reader for a header, the first of the lines; RoofcastError where a needed column is missing."""
        found = [(separator, _split(lines[0], separator)) for separator in SEPARATORS]
        separator, header = max(found, key=lambda pair: (len(columns(pair[1])), len(pair[1])))
        its = columns(header)
        missing = [role for role in needed if role not in its]
        if missing:
            names = {"arrival": "arrival_s", "prompt": "prompt_tokens", "output": "output_tokens"}
            listed = " and ".join(names[role] for role in missing)
            unknown = [folded(name) for name in header if folded(name) not in KNOWN]
            hint = next((h for name in unknown if name and (h := did_you_mean(names[missing[0]], [name]))), "")
            many = len(missing) > 1
            what = f"the column{'s' * many} {listed} {'are' if many else 'is'} missing"
            raise RoofcastError(sentence(what, where, f"rename {hint[13:-1]}" if hint else COLUMNS))
        row = _split(lines[1], separator) if len(lines) > 1 else []
        at = its["arrival"].index if "arrival" in its else len(row)
        stamp = row[at] if at < len(row) else ""
        named = csv_format(header, bool(cells.zone(stamp)))
        kept = {role: column for role, column in its.items() if role in needed or role != "arrival"}
        return cls(named, separator, len(header), kept, cells.is_date(stamp))

    def read(self, numbers: Sequence[int], lines: Sequence[str], faults: Faults) -> Part:
        """The rows of these lines; faults are noted."""
        rows = self._columns(numbers, lines, faults)
        if rows is None:
            return Part(np.zeros(len(lines)), None, None)
        prompt, output = (self._lengths(role, rows, numbers, faults) for role in ("prompt", "output"))
        n_failed = 0 if output is None else int(np.count_nonzero(output == 0))
        return Part(self._arrival_s(rows, numbers, faults), prompt, output, n_failed=n_failed)

    def _columns(self, numbers: Sequence[int], lines: Sequence[str], faults: Faults) -> list[Sequence[str]] | None:
        """Cells by column; None where a line has too few or too many."""
        gaps = self.width - 1
        if not any('"' in line for line in lines) and all(line.count(self.separator) == gaps for line in lines):
            flat = self.separator.join(lines).split(self.separator)
            return [flat[index :: self.width] for index in range(self.width)]
        rows = [_split(line, self.separator) for line in lines]
        for number, row in zip(numbers, rows, strict=True):
            if len(row) != self.width:
                what = f"the row has {len(row)} cells, and the header {self.width}"
                faults.add("width", number, what, "it may be cut off" if len(row) < self.width else "")
                return None
        return list(zip(*rows, strict=True))

    def _lengths(
        self, role: Role, rows: Sequence[Sequence[str]], numbers: Sequence[int], faults: Faults
    ) -> np.ndarray | None:
        if role not in self.columns:
            return None
        column = self.columns[role]
        least = 0 if (self.format, role) == ("burstgpt", "output") else 1
        return cells.lengths(rows[column.index], column.name, numbers, faults, least)

    def _arrival_s(self, rows: Sequence[Sequence[str]], numbers: Sequence[int], faults: Faults) -> np.ndarray:
        if "arrival" not in self.columns:
            return np.zeros(len(numbers))
        column = self.columns["arrival"]
        if not self.dates:
            found = rows[column.index]
            found = [cell.replace(",", ".") for cell in found] if self.separator == ";" else found
            return cells.seconds(found, column.name, numbers, faults) * column.factor
        stamps = cells.nanoseconds(rows[column.index], column.name, numbers, faults)
        self.origin_ns = int(stamps[0]) if self.origin_ns is None else self.origin_ns
        return (stamps - self.origin_ns) * NANO


@dataclass
class JsonReader:
    """Reads Mooncake's JSONL: milliseconds, lengths, and the ids of the prompt's blocks of 512 tokens."""

    format: FormatName = "mooncake"
    block_tokens: int = 512
    has_ids: bool | None = None

    def read(self, numbers: Sequence[int], lines: Sequence[str], faults: Faults) -> Part:
        """The rows of these lines; faults are noted."""
        nothing = Part(np.zeros(len(lines)), None, None)
        entries = _objects(numbers, lines, faults)
        if entries is None:
            return nothing
        self.has_ids = "hash_ids" in entries[0] if self.has_ids is None else self.has_ids
        for name in (*FIELDS, "hash_ids") if self.has_ids else FIELDS:
            for number, entry in zip(numbers, entries, strict=True):
                if name not in entry:
                    hint = did_you_mean(name, entry) or f"expected {', '.join(FIELDS)} and hash_ids"
                    faults.add(name, number, f"the field {name} is missing", hint)
                    return nothing
        times, prompts, outputs = ([entry[name] for entry in entries] for name in FIELDS)
        arrival_s = cells.seconds(times, FIELDS[0], numbers, faults) * MILLI
        prompt = cells.lengths(prompts, FIELDS[1], numbers, faults)
        output = cells.lengths(outputs, FIELDS[2], numbers, faults)
        faults.raise_if_any()  # what the ids must be follows from the lengths
        if not self.has_ids:
            return Part(arrival_s, prompt, output)
        return Part(arrival_s, prompt, output, *self._ids(entries, prompt, numbers, faults))

    def _ids(
        self, entries: Sequence[dict[str, Any]], prompt: np.ndarray, numbers: Sequence[int], faults: Faults
    ) -> tuple[np.ndarray, np.ndarray]:
        lists = [entry["hash_ids"] for entry in entries]
        blocks = -(-prompt.astype(np.int64) // self.block_tokens)
        for number, ids, expected in zip(numbers, lists, blocks, strict=True):
            if not isinstance(ids, list) or not set(map(type, ids)) <= {int}:
                faults.add("hash_ids", number, "hash_ids is no list of whole numbers")
            elif len(ids) != expected:
                what = f"hash_ids has {len(ids)} entries, and a prompt of that length {expected} blocks"
                faults.add("hash_ids", number, what, f"a block has {self.block_tokens} tokens")
            elif min(ids) < -(2**63) or max(ids) >= 2**63:
                faults.add("hash_ids", number, "hash_ids are beyond 64 bits", "number the blocks from 0")
            else:
                continue
            return blocks, np.zeros(int(blocks.sum()), np.int64)
        return blocks, np.fromiter(chain.from_iterable(lists), np.int64, int(blocks.sum()))


def _objects(numbers: Sequence[int], lines: Sequence[str], faults: Faults) -> list[dict[str, Any]] | None:
    try:
        found = json.loads(f"[{','.join(lines)}]")
        if len(found) == len(lines) and all(type(entry) is dict for entry in found):
            return found
    except (ValueError, RecursionError):
        pass
    for number, line in zip(numbers, lines, strict=True):
        try:
            if type(json.loads(line)) is not dict:
                faults.add("json", number, "this line is no object", "write one object a line")
        except (ValueError, RecursionError):
            faults.add("json", number, CUT, "fetch the file again, or take only what precedes: first = N")
    return None


def _split(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator)) if '"' in line else line.split(separator)
    except (csv.Error, StopIteration):
        return []
