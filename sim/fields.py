"""The kinds of value that the tables of a scenario file hold, and what is common to the tables."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sim.bounds import LEAST_S, LEAST_USD, MOST_USD
from sim.durations import seconds
from sim.errors import clipped


def _seconds(value: Any) -> Any:
    """Seconds of a number, or of text such as "200ms"."""
    if not isinstance(value, str):
        return value
    found = seconds(value)
    if found is None:
        raise ValueError(f'expected seconds, such as 2, "200ms", "2s" or "1h", got "{clipped(value)}"')
    return found


def listed(value: Any) -> Any:
    """A single value as a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def _printable(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("expected one line of text that is not empty")
    return value


Count = Annotated[int, Field(gt=0, le=10**9)]
Usd = Annotated[float, Field(ge=LEAST_USD, le=MOST_USD)]
Pause = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=1e9)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=LEAST_S, le=1e9)]
Text = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Label = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
Names = Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]
Levels = Annotated[
    tuple[Count, ...],
    BeforeValidator(listed),
    Field(min_length=1, max_length=1000, strict=False),
]


class Table(BaseModel):
    """A table of a scenario file: frozen, no unknown keys, no guessing of types, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
