"""Reader of local benchmarks with a phase a row: the columns of local.csv.gz."""

from __future__ import annotations

import functools
import math
import re

from sim import params, units
from sim.measure import cells, names
from sim.measure.build import NAMED, Figure, cells_or_stated, deployment, measurement
from sim.measure.rows import Defaults, Deployment, Load, Measurement, Raw, Unusable

REQUIRED = ("model", "hardware", "engine", "quant", "phase", "tokens_per_s")
MARKS = ("phase", "tokens_per_s")
SHORT_RUN_TOKENS = 128  # llama-bench's own default, where a row does not state its output
LEAST_TOKENS = 32  # of a cache that was really estimated
KV_NOTE = re.compile(r"(fp8) KV|KV (q8_0|q4_0)|\bkv=kv-?(q?\d)")
KV_BITS = {"q8": "8", "q4": "4"}
UBATCH_NOTE = re.compile(r"\b(?:n_ubatch|ub)=(\d+)")
CACHE_NOTE = re.compile(r"n_ctx=(\d+); avg_kv_cache_estimated_mb=([\d.]+)")
COUNTS_PROMPT = "speed=(prompt+generated tokens)/total time"


def read_row(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """A decode, prefill or e2e row. Tokens/s are of the whole batch.

    llama.cpp over several devices splits by layer (pp); the other engines split tensors (tp).
    """
    notes, phase = cells.text(raw.columns, "notes"), cells.text(raw.columns, "phase")
    if phase not in LOADS:
        raise Unusable("unknown phase", phase or "not stated")
    if "FLAG" in notes:
        raise Unusable("flagged", cells.text(raw.columns, "set"))
    ran = _ran(raw, notes, defaults)
    load, figure = LOADS[phase](raw, ran, notes)
    source = ":".join(filter(None, ("local", cells.text(raw.columns, "set"))))
    tier = cells.text(raw.columns, "tier", "B")
    return [measurement(raw, source, tier, ran, load, figure)]


def _ran(raw: Raw, notes: str, defaults: Defaults) -> Deployment:
    row = raw.columns
    model_name, engine_name, hardware, quant = cells_or_stated(row, defaults, {**NAMED, "weights": "quant"})
    model = names.model(model_name)
    n_devices = cells.count(cells.text(row, "n_devices", "1"), "n_devices")
    machine = names.machine(hardware, n_devices)
    engine = names.engine(engine_name)
    weights = names.weights(quant, engine, model.id)
    noted = KV_NOTE.search(notes)
    found = next(filter(None, noted.groups())) if noted else defaults.kv or ""
    return deployment(model, machine, engine, weights, KV_BITS.get(found, found))


def _decode(raw: Raw, ran: Deployment, notes: str) -> tuple[Load, Figure]:
    """Depth + output/2 tokens of context on average; tokens/s of the batch -> seconds of a step.

    At depth 0 the first of the output tokens stands for the prompt, which no forecast can do without.
    """
    row, batch, rate = raw.columns, _batch(raw), _rate(raw)
    depth = cells.text(row, "context_depth") or cells.text(row, "prompt_tokens")
    output = float(cells.count(cells.text(row, "output_tokens") or SHORT_RUN_TOKENS, "output_tokens"))
    if depth:
        cached = cells.amount(depth, "context_depth")
        load = Load(batch, max(cached, 1.0), max(output - (cached == 0), 1.0), limits=_limits(notes))
    else:
        cached = _cached(ran.model, notes, cells.text(row, "set"))
        load = Load(batch, max(cached - output / 2, 1.0), output, limits=_limits(notes))
    return load, Figure("tokens_per_s", rate, "decode_step_s", scale=float(batch), inverse=True)


def _prefill(raw: Raw, ran: Deployment, notes: str) -> tuple[Load, Figure]:
    """Prompts of so many tokens at a depth; tokens/s of the batch -> seconds until all prompts are processed."""
    row, batch, rate = raw.columns, _batch(raw), _rate(raw)
    tokens = cells.text(row, "prompt_tokens")
    if not tokens or cells.amount(tokens, "prompt_tokens") == 0:
        raise Unusable("prompt length not stated", cells.text(row, "set"))
    prompt = cells.figure(tokens, "prompt_tokens")
    depth = cells.amount(cells.text(row, "context_depth", "0"), "context_depth")
    load = Load(batch, prompt, 1.0, depth=depth, limits=_limits(notes))
    return load, Figure("tokens_per_s", rate, "prefill_s", scale=batch * prompt, inverse=True)


def _whole(raw: Raw, ran: Deployment, notes: str) -> tuple[Load, Figure]:
    """A request from end to end: its generated tokens over all its time, or its prompt too where the notes say so."""
    row, batch, rate = raw.columns, _batch(raw), _rate(raw)
    prompt, output = (cells.length(cells.text(row, name), name) for name in ("prompt_tokens", "output_tokens"))
    counted = output + prompt if COUNTS_PROMPT in notes else output
    load = Load(batch, prompt, output, n_requests=float(batch), limits=_limits(notes))
    return load, Figure("tokens_per_s", rate, "e2e_s", scale=batch * counted, inverse=True)


LOADS = {"decode": _decode, "prefill": _prefill, "e2e": _whole}


def _batch(raw: Raw) -> int:
    return cells.count(cells.text(raw.columns, "batch", "1"), "batch")


def _rate(raw: Raw) -> float:
    return cells.figure(raw.columns["tokens_per_s"], "tokens_per_s")


def _limits(notes: str) -> dict[str, float]:
    found = UBATCH_NOTE.search(notes)
    return {"max_num_batched_tokens": float(found[1])} if found else {}


def _cached(model: str, notes: str, of_set: str) -> float:
    """Tokens of context where a row states the size of its cache instead, in MiB of 16-bit keys and values.

    An estimate beyond the context that was allocated, or of next to nothing, is no estimate.
    """
    found = CACHE_NOTE.search(notes)
    tokens = float(found[2]) * units.MIB / _token_bytes(model) if found else 0.0
    if not found or not LEAST_TOKENS <= tokens <= float(found[1]):
        raise Unusable("context not stated", of_set)
    return tokens


@functools.cache
def _token_bytes(model: str) -> float:
    """Bytes that a token adds to a 16-bit cache of full attention in every layer; inf where heads do not say it."""
    row = names.model(model)
    width = {kind: getattr(m, "n_kv_heads", 0) * getattr(m, "head_dim", 0) for kind, m in row.attention.items()}
    if not all(width.values()):
        return math.inf
    return sum(2 * 2 * width[kind] * n_layers for kind, n_layers in params.count(row).attention_layers.items())
