"""What is wrong with a TOML file, in sentences: `x.toml: workload.prompt_token: unknown key (line 7); hint: ...`."""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from sim.errors import RoofcastError, clipped, did_you_mean, sentence, shown
from sim.files import near_file, open_input

MAX_FILE_BYTES = 1_000_000
EXPECTED = {
    "missing": "required key is missing",
    "extra_forbidden": "unknown key",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "string_type": "expected text in quotes",
    "tuple_type": "expected a list",
    "model_type": "expected a table",
    "too_short": "expected at least one entry",
    "too_long": "expected fewer entries",
    "finite_number": "expected a finite number",
    "greater_than": "expected more than {gt:.13g}",
    "greater_than_equal": "expected at least {ge:.13g}",
    "less_than": "expected less than {lt:.13g}",
    "less_than_equal": "expected at most {le:.13g}",
    "literal_error": "expected {expected}",
    "string_too_long": "expected at most {max_length} characters",
    "value_error": "{error}",
}
MARKS = {  # kind of a file: the key that only it has, and what takes it
    "scenario": ("deployment", "a scenario", "take roofcast run, or with [traffic] simulate or capacity"),
    "sweep": ("axes", "a sweep", "take roofcast sweep"),
}
WITHOUT_VALUE = ("missing", "extra_forbidden", "too_short", "too_long", "value_error")

Place = tuple[str | int, ...]
Tables = Mapping[str, type[BaseModel]]
Source = str | os.PathLike[str] | Mapping[str, Any]  # a TOML file, or its tables


def contradict(problems: dict[str, str]) -> None:
    """Raise, in a validator, what a table's keys say against each other: key -> sentence."""
    if problems:
        raise PydanticCustomError("contradiction", "contradiction", {"problems": problems})


def read_tables(source: Source, tables: Tables, kind: str) -> tuple[dict[str, Any], Problems]:
    """Those of a TOML file, as `read_toml`, or of a mapping of its tables, whose problems are placed in `kind`."""
    if isinstance(source, Mapping):
        raw = {str(key): _plain(value) for key, value in source.items()}
        problems = Problems(kind, "", raw, tables)
    else:
        raw, problems = read_toml(source, tables)
    own = MARKS[kind][0]
    for key, what, hint in MARKS.values():
        if key in raw and own not in raw:
            problems.add((key,), f"this is of {what}", hint)
            problems.raise_if_any()
    return raw, problems


