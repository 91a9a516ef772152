"""Reader of closed-loop serving tables with a run a row: the columns of silicon.csv.gz."""

from __future__ import annotations

from dataclasses import replace

from sim.measure import cells, names
from sim.measure.build import NAMED, PER_MS, Figure, cells_or_stated, deployment, measurement
from sim.measure.rows import Bad, Defaults, Deployment, Load, Measurement, Raw, Unusable
from sim.measure.settings import REQUESTS_PER_USER, quantizes_cache, settings

REQUIRED = ("model", "hardware", "engine", "isl", "osl", "concurrency")
MARKS = ("ttft_ms", "tpot_ms")
MEAN_OF_RANGE = {"exact": 1.0, "0.8-1.0": 0.9}  # mean length as a share of the nominal one
# Runs of InferenceMAX that a second table repeats without their range: 7 of 30 to all digits, the others within noise.
REPEATED = "gap_analysis"


def read_row(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """TPOT and TTFT of a run: lengths at the mean of their range, FP8 KV cache in TensorRT-LLM FP8 and FP4 runs."""
    row = raw.columns
    if cells.text(row, "label_suspect").lower() in ("true", "1", "yes"):
        raise Unusable("label suspect", cells.text(row, "model"))
    ran = _ran(raw, defaults)
    stated_range = _range(row)
    if stated_range not in MEAN_OF_RANGE:
        raise Bad("out of range", f"length_range is {stated_range}", f"known are {', '.join(MEAN_OF_RANGE)}")
    share = MEAN_OF_RANGE[stated_range]
    users = cells.count(row["concurrency"], "concurrency")
    prompt, output = (share * cells.length(row[name], name) for name in ("isl", "osl"))
    nominal = (round(float(row["isl"])), round(float(row["osl"])), users)
    hardware, precision, version = (cells.text(row, name) for name in ("hardware", "precision", "engine_version"))
    told = settings(ran, hardware, precision, nominal, stated_range == "exact", version)
    load = Load(users, prompt, output, n_requests=float(REQUESTS_PER_USER * users), limits=told)
    stated = [(name, cells.text(row, name)) for name in MARKS]
    figures = [
        Figure(name, cells.figure(value, name), "ttft_s" if name == "ttft_ms" else "tpot_s", PER_MS)
        for name, value in stated
        if value
    ]
    if not figures:
        raise Unusable("no figure", "neither ttft_ms nor tpot_ms")
    return [measurement(raw, "silicon", "A", ran, load, figure) for figure in figures]


def _ran(raw: Raw, defaults: Defaults) -> Deployment:
    row = raw.columns
    model_name, engine_name, hardware = cells_or_stated(row, defaults, NAMED)
    model, engine = names.model(model_name), names.engine(engine_name)
    dp = _count(row, "attention_dp", defaults.dp or 1)
    n_gpus = _count(row, "n_gpus", _count(row, "tp", 1) * dp)
    tp = _count(row, "tp", max(n_gpus // dp, 1))
    precision = cells.text(row, "precision")
    routed = cells.text(row, "moe_format")
    weights = names.precision(defaults.weights or routed or cells.text(row, "gemm_format") or precision, model.id)
    quantized_kv = quantizes_cache(engine, model.id, hardware, precision, _range(row) == "exact")
    kv = cells.text(row, "kv_precision", defaults.kv or ("8" if quantized_kv else ""))
    ran = deployment(model, names.machine(hardware, n_gpus), engine, weights, kv)
    ep, moe_tp = _count(row, "ep", 1), _count(row, "moe_tp", 0)
    if tp * dp != n_gpus or (ran.moe and moe_tp and ep * moe_tp != n_gpus):
        found = f"{n_gpus} GPUs: tp {tp}, dp {dp}, ep {ep}, moe_tp {moe_tp}"
        raise Unusable("contradictory parallelism", found)
    return replace(ran, tp=tp, pp=1, dp=dp, ep=ep if ran.moe else 1)


def _range(row: dict[str, str]) -> str:
    return "0.8-1.0" if REPEATED in cells.text(row, "id") else cells.text(row, "length_range", "exact")


def _count(row: dict[str, str], name: str, fallback: int) -> int:
    stated = cells.text(row, name)
    return cells.count(stated, name) if stated else fallback
