"""What each verb found, laid out for reading: the memory of a deployment, its speed, and why what fails does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from sim import errors
from sim.report.number import ABSENT, bare, show
from sim.report.table import SETTING, SPEED, Column, grid, pairs, varying
from sim.results import Result

_MEMORY = (
    ("weights_bytes", "weights"),
    ("kv_bytes", "KV cache"),
    ("state_bytes", "recurrent state"),
    ("host_bytes", "weights in host memory"),
    ("activation_bytes", "activations"),
    ("reserve_bytes", "reserved by the engine"),
    ("usable_bytes", "usable, of which all the above"),
    ("free_bytes", "left"),
    ("max_sequences", "most sequences that fit"),
    ("max_context_tokens", "longest context at that concurrency"),
)
_ONLY_IF_USED = ("state_bytes", "host_bytes")
_FITS = (
    Column("weights", "format"),
    Column("engine", "engine"),
    Column("bits_per_weight", "bits"),
    Column("weights_bytes", "weights"),
    Column("kv_bytes", "KV cache"),
    Column("needed_bytes", "needed"),
    Column("usable_bytes", "usable"),
    Column("free_bytes", "left"),
    Column("max_context_tokens", "longest\ncontext", unit_in_heading=True),
    Column("max_sequences", "most se-\nquences"),
)
_INTERVALS = (
    ("ttft_low_s", "ttft_high_s", "TTFT"),
    ("tpot_low_s", "tpot_high_s", "TPOT"),
    ("e2e_low_s", "e2e_high_s", "E2E"),
    ("user_low_tokens_per_s", "user_high_tokens_per_s", "tok/s/user"),
    ("output_low_tokens_per_s", "output_high_tokens_per_s", "tok/s"),
)
_RANKING = (
    Column("model", "model"),
    Column("hardware", "hardware"),
    Column("engine", "engine"),
    Column("weights", "weights"),
    Column("ttft_s", "TTFT"),
    Column("tpot_s", "TPOT"),
    Column("usd_per_hour", "$/h", unit_in_heading=True),
    Column("usd_per_mtok", "$/Mtok", unit_in_heading=True),
)
_SUMMARY = (
    Column("label", "deployment"),
    Column("max_concurrency", "most users"),
    Column("ttft_s", "TTFT"),
    Column("tpot_s", "TPOT"),
    Column("output_tokens_per_s", "tok/s", unit_in_heading=True),
    Column("usd_per_hour", "$/h", unit_in_heading=True),
    Column("usd_per_mtok", "$/Mtok", unit_in_heading=True),
)
_GUIDE = tuple(Column(name, name) for name in ("line", "claim", "claimed", "computed", "verdict", "condition"))


def estimate_view(result: Result, title: str) -> RenderableType:
    """Memory per GPU, verdict, a row of speed and cost per load, and why what fails does."""
    span = ", from the first load to the last" if result["fits"].size > 1 else ""
    heading = Text(f"\nMemory per GPU (fullest one){span}")
    memory = Group(Text(title, style="bold"), heading, pairs(memory_lines(result)))
    loads = [Text(""), load_table(result)] if result["fits"].any() else []
    return Group(memory, verdict_line(result), *loads, *why_lines(result))


def memory_lines(result: Result) -> list[tuple[str, str]]:
    """Each share of the memory with its size, from that of the first load to that of the last where they differ."""
    first, last = result.rows()[0], result.rows()[-1]
    shown = [(name, label) for name, label in _MEMORY if name in result and not _idle(result, name)]
    return [
        (label, " to ".join(dict.fromkeys(show(name, row[name]) for row in (first, last)))) for name, label in shown
    ]


def _idle(result: Result, name: str) -> bool:
    return name in _ONLY_IF_USED and not np.nan_to_num(result[name]).any()


def verdict_line(result: Result) -> Text:
    """`fits`, or how many of the loads do."""
    fitting, total = int(result["fits"].sum()), result["fits"].size
    if fitting == total:
        return Text("Verdict: fits", style="green")
    text = "does not fit" if fitting == 0 else f"fits for {fitting} of {total} rows"
    return Text(f"Verdict: {text}", style="red" if fitting == 0 else "yellow")


def load_table(result: Result, title: str = "") -> RenderableType:
    """One row per load: what varies, then TTFT, TPOT, tokens/s, bound, $/Mtok and J/token; then their intervals."""
    loads = [column for column in varying(result, SETTING) if not _implied(result, column.name)]
    loads.append(Column("concurrency", "concur-\nrency"))
    columns = list(loads)
    if "running_sequences" in result and (result["running_sequences"] < result["concurrency"]).any():
        columns.append(Column("running_sequences", "running"))
    columns += [column for column in SPEED if column.name in result]
    rows = [row if row["fits"] else row | {"bound": "does not fit"} for row in result.rows()]
    table = grid(columns, rows, title)
    return Group(table, interval_table(result, loads)) if "interval" in result.details else table


def interval_table(result: Result, loads: Sequence[Column]) -> RenderableType:
    """One row per load: from where to where the share of measurements lies that was asked for."""
    bounded = [(low, high, heading) for low, high, heading in _INTERVALS if low in result]
    columns = [Column(heading, heading) for _, _, heading in bounded]
    rows = [row | {heading: span(low, row[low], row[high]) for low, high, heading in bounded} for row in result.rows()]
    return grid([*loads, *columns], rows, f"\n{100 * result.details['interval']:g} % interval")


def span(name: str, low: float | None, high: float | None) -> str:
    """`9.8 to 12.9 ms`; with both units where they differ, and none where the heading has it."""
    if low is None or high is None:
        return ABSENT
    cell = bare if name.endswith("tokens_per_s") else show
    first, last = cell(name, low), cell(name, high)
    number, _, unit = first.rpartition(" ")
    return f"{number if last.endswith(f' {unit}') else first} to {last}"


def _implied(result: Result, name: str) -> bool:
    """Whether a column says nothing new: a context that is everywhere prompt + output."""
    lengths = ("prompt_tokens", "output_tokens", "context_tokens")
    if name != lengths[-1] or not all(length in result for length in lengths):
        return False
    return bool(np.all(result["prompt_tokens"] + result["output_tokens"] == result["context_tokens"]))


def why_lines(result: Result) -> Iterable[Text]:
    """A sentence and a remedy for each different reason why a row fails, or may be wrong."""
    bits = [int(row["why"]) for row in result.rows() if row.get("why")]
    for sentence in dict.fromkeys(text for bit in dict.fromkeys(bits) for text in errors.why_sentences(bit)):
        yield Text(f"- {sentence}")


def fits_view(result: Result, title: str) -> RenderableType:
    """The memory verdict of each precision, then the nearest thing that fits for each that does not."""
    columns = [column for column in _FITS if column.name in result] + [Column("fits", "fits")]
    rows = result.rows()
    lines = [Text(f"{row['weights']}: {_sentence(row)}") for row in rows if _sentence(row)]
    return Group(Text(title, style="bold"), grid(columns, rows), *([Text("")] if lines else []), *lines)


def recommend_view(result: Result, title: str) -> RenderableType:
    """Deployments ranked by cost, then how many were rejected and why."""
    rejected: dict[str, int] = result.details["rejected"]
    lines = [Text(f"- {number:,} rejected: {reason}") for reason, number in rejected.items()]
    if not result.rows():
        return Group(Text(f"{title}: nothing keeps to the limits", style="red"), *lines)
    rows = [row | {"hardware": f"{row['hardware']}{layout_line(row)}"} for row in result.rows()]
    shown = [column for column in _RANKING if column.name in result]
    spans = [interval_table(result, _RANKING[:2])] if "interval" in result.details else []
    return Group(Text(title, style="bold"), grid(shown, rows), *spans, Text(""), *lines)


def scenario_view(name: str, results: Mapping[str, Result], summary: Result) -> RenderableType:
    """One row per deployment at the highest load that keeps to the objectives, then the loads of each."""
    loads = [Group(load_table(result, f"\n{label}"), *why_lines(result)) for label, result in results.items()]
    verdicts = [Text(f"{row['label']}: {row['verdict']}") for row in summary.rows()]
    return Group(Text(name, style="bold"), grid(_SUMMARY, summary.rows()), Text(""), *verdicts, *loads)


def guide_view(result: Result) -> RenderableType:
    """A table of claims per section, then how many got each verdict."""
    rows = result.rows()
    sections = dict.fromkeys(row["section"] for row in rows)
    tables = [grid(_GUIDE, [row for row in rows if row["section"] == name], f"\n{name}") for name in sections]
    verdicts = [row["verdict"] for row in rows]
    counted = [Text(f"- {verdicts.count(verdict):,} {verdict}") for verdict in dict.fromkeys(verdicts)]
    return Group(*tables, Text(f"\n{len(rows):,} claims:"), *counted)


def layout_line(row: Mapping[str, Any]) -> str:
    """`6 x TP8 EP8` on a line of its own: so many replicas of so many devices; empty where there is but one device."""
    one = " ".join(f"{name.upper()}{row[name]}" for name in ("tp", "pp", "dp", "ep") if row.get(name, 1) > 1)
    replicas = row.get("replicas", 1)
    layout = f"{replicas} x {one or '1 device'}" if replicas > 1 else one
    return f"\n{layout}" if layout else ""


def _sentence(row: dict[str, Any]) -> str:
    parts = [row.get("verdict"), row.get("nearest") and f"nearest that fits: {row['nearest']}"]
    return "" if row["fits"] else "; ".join(part for part in parts if part)