def _plain(value: Any) -> Any:
    """What a caller gives in place of TOML's values: arrays, ranges and tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return [_plain(item) for item in value] if isinstance(value, list | tuple | range) else value


def read_toml(path: str | os.PathLike[str], tables: Tables) -> tuple[dict[str, Any], Problems]:
    """The parsed file and an empty list of its problems. `tables`: name of a table -> its model, "" for the root."""
    text = _read_text(path)
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RoofcastError(sentence(f"not valid TOML: {error}", str(path))) from None
    return raw, Problems(str(path), text, raw, tables)


def _read_text(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, str | os.PathLike) or not str(path).strip():
        raise RoofcastError(sentence(f"expected the name of a TOML file, found {shown(path)}"))
    where = str(path)
    try:
        with open_input(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise RoofcastError(sentence("no such file", where, near_file(Path(path), "*.toml"))) from None
    except IsADirectoryError:
        raise RoofcastError(sentence("is a directory, expected a TOML file", where, "name a file in it")) from None
    except OSError as error:
        raise RoofcastError(sentence(f"cannot be read: {error.strerror}", clipped(where))) from None
    except ValueError as error:
        raise RoofcastError(sentence(f"is not the name of a file: {error}", ascii(where))) from None
    if len(content) > MAX_FILE_BYTES:
        raise RoofcastError(sentence(f"expected a TOML file of at most {MAX_FILE_BYTES} bytes", where))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RoofcastError(sentence("expected a TOML file, but this is not UTF-8 text", where)) from None


class Problems:
    """Collects the problems of one TOML file, each with its place, line and hint."""

    def __init__(self, where: str, text: str, raw: dict[str, Any], tables: Tables):
        self.found: list[str] = []
        self._where, self._raw, self._tables = where, raw, tables
        self._lines = _lines(text)

    def add(self, place: Place, what: str, hint: str = "") -> None:
        """Note a problem at a place such as ("deployment", 0, "tp")."""
        place = self._own_place(place)
        line = self._line(place)
        where = f"{self._where}: {self._name(place)}" if place else self._where
        self.found.append(sentence(f"{what} (line {line})" if line else what, where, hint))

    def add_invalid(self, error: Mapping[str, Any]) -> None:
        """Note one entry of a pydantic ValidationError."""
        place, kind, context = self._of_file(error["loc"]), error["type"], error.get("ctx", {})
        if kind == "contradiction":
            for key, what in context["problems"].items():
                self.add((*place, key), what)
            return
        if kind == "too_short" and error["input"]:
            return  # pydantic counts only valid entries, and the others are reported themselves
        if place[-1:] == ("[key]",):
            known = _words(context)
            hint = did_you_mean(str(place[-2]), known) or f"known are {', '.join(known)}"
            self.add(place[:-1], EXPECTED["extra_forbidden"], hint)
            return
        what, hint = EXPECTED.get(kind, error["msg"]).format(**context), self._hint(place, kind)
        if kind == "literal_error":
            what, hint = what.replace("'", '"'), did_you_mean(str(error["input"]), _words(context))
        if kind not in WITHOUT_VALUE:
            what += f", got {_shown(error['input'])}"
        self.add(place, what, hint)

    def add_unknown(self, place: Place, look_up: Callable[[str], object], name: str) -> None:
        """Note what `look_up` says against `name`, if anything."""
        try:
            look_up(name)
        except RoofcastError as error:
            for problem in error.problems:
                what, _, hint = problem.partition("; hint: ")
                self.add(place, what.removeprefix(f"{place[-1]}: "), hint)

    def raise_if_any(self) -> None:
        """Raise all problems noted so far, each once."""
        if self.found:
            raise RoofcastError(*dict.fromkeys(self.found))

    def _hint(self, place: Place, kind: str) -> str:
        if kind == "extra_forbidden":
            return self._known_keys(place)
        if len(place) == 1 and str(place[0]) in self._tables and kind in ("missing", "tuple_type"):
            root = {field.alias or name: field for name, field in self._tables[""].model_fields.items()}
            listed = get_origin(root[str(place[0])].annotation) is tuple
            return f"write [[{place[0]}]]" if listed else f"write [{place[0]}]"
        return ""

    def _known_keys(self, place: Place) -> str:
        names = [str(part) for part in place if isinstance(part, str)]
        table = self._tables.get(".".join(names[:-1])) or self._tables.get(names[0] if len(names) > 1 else "")
        if table is None:
            return ""
        fields = [field.alias or name for name, field in table.model_fields.items()]
        if len(names) == 1:
            fields += [name for name in self._tables if name and "." not in name and name not in fields]
        return did_you_mean(names[-1], fields) or "known keys are " + ", ".join(fields)

    def _entry(self, place: Place) -> dict[str, Any]:
        """The table of a list of tables that a place is in, as the file has it."""
        index = place[1] if len(place) > 1 else None
        entries = self._raw.get(str(place[0]))
        entry = entries[index] if isinstance(entries, list) and isinstance(index, int) else None
        return entry if isinstance(entry, dict) else {}

    def _of_file(self, place: Place) -> Place:
        """Without the index of a list that the file has as a single value: `users = 0` is no list of levels."""
        value: Any = self._raw
        for i, part in enumerate(place):
            if isinstance(part, int) and not isinstance(value, list):
                return place[:i]
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return place
        return place

    def _own_place(self, place: Place) -> Place:
        """Where the file itself has the key of an entry: `defaults`, if only that has it."""
        defaults = self._raw.get("defaults")
        if len(place) < 3 or not isinstance(place[1], int) or not isinstance(defaults, dict):
            return place
        return ("defaults", *place[2:]) if place[2] in defaults and place[2] not in self._entry(place) else place

    def _name(self, place: Place) -> str:
        """`workload.users`, `workload.concurrency[2]`, `deployment "RTX 4090".tp`, `deployment 2.tp`."""
        name = clipped(str(place[0]))
        for i, part in enumerate(place[1:], start=1):
            label = self._entry(place).get("label") if i == 1 else None
            if isinstance(part, str):
                name += f".{clipped(part)}"
            elif i > 1 or place[0] not in self._tables:
                name += f"[{part + 1}]"
            else:
                name += f' "{label}"' if isinstance(label, str) and label.isprintable() else f" {part + 1}"
        return name

    def _line(self, place: Place) -> int | None:
        """Line of a key, else of the header of its table."""
        if len(place) == 1:
            return self._lines.get(("", 0, str(place[0])), self._lines.get((str(place[0]), 0, "")))
        keys = [part for part in place if isinstance(part, str)]
        index = place[1] if len(place) > 1 and isinstance(place[1], int) else 0
        table = keys[0] if keys else ""
        header = self._lines.get((table, index, ""))
        if len(keys) > 2 and (line := self._lines.get((f"{table}.{keys[1]}", 0, keys[2]))):
            return line
        return self._lines.get((table, index, keys[1]), header) if len(keys) > 1 else header


def _lines(text: str) -> dict[tuple[str, int, str], int]:
    """(table, entry, key) -> line, for keys written one a line and for [table.key]; key "" is the table's header."""
    lines: dict[tuple[str, int, str], int] = {}
    seen: Counter[str] = Counter()
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\[?\s*([\w-]+)(?:\.([\w-]+))?\s*\]", line):
            table = header[1]
            seen[table] += header[2] is None
            lines.setdefault((table, max(seen[table] - 1, 0), header[2] or ""), number)
            table += f".{header[2]}" if header[2] else ""
        elif key := re.match(r'\s*"?([\w-]+)"?\s*=', line):
            lines.setdefault((table, max(seen[table] - 1, 0), key[1]), number)
    return lines


def _words(context: Mapping[str, Any]) -> list[str]:
    """The words that pydantic lists as expected."""
    return str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")


def _shown(value: Any) -> str:
    """A value as a person wrote it, cut to 40 characters."""
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text if text.isprintable() else ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."
