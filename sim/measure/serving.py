"""Reader of serving tables with a metric a row: the columns of serving.csv.gz."""

from __future__ import annotations

import functools
import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from sim.measure import cells, names
from sim.measure.build import NAMED, PER_MS, Figure, cells_or_stated, deployment, measurement
from sim.measure.rows import Defaults, Deployment, Load, Measurement, Quantity, Raw, Unusable
from sim.measure.settings import quantizes_cache, settings

REQUIRED = ("model", "hardware", "engine", "isl", "osl", "concurrency", "metric", "value")
MARKS = ("metric", "value")
METRICS: dict[str, tuple[Quantity, float]] = {
    "tpot_ms": ("tpot_s", PER_MS),
    "ttft_ms": ("ttft_s", PER_MS),
    "itl_ms": ("itl_s", PER_MS),
    "e2e_s": ("e2e_s", 1.0),
    "step_ms": ("decode_step_s", PER_MS),
    "output_tok_s_total": ("output_tokens_per_s", 1.0),
    "output_tok_s_per_gpu": ("output_tokens_per_s", 1.0),
    "total_tok_s": ("total_tokens_per_s", 1.0),
    "total_tok_s_per_gpu": ("total_tokens_per_s", 1.0),
}
STATS = ("mean", "median", "unspecified")
SPECULATIVE = re.compile(r"SPECULATIVE|\bMTP\d|mtp=on", re.IGNORECASE)
SEVERAL_MACHINES = re.compile(r"hardware line '[^']*\(\dx\), ")
STEP_NOTE = re.compile(r"pure (decode|prefill) step; (?:(\d+) new tokens, (\d+) cached)?")
REQUESTS_NOTE = re.compile(r"(\d+) requests")
QUANTIZED_CACHE = ("fp8", "nvfp4", "mxfp4")  # precisions whose TensorRT-LLM runs keep their KV cache in FP8


@functools.cache
def facts(of_set: str) -> dict[str, Any]:
    """What sets.toml says of a published set; nothing for others."""
    tables = _tables()
    found = tables.get(of_set, {})
    return tables[found["as"]] if "as" in found else found


@functools.cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("sets.toml").read_text(encoding="utf-8"))


