"""JSON objects out of a file: one value, a list, or an object a line; of what is cut off, as much as is whole."""

from __future__ import annotations

import json
import re
from typing import Any

from sim.errors import sentence
from sim.measure.rows import place

_BLANK = re.compile(r"[\s,]*")
MOST_SHOWN = 200  # characters of a cell; longer lists of samples are left out


def objects(text: str, where: str) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, str]]]:
    """((place, object) of every object, (line, sentence) of everything that is none).

    The place of an entry of a list is its index from 1; of JSONL, and of a single object, its line.
    """
    listed = text.lstrip().startswith("[")
    at = text.find("[") + 1 if listed else 0
    decoder = json.JSONDecoder()
    found: list[tuple[int, dict[str, Any]]] = []
    problems: list[tuple[int, str]] = []
    while (at := _BLANK.match(text, at).end()) < len(text):  # type: ignore[union-attr]
        line = text.count("\n", 0, at) + 1
        if listed and text[at] == "]":
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            following = text.find("\n{", at)
            problems.append((line, _what(error, where, line, cut=following < 0)))
            if following < 0 or listed:
                break
            at = following + 1
            continue
        at = end
        if isinstance(value, dict):
            found.append((len(found) + 1 if listed else line, value))
        else:
            what = f"expected an object, found {type(value).__name__}"
            problems.append((line, sentence(what, place(where, line))))
    return found, problems


def _what(error: Exception, where: str, line: int, cut: bool) -> str:
    """JSON that breaks off, or a line that is no JSON."""
    at = line + getattr(error, "lineno", line) - line
    told = getattr(error, "msg", "nested too deep")
    what = f"the JSON is cut off or damaged ({told[:1].lower()}{told[1:]})" if cut else "this line is no JSON"
    return sentence(what, place(where, at), "write it again; what is whole is used")


def cells_of(entry: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """The object's own cells as text: numbers, words and truth values, nested ones under dotted names."""
    found: dict[str, str] = {}
    for name, value in entry.items():
        if isinstance(value, dict):
            found |= cells_of(value, f"{prefix}{name}.")
        elif not isinstance(value, list) and value is not None and len(text := _text(value)) <= MOST_SHOWN:
            found[prefix + name] = text
    return found


def _text(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except ValueError:
        return ""
