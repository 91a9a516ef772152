"""The tables of a sweep's configurations: what varies among the rows in columns, what does not on a line above them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sim.report.table import Column
from sim.report.verdict import layout_line

if TYPE_CHECKING:
    from sim.sweeps.spec import Spec

HEADINGS = {
    "usd_per_mtok": "$/Mtok", "usd_per_hour": "$/h", "tpot_s": "TPOT", "ttft_s": "TTFT", "e2e_s": "E2E",
    "joules_per_token": "J/token", "power_w": "power", "n_devices": "devices",
    "user_tokens_per_s": "tok/s/user", "output_tokens_per_s": "tok/s",
}  # fmt: skip
AXIS_WORDS = {
    "model": "model", "weights": "weights", "kv": "KV", "hardware": "hardware", "gpus": "GPUs", "engine": "engine",
    "tp": "TP", "pp": "PP", "ep": "EP", "dp": "DP", "prompt_tokens": "prompt tokens", "output_tokens": "output tokens",
    "context_tokens": "context tokens", "concurrency": "concurrent users", "usd_per_gpu_hour": "USD per GPU-hour",
    "usd_factor": "price factor",
}  # fmt: skip
MOST_ROWS = 40
ONE_DEVICE = "1 device"
_BARE = ("usd_per_mtok", "usd_per_hour", "joules_per_token", "user_tokens_per_s", "output_tokens_per_s")
_LAYOUT = ("gpus", "tp", "pp", "ep", "dp", "replicas")  # that the layout tells together
SETTING = (
    "model", "hardware", "layout", "engine", "weights", "kv", "max_num_batched_tokens", "max_num_seqs",
    "gpu_memory_utilization", "prompt_tokens", "output_tokens", "context_tokens", "concurrency", "usd_per_gpu_hour",
    "usd_factor",
)  # fmt: skip
_BELOW = {"layout": "hardware", "engine": "hardware", "kv": "weights"}  # on a second line of that column
_SHORT = {
    "concurrency": "users", "max_num_batched_tokens": "batched\ntokens", "max_num_seqs": "most\nseqs",
    "gpu_memory_utilization": "memory\nshare", "usd_per_gpu_hour": "$ per\nGPU-h",
}  # fmt: skip
_WAITING = (
    "*: the KV cache holds fewer sequences of the whole context than there are users; where all grow so long, some wait"
)


@dataclass(frozen=True)
class Drawn:
    """A column as it is printed."""

    heading: str
    cells: list[str]
    is_text: bool = False


def column_of(axis: str) -> str:
    """The column of a sweep's tables that has the values of an axis, or an objective."""
    return {"gpus": "n_gpus", "n_devices": "n_gpus"}.get(axis, axis)


def same_everywhere(spec: Spec) -> str:
    """`All: 1,000 prompt tokens, 300 output tokens`: the axes of one value."""
    single = {name: values[0] for name, values in spec.axes.items() if len(values) == 1}
    known = {name: value for name, value in single.items() if value is not None and (name, value) != ("usd_factor", 1)}
    return "All: " + ", ".join(phrase(name, _told(name, value)) for name, value in known.items())


def phrase(axis: str, text: str) -> str:
    """`64 concurrent users`, `weights fp8`: a value with the name of its axis."""
    words = AXIS_WORDS.get(axis, axis)
    if words.endswith((" tokens", " users")):
        return f"{text} {words.removesuffix('s') if text == '1' else words}"
    return text if axis == "layout" else f"KV {text} bit" if axis == "kv" else f"{words} {text}"


def rows_table(rows: Sequence[Mapping[str, Any]], spec: Spec, title: str, first: str) -> RenderableType:
    """Configurations: the axes of `by`, what else varies among the rows, then the figures, `first` before the others.

    Every axis that has several values is a column, or on the line above where all rows have the same.
    """
    shown = rows[:MOST_ROWS]
    columns, same = setting(shown, _axes(spec), spec.by)
    laid = any(len(spec.axes[name]) > 1 for name in _LAYOUT)
    same = [text for text in same if laid or text != ONE_DEVICE]
    waits = [(row.get("max_sequences") or row["concurrency"]) < row["concurrency"] for row in shown]
    parts = [titled(title, same, [*columns, *_figures(shown, spec, first, waits)])]
    parts += [Text(_WAITING)] if any(waits) else []
    more = len(rows) - len(shown)
    return Group(*parts, *([Text(f"and {more:,} more: --format csv has all")] if more > 0 else []))


