"""Rows that cannot all be true: faster than memory allows, the same row twice, rows that contradict each other."""

from __future__ import annotations

import functools
from dataclasses import replace

from sim import catalog, formats, params, units
from sim.errors import sentence, shown
from sim.measure.order import out_of_order
from sim.measure.repeats import repeated
from sim.measure.rows import Measurement, Reading, Unused, place

LIMITS = {
    "memory": (
        "reading the active weights once",
        "check the unit (ms or s, per GPU or in all), the format and the devices; speculative decoding is not modeled",
    ),
    "compute": ("multiplying the prompt", "check the unit and the length; a prompt that is cached is no prefill"),
}


def without_impossible(reading: Reading) -> Reading:
    """The reading less what no memory could do, duplicates, and rows that contradict others."""
    rows = dict(enumerate(reading.measurements))
    dropped = {i: told for i, row in rows.items() if (told := _no_next_token(row) or _too_fast(row))}
    dropped |= repeated({i: row for i, row in rows.items() if i not in dropped})
    possible = {i: row for i, row in rows.items() if i not in dropped}
    return _without(reading, out_of_order(possible) | dropped)


def _without(reading: Reading, dropped: dict[int, tuple[str, str, str]]) -> Reading:
    """A row is unused once all its figures are dropped, else each of them is rejected; a problem is told once a row."""
    kept = [m for index, m in enumerate(reading.measurements) if index not in dropped]
    lines = {(m.file, m.line) for m in kept}
    unused, problems, rejected = list(reading.unused), list(reading.problems), list(reading.rejected)
    told: set[tuple[str, int]] = set()
    for index, (reason, what, hint) in sorted(dropped.items()):
        m = reading.measurements[index]
        at, found = (m.file, m.line), Unused(m.file, m.line, m.columns, reason, what)
        if at in lines:
            rejected.append(found)
        elif at not in told:
            unused.append(found)
        if at not in told:
            problems.append(sentence(what, place(*at), hint))
        told.add(at)
    return replace(reading, measurements=kept, unused=unused, rejected=rejected, problems=problems)


def _no_next_token(found: Measurement) -> tuple[str, str, str] | None:
    if found.quantity not in ("tpot_s", "itl_s") or found.output > 1:
        return None
    stated = f"{found.measured_column} {shown(found.in_file_unit(found.value))}"
    what = f"{stated} of {shown(found.output)} output token: there is no time between tokens"
    return "no inter-token time", what, "check the output length; the time to the first token is TTFT"


def _too_fast(found: Measurement) -> tuple[str, str, str] | None:
    n_devices = found.tp * found.pp * found.dp
    reading_s = active_bytes(found.model, found.weights) / (bandwidth_bytes_per_s(found.machine) * n_devices)
    counting_s = _prompt_tokens(found) * token_flops(found.model) / (peak_flops_per_s(found.machine) * n_devices)
    step_s = _step_s(found)
    if step_s >= max(reading_s, counting_s):
        return None
    limit, least_s = ("memory", reading_s) if reading_s > counting_s else ("compute", counting_s)
    stated = f"{found.measured_column} {shown(found.in_file_unit(found.value))}"
    work, hint = LIMITS[limit]
    what = f"{stated} is faster than {limit} allows: {step_s:.3g} s, and at peak {work} takes {least_s:.3g} s"
    return f"faster than {limit} allows", what, hint


def _step_s(found: Measurement) -> float:
    """Seconds for each time that the weights must be read at least once."""
    if found.quantity == "e2e_s":
        return found.value / max(found.output, 1.0)
    if found.quantity == "output_tokens_per_s":
        return found.concurrency / found.value
    if found.quantity == "total_tokens_per_s":
        return found.concurrency * (found.prompt + found.output) / found.output / found.value
    return found.value


def _prompt_tokens(found: Measurement) -> float:
    """Prompt tokens that must be multiplied within `_step_s`."""
    prompts = {"prefill_s": found.concurrency, "ttft_s": 1}.get(found.quantity, 0)
    return prompts * found.prompt


@functools.cache
def active_bytes(model: str, weights: str) -> float:
    """Bytes of the weights that one token reads: all but embeddings and the experts it is not routed to."""
    row = catalog.model(model)
    plan, counts = formats.weight_plan(row, weights), params.count(row)
    body = counts.attention_total + counts.dense_ffn + counts.shared_expert
    routed = counts.n_moe_layers * counts.n_experts_per_token * counts.routed_expert
    roles = [(body, plan.other), (routed, plan.routed), (counts.head_streamed, plan.head)]
    return sum(formats.bytes_of(n, stored) for n, stored in roles)


@functools.cache
def token_flops(model: str) -> float:
    """FLOPs at least of a prompt token: 2 a parameter of the layers that fill a cache.

    Those that read another layer's cache, and the output head, serve the last token alone if the engine is clever.
    """
    row = catalog.model(model)
    counts = params.count(row)
    reading = {kind for kind, mixer in row.attention.items() if getattr(mixer, "kv_from_other_layer", False)}
    n_filling = sum(n for kind, n in counts.attention_layers.items() if kind not in reading)
    share = n_filling / sum(counts.attention_layers.values())
    return 2.0 * share * (counts.active - counts.head_streamed)


@functools.cache
def peak_flops_per_s(machine: str) -> float:
    """FLOP/s of the fastest unit of one of the machine's devices, whatever the format."""
    return max(catalog.machine(machine).device.peak_tflops.values()) * units.TERA


@functools.cache
def bandwidth_bytes_per_s(machine: str) -> float:
    """Memory bandwidth of one of the machine's devices."""
    return catalog.machine(machine).device.bandwidth_gb_per_s * units.GB
