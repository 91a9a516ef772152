"""Readers of published measurements: each row becomes a Case in Roofcast's terms, or is counted under a reason."""

from __future__ import annotations

import csv
import functools
import gzip
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import measured_names as names
import numpy as np
from harness import REQUESTS_PER_USER, quantizes_cache, settings
from measured_names import Unusable

import sim
from sim import catalog, formats, params, units
from sim.engines import engines, limits
from sim.errors import RoofcastError, why_reasons

SHARED = Path(__file__).resolve().parents[2] / "shared" / "measurements"
MEAN_OF_RANGE = {"exact": 1.0, "0.8-1.0": 0.9}  # mean length as a share of the nominal one
SHORT_RUN_TOKENS = 128  # llama-bench's own default, where a row does not state its output
Row = dict[str, str]
KV_NOTE = re.compile(r"(fp8) KV|KV (q8_0|q4_0)")


@dataclass(frozen=True)
class Case:
    """One measurement: arguments of `sim.estimate`, and the seconds measured: per token, or to the first one."""

    id: str
    source: str
    tier: str
    hardware: str
    model: str
    machine: str
    engine: str
    weights: str
    kv: str
    tp: int
    pp: int
    ep: int
    dp: int
    concurrency: int
    prompt: int
    output: int
    measured_s: float
    moe: bool
    n_requests: float = np.inf
    length_spread: float = 0.0
    max_batched_tokens: float = np.nan  # NaN: the engine's default
    admission_steps: float = 1.0
    mixed_chunk: float = np.nan

    @property
    def column(self) -> str:
        """The forecast to compare: local rows time decode alone, serving rows hold the prefill between its steps."""
        return {"local": "decode_step_s", "silicon": "tpot_s", "silicon-ttft": "ttft_s"}[self.source]

    @property
    def deployment(self) -> tuple:
        """What must be equal for cases to share one call of `sim.estimate`."""
        place = (self.column, self.model, self.machine, self.engine, self.weights, self.kv)
        return (*place, self.tp, self.pp, self.ep, self.dp)


@dataclass(frozen=True)
class Reading:
    """The cases of one file; rows unusable by (reason, detail); those of them by reason that the headline asks for."""

    cases: list[Case]
    unusable: Counter[tuple[str, str]]
    headline_unusable: Counter[str]


def read_local(path: Path = SHARED / "local.csv.gz") -> Reading:
    """Decode rows of local.csv.gz, any batch and tier."""
    return _read(path, local_case, is_local_headline)


def read_silicon(path: Path = SHARED / "silicon.csv.gz") -> Reading:
    """TPOT of every row of silicon.csv.gz."""
    return _read(path, silicon_case, is_silicon_headline)


def read_silicon_ttft(path: Path = SHARED / "silicon.csv.gz") -> Reading:
    """TTFT of every row of silicon.csv.gz: of a run that offers all requests at once, and keeps some in flight."""
    return _read(path, silicon_ttft_case, is_silicon_headline)


def is_local_headline(row: Row) -> bool:
    """Decode at batch 1, tier A, unflagged."""
    return row["phase"] == "decode" and row["tier"] == "A" and float(row["batch"]) == 1 and "FLAG" not in row["notes"]


def is_silicon_headline(row: Row) -> bool:
    """A dense model, or one that the catalogue does not know."""
    try:
        return not names.is_moe(names.model(row["model"]))
    except Unusable:
        return True


def local_case(row: Row) -> Case:
    """A decode row: depth + output/2 tokens of context on average; tokens/s of the batch -> s per token of a sequence.

    llama.cpp over several devices splits by layer (pp); the other engines split tensors (tp). At depth 0 the first of
    the output tokens stands for the prompt, which no forecast can do without.
    """
    if row["phase"] != "decode":
        raise Unusable("not decode", row["phase"])
    if "FLAG" in row["notes"]:
        raise Unusable("flagged", row["set"])
    model, machine = names.model(row["model"]), names.machine(row["hardware"], row["n_devices"])
    runs, n_devices, batch = names.engine(row["engine"]), names.whole(row["n_devices"]), names.whole(row["batch"])
    depth = row["context_depth"] or row["prompt_tokens"]
    if not depth:
        raise Unusable("context not stated", row["set"])
    kv = KV_NOTE.search(row["notes"])
    by_layer = engines()[runs].split == "layer"
    return Case(
        id=row["id"],
        source="local",
        tier=row["tier"],
        hardware=names.several(n_devices, row["hardware"]),
        model=model.id,
        machine=machine,
        engine=runs,
        weights=names.weights(row["quant"], runs),
        kv=(kv[1] or kv[2]) if kv else "16",
        tp=1 if by_layer else n_devices,
        pp=n_devices if by_layer else 1,
        ep=1,
        dp=1,
        concurrency=batch,
        prompt=max(1, names.whole(depth)),
        output=names.whole(row["output_tokens"] or str(SHORT_RUN_TOKENS)) - (names.whole(depth) == 0),
        measured_s=batch / float(row["tokens_per_s"]),
        moe=names.is_moe(model),
    )


