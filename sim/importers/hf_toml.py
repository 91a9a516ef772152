"""Writes a model row as the TOML that the catalogue reads."""

from __future__ import annotations

from sim.schema import ModelRow
from sim.toml_text import key, value

_TABLES = ("attention", "ffn")


def to_toml(row: ModelRow) -> str:
    """A `[[model]]` table that reads back equal to `row`; fields at their default are left out."""
    values = row.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    lines = ["[[model]]"]
    for name, of in values.items():
        if name == "layers":
            lines += ["layers = [", *(f"  {value(run)}," for run in of), "]"]
        elif name not in _TABLES:
            lines.append(f"{name} = {value(of)}")
    for table in _TABLES:
        for name, kind in values[table].items():
            lines += ["", f"[model.{table}.{key(name)}]", *(f"{field} = {value(kind[field])}" for field in kind)]
    return "\n".join(lines) + "\n"
