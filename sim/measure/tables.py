"""Rows of text: CSV with any of three separators, and Markdown tables amid other lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from sim.measure import cells

SEPARATORS = (",", ";", "\t")
MOST_LINES = 20  # that a quoted cell may span


def csv_records(lines: Sequence[str], start: int, separator: str) -> Iterator[tuple[int, list[str] | None]]:
    """(line, cells) of every record from line `start` on; None where a quote is opened and never closed.

    Such a record ends with its line, so that those below are not swallowed.
    """
    at = start - 1
    while at < len(lines):
        first, text = at, lines[at]
        while text.count('"') % 2 and at + 1 < len(lines) and at - first < MOST_LINES:
            at += 1
            text += "\n" + lines[at]
        if text.count('"') % 2:
            at, text = first, lines[first]
            yield first + 1, None
        elif text.strip():
            yield first + 1, _cells(text, separator)
        at += 1


def markdown_tables(lines: Sequence[str]) -> Iterator[tuple[int, list[str], list[tuple[int, list[str]]]]]:
    """(line, header, rows with their lines) of every Markdown table: a row, a rule below it, and rows."""
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate([*lines, ""], 1):
        if line.lstrip("> ").startswith("|"):
            rows.append((number, [cell.strip() for cell in line.strip(" >").strip("|").split("|")]))
            continue
        if len(rows) > 1 and all(set(cell) <= set("-: ") for cell in rows[1][1]):
            yield rows[0][0], rows[0][1], rows[2:]
        rows = []


def best_separator(header: str, known: frozenset[str]) -> tuple[str, list[str]]:
    """(separator, names) that make most known column names of a header line."""
    found = [(s, [name.strip().lower() for name in _cells(header, s) or []]) for s in SEPARATORS]
    return max(found, key=lambda pair: len(known & set(pair[1])))


def _cells(text: str, separator: str) -> list[str] | None:
    try:
        found = next(csv.reader([text], delimiter=separator), [])
    except csv.Error:
        return None
    return cells.decimal_commas(found) if separator == ";" else found