def setting(
    rows: Sequence[Mapping[str, Any]], axes: Sequence[str], by: Sequence[str] = ()
) -> tuple[list[Drawn], list[str]]:
    """(columns of the axes that vary among the rows, what all rows share in words); "layout" tells its axes together.

    by: axes that have columns of their own where others stand on the second line of one.
    """
    told = {name: [_value(name, row) for row in rows] for name in axes}
    varying = {name: values for name, values in told.items() if len(set(values)) > 1}
    below = {name: _BELOW[name] for name in varying if _BELOW.get(name) in varying and name not in by}
    columns = [_column(name, varying, [one for one in below if below[one] == name])
               for name in varying if name not in below]  # fmt: skip
    return columns, [phrase(name, values[0]) for name, values in told.items() if values and name not in varying]


def titled(title: str, same: Sequence[str], columns: Sequence[Drawn]) -> RenderableType:
    """A title, what all rows share, and the table. In a narrow terminal names are folded, numbers never."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            column.heading, justify="left" if column.is_text else "right", header_style="bold", overflow="fold",
            no_wrap=not column.is_text,
        )  # fmt: skip
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    return Group(Text(title, style="bold"), *([Text(f"all: {', '.join(same)}")] if same else []), table)


def _axes(spec: Spec) -> list[str]:
    """What tells rows apart, those of `by` first; without axes of one value, and the room that is prompt + output."""
    open_ones = ("engine", "kv", "hardware", "model", "weights", *_LAYOUT)  # filled in where they are not stated
    told = {name for name, values in spec.axes.items() if len(values) > 1 or (values[0] is None and name in open_ones)}
    names = dict.fromkeys([*spec.by, *SETTING])
    return [name for name in names if name in told or name == "layout"]


def _value(name: str, row: Mapping[str, Any]) -> str:
    if name == "layout":
        return layout_line(row).strip() or ONE_DEVICE
    return _told(name, row.get(column_of(name), row.get(name)))


def _told(name: str, value: Any) -> str:
    """A value as it is read; None is what stands in for it."""
    if value is None:
        return "listed" if name == "usd_per_gpu_hour" else "default"
    return value if isinstance(value, str) else f"{value:,.10g}"


def _column(name: str, varying: Mapping[str, list[str]], below: Sequence[str]) -> Drawn:
    """A column, with what stands on the second line of its cells."""
    cells = list(varying[name])
    for i, cell in enumerate(cells):
        texts = [phrase(one, varying[one][i]) if one == "kv" else varying[one][i] for one in below]
        cells[i] = "\n".join(filter(None, [cell, ", ".join(text for text in texts if text != ONE_DEVICE)]))
    head = _SHORT.get(name) or AXIS_WORDS.get(name, name).replace(" ", "\n")
    second = ", ".join(AXIS_WORDS.get(one, one) for one in below)
    is_text = name in ("model", "hardware", "layout", "engine", "weights")
    return Drawn("\n".join(filter(None, [head, second])), cells, is_text)


def _figures(rows: Sequence[Mapping[str, Any]], spec: Spec, first: str, waits: Sequence[bool]) -> list[Drawn]:
    """The objectives, what is limited, and the usual; TTFT has a mark where users wait for the KV cache."""
    goals = dict.fromkeys((first, *spec.minimize, *spec.limits, "ttft_s", "tpot_s", "usd_per_mtok"))
    found = []
    for name in goals:
        column = Column(column_of(name), HEADINGS.get(name, name).replace("/user", "\n/user"), name in _BARE)
        if rows and column.name in rows[0]:
            marks = [" *"[wait] for wait in waits] if name == "ttft_s" and any(waits) else [""] * len(rows)
            cells = [column.cell(row[column.name]) + mark for row, mark in zip(rows, marks, strict=True)]
            found.append(Drawn(column.heading, cells))
    return found
