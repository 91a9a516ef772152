"""A simulation laid out for reading: each deployment's verdict, then latencies and load at each level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from sim.objectives import PERCENTILES
from sim.report.number import show, show_found, show_load
from sim.report.table import Column, grid
from sim.report.verdict import span
from sim.results import Result
from sim.serving.misses import missed
from sim.serving.replications import interval_names

_SUMMARY = (
    Column("label", "deployment"),
    Column("max_load", "highest\nload"),
    Column("ttft_p99_s", "TTFT\np99"),
    Column("tpot_p95_s", "TPOT\np95"),
    Column("output_tokens_per_s", "tok/s", unit_in_heading=True),
    Column("goodput_frac", "goodput"),
    Column("usd_per_hour", "$/h", unit_in_heading=True),
    Column("usd_per_mtok", "$/Mtok", unit_in_heading=True),
    Column("joules_per_token", "J/token", unit_in_heading=True),
)
_LATENCIES = (("ttft", "TTFT"), ("tpot", "TPOT"), ("itl", "ITL"), ("e2e", "E2E"))
_INSIDE = (
    Column("queue_mean", "queue\nmean"),
    Column("queue_max", "queue\nmax"),
    Column("running_mean", "batch\nmean"),
    Column("running_max", "batch\nmax"),
    Column("kv_mean_frac", "KV cache\nmean"),
    Column("kv_max_frac", "KV cache\nmax"),
    Column("n_preemptions", "pre-\nempted"),
    Column("busy_frac", "busy"),
)
_PREFIX = Column("prefix_hit_frac", "prefix\nhits")
_RATES = (
    Column("requests_per_s", "req/s", unit_in_heading=True),
    Column("goodput_requests_per_s", "goodput\nreq/s", unit_in_heading=True),
    Column("goodput_frac", "goodput"),
    Column("output_tokens_per_s", "output\ntok/s", unit_in_heading=True),
    Column("total_tokens_per_s", "total\ntok/s", unit_in_heading=True),
    Column("mfu_frac", "MFU"),
    Column("mbu_frac", "MBU"),
    Column("usd_per_mtok", "$/Mtok", unit_in_heading=True),
    Column("joules_per_token", "J/token", unit_in_heading=True),
)
_WITH_INTERVAL = (
    ("ttft_mean_s", "TTFT mean"),
    ("ttft_p99_s", "TTFT p99"),
    ("tpot_p95_s", "TPOT p95"),
    ("e2e_p99_s", "E2E p99"),
    ("output_tokens_per_s", "tok/s"),
)
_STATUS = (("n_refused_context", "longer than the context"), ("n_refused_kv", "longer than the KV cache"))


def simulation_view(name: str, results: Mapping[str, Result], summary: Result) -> RenderableType:
    """One row per deployment at the highest load that keeps to the objectives, then the levels of each."""
    verdicts = [Text(f"{row['label']}: {row['verdict']}") for row in summary.rows()]
    told = {row["label"]: row["verdict"] for row in summary.rows()}
    levels = [Group(*_levels(label, result, told[label])) for label, result in results.items() if result["fits"].any()]
    table = grid(_SUMMARY, [row | {"max_load": show_found(row["max_load"])} for row in summary.rows()])
    unit = Text(f"Load: {summary.details['load']}")
    return Group(Text(name, style="bold"), table, Text(""), unit, *verdicts, *levels)


def _levels(label: str, result: Result, verdict: str) -> list[RenderableType]:
    """The tables of a deployment, and what levels miss or what makes them doubtful, unless the verdict tells it."""
    rows = [row | {"at": f"{row['load']:g}"} for row in result.rows()]
    load = Column("at", _heading(result))
    latencies = [Column("what", ""), *(Column(what, what) for what in ("mean", *(f"p{q}" for q in PERCENTILES)))]
    lines = [line for row in rows for line in _latencies(row)]
    hits = [_PREFIX] if np.nansum(result["prefix_hit_frac"]) else []
    parts = [
        grid([load, *latencies], lines, f"\n{label}"),
        grid([load, *_INSIDE, *hits], rows, "\nQueue, batch and KV cache"),
        grid([load, *_RATES], rows, "\nThroughput, goodput and cost"),
    ]
    if any(end in result for name, _ in _WITH_INTERVAL for end in interval_names(name)):
        told = [row | {heading: _interval(row, name) for name, heading in _WITH_INTERVAL} for row in rows]
        headings = [Column(heading, heading) for _, heading in _WITH_INTERVAL]
        parts.append(grid([load, *headings], told, "\n95 % confidence interval over replications"))
    unit = result.details["load"]
    marks = [(show_load(row["load"], unit), row["doubt"] if row["keeps"] else missed(row)) for row in rows]
    verdicts = [
        f"- at {load}: {mark}"
        for load, mark in marks
        if mark and f"at {load}: {mark}" not in verdict and f"{load} ({mark})" not in verdict
    ]
    verdicts += [
        f"- at {show_load(row['load'], unit)}: refused {show('n', round(row[key]))} of "
        f"{show('n', round(row['n_requests']))}: {why}"
        for row in rows
        for key, why in _STATUS
        if row[key]
    ]
    return [*parts, *(Text(line) for line in verdicts)]


def _heading(result: Result) -> str:
    """What heads the column of the load: "requests/s", "users", "times the\\nrecorded rate"."""
    return str(result.details["load"]).replace("times the ", "times the\n")


def _latencies(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """A line for each kind of latency; the load stands in the first."""
    names = ("mean", *(f"p{q}" for q in PERCENTILES))
    return [
        {"at": f"{row['load']:g}" if i == 0 else " ", "what": heading}
        | {name: show("s", row[f"{metric}_{name}_s"]) for name in names}
        for i, (metric, heading) in enumerate(_LATENCIES)
    ]


def _interval(row: Mapping[str, Any], name: str) -> str:
    low, high = interval_names(name)
    return span(name, row[low], row[high])