def silicon_case(row: Row) -> Case:
    """A closed-loop serving row: lengths at the mean of their range, FP8 KV cache in TensorRT-LLM FP8 and FP4 runs."""
    if row["label_suspect"] == "True":
        raise Unusable("label suspect", row["model"])
    model, runs = names.model(row["model"]), names.engine(row["engine"])
    n_gpus, tp, dp = (names.whole(row[name]) for name in ("n_gpus", "tp", "attention_dp"))
    ep, moe_tp = names.whole(row["ep"]), names.whole(row["moe_tp"])
    moe = names.is_moe(model)
    if tp * dp != n_gpus or (moe and ep * moe_tp != n_gpus):
        raise Unusable("contradictory parallelism", f"{n_gpus} GPUs: tp {tp}, dp {dp}, ep {ep}, moe_tp {moe_tp}")
    share = MEAN_OF_RANGE[row["length_range"]]
    return Case(
        id=row["id"],
        source="silicon",
        tier="A",
        hardware=row["hardware"],
        model=model.id,
        machine=names.machine(row["hardware"], row["n_gpus"]),
        engine=runs,
        weights=names.silicon_weights(row, model),
        kv="8" if quantizes_cache(row, runs) else "16",
        tp=tp,
        pp=1,
        ep=ep if moe else 1,
        dp=dp,
        concurrency=names.whole(row["concurrency"]),
        prompt=round(share * float(row["isl"])),
        output=round(share * float(row["osl"])),
        measured_s=float(row["tpot_ms"]) * units.MILLI,
        moe=moe,
        n_requests=REQUESTS_PER_USER * names.whole(row["concurrency"]),
        **settings(row, runs),
    )


def silicon_ttft_case(row: Row) -> Case:
    """The same row with its time to first token."""
    return replace(silicon_case(row), source="silicon-ttft", measured_s=float(row["ttft_ms"]) * units.MILLI)


def predict(cases: Sequence[Case]) -> tuple[np.ndarray, Counter[str]]:
    """(Forecast seconds per token of each case, NaN where there is none; how often each reason left none).

    Cases of one deployment share one call of `sim.estimate`, which broadcasts over the load.
    """
    seconds = np.full(len(cases), np.nan)
    problems: Counter[str] = Counter()
    groups: dict[tuple, list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault(case.deployment, []).append(index)
    for indices in groups.values():
        group = [cases[i] for i in indices]
        try:
            result = _estimate(group)
        except RoofcastError as error:
            problems[error.problems[0]] += len(group)
            continue
        seconds[indices] = result[group[0].column]
        for why in result["why"][np.isnan(seconds[indices])]:
            problems["; ".join(why_reasons(int(why)))] += 1
    return seconds, problems


def naive_roofline(cases: Sequence[Case]) -> np.ndarray:
    """What a forecast must beat, in s, without KV, fixed times or efficiency: active weight bytes over bandwidth for a
    token, and 2 FLOPs a parameter and prompt token at the 16-bit peak for the first.
    """
    first = [c.source == "silicon-ttft" for c in cases]
    token = np.array([_active_bytes(c.model, c.weights) / (c.tp * _bandwidth(c.machine)) for c in cases])
    prompt = np.array([2.0 * c.prompt * _active(c.model) / (c.tp * _peak(c.machine)) for c in cases])
    return np.where(first, prompt, token)


def _estimate(cases: Sequence[Case]) -> sim.Result:
    first = cases[0]
    asked = np.array([c.max_batched_tokens for c in cases])
    mixed = np.array([c.mixed_chunk for c in cases])
    return sim.estimate(
        first.model, first.machine, engine=first.engine, weights=first.weights, kv=first.kv,
        tp=first.tp, pp=first.pp, ep=first.ep, dp=first.dp,
        concurrency=[c.concurrency for c in cases], prompt=[c.prompt for c in cases], output=[c.output for c in cases],
        n_requests=[c.n_requests for c in cases], length_spread=[c.length_spread for c in cases],
        max_num_batched_tokens=np.where(np.isnan(asked), engines_limit(first), asked),
        admission_steps=[c.admission_steps for c in cases],
        mixed_chunk=np.where(np.isnan(mixed), engines()[first.engine].mixes_prefill, mixed),
    )  # fmt: skip


def engines_limit(case: Case) -> int:
    """The token budget that the engine picks on this machine."""
    return limits(engines()[case.engine], catalog.machine(case.machine).device).max_batched_tokens


@functools.cache
def _active_bytes(model: str, weights: str) -> float:
    row = catalog.model(model)
    plan, counts = formats.weight_plan(row, weights), params.count(row)
    body = counts.attention_total + counts.dense_ffn + counts.shared_expert
    routed = counts.n_moe_layers * counts.n_experts_per_token * counts.routed_expert
    roles = [(body, plan.other), (routed, plan.routed), (counts.head_streamed, plan.head)]
    return sum(formats.bytes_of(n, stored) for n, stored in roles)


@functools.cache
def _active(model: str) -> int:
    return params.count(catalog.model(model)).active


@functools.cache
def _peak(machine: str) -> float:
    return catalog.machine(machine).device.peak_tflops["fp16"] * units.TERA


@functools.cache
def _bandwidth(machine: str) -> float:
    return catalog.machine(machine).device.bandwidth_gb_per_s * units.GB


def _read(path: Path, to_case: Callable[[Row], Case], is_headline: Callable[[Row], bool]) -> Reading:
    reading = Reading([], Counter(), Counter())
    for row in _rows(path):
        try:
            reading.cases.append(to_case(row))
        except Unusable as why:
            reading.unusable[(why.reason, why.detail)] += 1
            reading.headline_unusable[why.reason] += is_headline(row)
    return reading


def _rows(path: Path) -> Iterable[Row]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
