"""Writes a profile as the TOML file that `sim.profiles.load` reads."""

from __future__ import annotations

import os
from typing import Any

from sim.files import write_whole
from sim.profiles.rows import LEVELS, Profile, Shift, level_of
from sim.toml_text import key, value

HEADING = "# roofcast profile: shifts of the catalogue's efficiencies and fixed times, each [shift, standard deviation]"


def write(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write the file whole or not at all; equal profiles give equal bytes."""
    write_whole(path, to_toml(profile))


def to_toml(profile: Profile) -> str:
    """The file's text: tables in one order, shifts by level and name, floats with four significant digits."""
    lines = [HEADING, *_pairs({name: getattr(profile, name) for name in ("name", "created", "roofcast", "base")})]
    lines += [line for name in ("data", "error") for row in getattr(profile, name) for line in _table(name, row)]
    lines += ["", "[prior_sd]", *_pairs(profile.prior_sd.model_dump())]
    for quantity, interval in sorted(profile.interval.items()):
        lines += ["", f"[interval.{quantity}]", *_pairs(interval.model_dump())]
    for count in sorted(profile.evidence, key=lambda row: (row.engine, row.device)):
        lines += _table("evidence", count)
    for shift in sorted(profile.shift, key=_order):
        lines += _table("shift", shift)
    return "\n".join(lines) + "\n"


def _order(row: Shift) -> tuple[int, tuple[str, str, str]]:
    level = level_of(*row.place)
    return LEVELS.index(level) if level else len(LEVELS), row.place


def _table(name: str, row: Any) -> list[str]:
    kept = {field: of for field, of in row.model_dump(exclude_none=True).items() if of != {}}
    return ["", f"[[{name}]]", *_pairs(kept)]


def _pairs(fields: dict[str, Any]) -> list[str]:
    return [f"{key(name)} = {value(_short(of))}" for name, of in fields.items()]


def _short(of: Any) -> Any:
    """Floats to four significant digits, tables within by name."""
    if isinstance(of, float):
        return float(f"{of:.4g}") + 0.0
    if isinstance(of, dict):
        return {name: _short(of[name]) for name in sorted(of)}
    return [_short(entry) for entry in of] if isinstance(of, tuple) else of
