"""Which columns of a trace hold what, and in which published format that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sim.units import SECONDS

FormatName = Literal["azure-2023", "azure-2024", "burstgpt", "mooncake", "sharegpt", "csv"]
Role = Literal["arrival", "prompt", "output"]

_TIMES = ("arrival", "arrival_time", "arrived_at", "timestamp", "time", "request_time", "start_time")
_ARRIVAL = {f"{time}_{unit}": factor for unit, factor in SECONDS.items() for time in _TIMES}
ALIASES: dict[Role, tuple[str, ...]] = {
    "arrival": (*_ARRIVAL, *_TIMES),
    "prompt": ("prompt_tokens", "input_tokens", "input_toks", "contexttokens", "request_tokens", "input_length",
               "prompt_length", "num_prefill_tokens", "prompt_len", "input_len"),
    "output": ("output_tokens", "completion_tokens", "output_toks", "generatedtokens", "response_tokens",
               "output_length", "num_decode_tokens", "generated_tokens", "output_len"),
}  # fmt: skip
KNOWN = tuple(name for names in ALIASES.values() for name in names)
NAMES: dict[FormatName, str] = {
    "azure-2023": "Azure LLM inference trace 2023",
    "azure-2024": "Azure LLM inference trace 2024",
    "burstgpt": "BurstGPT",
    "mooncake": "Mooncake",
    "sharegpt": "ShareGPT lengths",
    "csv": "CSV",
}
_HEADERS: dict[FormatName, frozenset[str]] = {
    "azure-2023": frozenset({"timestamp", "contexttokens", "generatedtokens"}),
    "burstgpt": frozenset({"timestamp", "request_tokens", "response_tokens"}),
    "sharegpt": frozenset({"arrival_time_ns", "input_toks", "output_toks"}),
}


@dataclass(frozen=True)
class Column:
    """A column of a trace: its place in a row, its name there, and seconds of its unit where it is a time."""

    index: int
    name: str
    factor: float = 1.0


def folded(name: str) -> str:
    """A column's name as formats compare it."""
    return name.strip().strip('"').strip().lower().replace(" ", "_")


def columns(header: Sequence[str]) -> dict[Role, Column]:
    """The columns that a header has, of several the first in the order of the aliases."""
    names = [folded(name) for name in header]
    found: dict[Role, Column] = {}
    for role, aliases in ALIASES.items():
        for alias in aliases:
            if alias in names and role not in found:
                index = names.index(alias)
                found[role] = Column(index, header[index].strip(), _ARRIVAL.get(alias, 1.0))
    return found


def csv_format(header: Sequence[str], has_zone: bool) -> FormatName:
    """The format of a CSV file with these columns; `has_zone` tells Azure's 2024 timestamps from those of 2023."""
    names = {folded(name) for name in header}
    name: FormatName = next((name for name, its in _HEADERS.items() if its <= names), "csv")
    return "azure-2024" if name == "azure-2023" and has_zone else name