def read_row(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """One metric of a closed loop or of a static batch."""
    row = raw.columns
    known, notes = facts(cells.text(row, "set")), cells.text(row, "notes")
    metric, stat = cells.text(row, "metric"), cells.text(row, "stat", "unspecified")
    _check(row, metric, stat, notes)
    if metric == "itl_ms" and any(_match(row, rule) for rule in known.get("in_chunks", ())):
        raise Unusable("streamed in chunks", f"ITL of {cells.text(row, 'engine')}")
    ran = _ran(raw, known, defaults)
    quantity, scale = METRICS[metric]
    if metric.endswith("_per_gpu"):
        scale = 1.0 / (ran.tp * ran.pp * ran.dp)
    step = STEP_NOTE.match(notes)
    if metric == "step_ms" and step:
        quantity, load = _step(row, ran, step)
    else:
        load = _load(row, known, notes)
        load = replace(load, limits=_limits(row, ran, load.concurrency)) if known.get("inferencemax") else load
        quantity = known.get("ttft", quantity) if metric == "ttft_ms" else quantity
    figure = Figure("value", cells.figure(row["value"], metric), quantity, scale, stat=stat)
    source = ":".join(filter(None, ("serving", cells.text(row, "set"))))
    return [measurement(raw, source, known.get("tier", "B"), ran, load, figure)]


def _check(row: dict[str, str], metric: str, stat: str, notes: str) -> None:
    """Raises Unusable for rows that no forecast of a closed loop can be laid beside."""
    if "disagg" in cells.text(row, "engine").lower():
        raise Unusable("disaggregated", cells.text(row, "set"))
    if re.fullmatch(r"p\d+(\.\d+)?", stat):
        raise Unusable("a percentile", f"{stat} {metric}")
    if stat not in STATS or metric not in METRICS:
        raise Unusable("unknown metric", f"{stat} {metric}")
    if SPECULATIVE.search(notes):
        raise Unusable("speculative decoding", cells.text(row, "set"))
    if "FLAG" in notes:
        raise Unusable("flagged", cells.text(row, "set"))
    if SEVERAL_MACHINES.search(notes):
        raise Unusable("ambiguous hardware", "several machines are listed, and which it was is not said")


def _ran(raw: Raw, known: dict[str, Any], defaults: Defaults) -> Deployment:
    row = raw.columns
    stated, engine_name, hardware = cells_or_stated(row, defaults, NAMED)
    model = names.model(names.tables()["model_in_set"].get(stated, stated))
    engine = names.engine(engine_name)
    tp, pp, dp, n_gpus = _parallelism(row, known, defaults)
    machine = names.machine(hardware, n_gpus)
    precision = cells.text(row, "weight_precision", defaults.weights or "")
    quantized = engine == "trtllm" and precision in QUANTIZED_CACHE
    quantized |= known.get("inferencemax", False) and quantizes_cache(
        engine, model.id, hardware, precision, exact=False
    )
    kv = cells.text(row, "kv_precision", defaults.kv or ("8" if quantized else ""))
    ran = deployment(model, machine, engine, names.precision(precision, model.id), kv)
    ep = _whole(row, "ep") or 1
    if ran.moe and (tp * dp) % ep:
        raise Unusable("contradictory parallelism", f"{n_gpus} GPUs: tp {tp}, dp {dp}, ep {ep}")
    return replace(ran, tp=tp, pp=pp, dp=dp, ep=ep if ran.moe else 1)


def _parallelism(row: dict[str, str], known: dict[str, Any], defaults: Defaults) -> tuple[int, int, int, int]:
    """(tp, pp, dp, GPUs). Where tp names a group that attention shares out, dp parts of it hold whole attentions."""
    pp, dp = _whole(row, "pp") or 1, _whole(row, "dp") or defaults.dp or 1
    tp, n_gpus = _whole(row, "tp") or defaults.tp, _whole(row, "n_gpus")
    if tp is None and n_gpus != 1:
        raise Unusable("parallelism not stated", cells.text(row, "tp") or "no tp")
    tp = tp or 1
    if known.get("group_tp") and tp == n_gpus and tp % dp == 0:
        tp //= dp
    n_gpus = n_gpus or tp * pp * dp
    if tp * pp * dp != n_gpus:
        raise Unusable("contradictory parallelism", f"{n_gpus} GPUs: tp {tp}, pp {pp}, dp {dp}")
    return tp, pp, dp, n_gpus


def _whole(row: dict[str, str], name: str) -> int | None:
    """A degree of parallelism; None where the cell is empty or says more than a number."""
    stated = cells.text(row, name)
    return cells.count(stated, name) if re.fullmatch(r"\d+(\.0+)?", stated) else None


def _load(row: dict[str, str], known: dict[str, Any], notes: str) -> Load:
    share = known.get("length_frac", 1.0)
    prompt, output = (cells.length(cells.text(row, name), name) for name in ("isl", "osl"))
    noted = REQUESTS_NOTE.search(notes) if known.get("requests_noted") else None
    asked = float(noted[1]) if noted else None
    users = _users(cells.text(row, "concurrency"), row, known, asked)
    offered = asked or _offered(row, known, users)
    return Load(users, share * prompt, share * output, n_requests=offered)


def _limits(row: dict[str, str], ran: Deployment, users: int) -> dict[str, float]:
    lengths = [round(cells.length(cells.text(row, name), name)) for name in ("isl", "osl")]
    hardware, precision, version = (cells.text(row, n) for n in ("hardware", "weight_precision", "engine_version"))
    return settings(ran, hardware, precision, (*lengths, users), False, version)


def _users(stated: str, row: dict[str, str], known: dict[str, Any], asked: float | None) -> int:
    """Sequences in flight. All requests at once are as many as were offered."""
    if "rate" in stated:
        raise Unusable("open loop", stated)
    if stated.startswith("inf") and (every := asked or _offered(row, known, 0)) not in (0.0, math.inf):
        return int(every)
    if re.fullmatch(r"\d+ requests", stated):
        return int(stated.split()[0])
    if not re.fullmatch(r"\d+(\.\d+)?", stated) or (known.get("peak") and "." in stated and float(stated) != asked):
        raise Unusable("load not stated", stated or "no concurrency")
    return cells.count(stated, "concurrency")


def _offered(row: dict[str, str], known: dict[str, Any], users: int) -> float:
    """How many requests the harness offers at once; inf where that is not known."""
    for rule in known.get("requests", ()):
        if _match(row, {name: value for name, value in rule.items() if name not in ("per_user", "total")}):
            return float(rule["total"] if "total" in rule else rule["per_user"] * users)
    return math.inf


def _match(row: dict[str, str], rule: dict[str, str | int]) -> bool:
    """Whether a row has these words and numbers in its columns."""
    return all(
        row.get(name) == value if isinstance(value, str) else cells.amount(row.get(name, ""), name) == value
        for name, value in rule.items()
    )


def _step(row: dict[str, str], ran: Deployment, note: re.Match[str]) -> tuple[Quantity, Load]:
    """One logged step. The batch is of one rank, beside which the other ranks of attention data parallelism run alike;
    of a prefill they may do anything.
    """
    batch, tokens = cells.count(row["concurrency"], "concurrency"), cells.length(row["isl"], "isl")
    if note[1] == "decode":
        return "decode_step_s", Load(batch * ran.dp, tokens, 1.0)
    if ran.dp > 1:
        raise Unusable("load not stated", "prefill of one rank of several")
    return "prefill_s", Load(batch, tokens, 1.0, depth=float(note[3] or 0))
