"""Claims about sizes: parameters, bytes of weights, bytes per parameter, overhead, and what memory a machine has."""

from __future__ import annotations

import numpy as np

from sim import catalog
from sim.engines import engine, limits, memory_frac
from sim.formats import weight_bytes, weight_plan
from sim.guide.claims import Claim
from sim.guide.forecast import (
    Subject,
    forecast,
    format_name,
    machine_name,
    nearest_model,
    needed_bytes,
    stored_bytes,
    subject,
)
from sim.guide.verdict import ROUNDING, Finding, Verdict, held
from sim.params import count
from sim.report.number import show, significant
from sim.results import Result
from sim.schema import DeviceRow
from sim.units import BITS_PER_BYTE, GB

# The guide's worked examples that exist, over which formats and overheads are averaged.
EXAMPLES = (
    "Mistral Small 3 24B", "Qwen3.5 27B", "Qwen3.6 35B-A3B", "Llama 3.3 70B", "Llama 4 Scout", "Qwen3.5 122B-A10B",
    "DeepSeek V4-Flash", "Llama 4 Maverick", "Qwen3.5 397B-A17B", "Kimi K2.6", "DeepSeek V4-Pro",
)  # fmt: skip


def span(column: str, values: list[float]) -> str:
    """`39.9 GB to 42.5 GB`, or one figure where both print alike."""
    return " to ".join(dict.fromkeys(show(column, v) for v in (min(values), max(values))))


def params(claim: Claim) -> Finding:
    """Parameters counted from the architecture; publishers round them.

    Of active parameters there are three counts: without embeddings, with the output head, and with both tables.
    """
    counts = count(catalog.model(claim.model))
    if claim.count == "total":
        verdict, off = held((counts.total, counts.total), claim.range, ROUNDING)
        return Finding(show("params", float(counts.total)), verdict, off)
    tables = counts.head_streamed, counts.embedding if counts.head else 0
    least, most = float(counts.active - tables[0]), float(counts.active + tables[1])
    verdict, off = held((least, most), claim.range, ROUNDING)
    spread = f"{show('params', least)} without embeddings to {show('params', most)} with them"
    return Finding(f"{show('params', float(counts.active))} multiplied per token ({spread})", verdict, off)


def weights(claim: Claim) -> Finding:
    """Bytes of a checkpoint in each of the formats that the claim's precision stands for."""
    sizes = [stored_bytes(claim.model, name) for name in claim.formats]
    verdict, off = held((min(sizes), max(sizes)), claim.range, ROUNDING)
    counts = count(catalog.model(claim.model)).total
    bits = [size * BITS_PER_BYTE / counts for size in sizes]
    stored = " to ".join(dict.fromkeys(significant(b) for b in (min(bits), max(bits))))
    return Finding(span("bytes", sizes), verdict, f"{off}; {stored} bits per parameter as stored" if off else "")


def bytes_per_param(claim: Claim) -> Finding:
    """Stored bytes over parameters: the median over the worked examples, from the least to the largest format."""
    rows = [catalog.model(name) for name in EXAMPLES]
    per_format = {
        name: [weight_bytes(count(row), weight_plan(row, name)) / count(row).total for row in rows]
        for name in claim.formats
    }
    medians = {name: float(np.median(values)) for name, values in per_format.items()}
    every = [value for values in per_format.values() for value in values]
    low, high = min(medians.values()), max(medians.values())
    verdict, off = held((low, high), claim.range, ROUNDING)
    if not off and claim.high is not None and high > claim.high * (1 + ROUNDING):
        verdict, off = Verdict.CONDITION, "only for the smaller of these formats"
    listed = ", ".join(f"{format_name(name)} {significant(value)}" for name, value in medians.items())
    span_of_models = f"{significant(min(every))} to {significant(max(every))} over the {len(rows)} models"
    return Finding(f"{listed} B/param", verdict, _join(off, span_of_models))


def formula(claim: Claim) -> Finding:
    """parameters · bytes per parameter + KV cache + overhead, against every byte counted."""
    what = subject(claim)
    n = count(catalog.model(claim.model)).total
    rough, exact = n * claim.range[0], stored_bytes(claim.model, claim.weights)
    verdict, off = held((exact, exact), (rough, rough), ROUNDING)
    rest = _rest_bytes(what)
    computed = f"{show('bytes', rough)} by the rule, {show('bytes', exact)} stored"
    return Finding(computed, verdict, _join(off, f"cache and overhead {show('bytes', rest)}"))


def _rest_bytes(what: Subject) -> float:
    """Cache, state, activations and reservation of one sequence on enough H200s, over all of them."""
    result = _on_enough(what, (1,))
    devices = int(result["n_gpus"].flat[0])
    return devices * (needed_bytes(result) - float(result["weights_bytes"].flat[0]))


def _on_enough(what: Subject, users: tuple[int, ...]) -> Result:
    """The forecast on the fewest H200s, by doubling, whose memory holds weights and cache."""
    for gpus in (1, 2, 4, 8, 16, 32):
        wide = Subject(what.model, f"{gpus}x h200", what.engine, what.weights, what.prompt, what.output, what.context)
        if wide.weights_bytes < wide.memory_bytes:
            result = forecast(wide, users)
            if result["fits"].all() and (result["max_sequences"] >= users).all():
                break
    return result


def overhead(claim: Claim) -> Finding:
    """Everything beside the weights as a share of them, over the worked examples, for users at a full context."""
    shares = {}
    for name in EXAMPLES:
        if catalog.model(name).max_context_tokens < claim.context:
            continue
        what = Subject(name, "h200", "vllm", claim.weights, claim.context - 128, 128, claim.context)
        result = _on_enough(what, (claim.users,))
        rest = needed_bytes(result) - float(result["weights_bytes"].flat[0])
        shares[catalog.model(name).name] = rest / float(result["weights_bytes"].flat[0])
    low, high = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    inside = [name for name, share in shares.items() if claim.range[0] <= share <= claim.range[1]]
    computed = f"{show('frac', shares[low])} ({low}) to {show('frac', shares[high])} ({high})"
    verdict = Verdict.HOLDS if len(inside) == len(shares) else Verdict.CONDITION if inside else Verdict.WRONG
    within = f"inside the range for {len(inside)} of {len(shares)} models"
    listed = f": {', '.join(inside)}" if inside and verdict is Verdict.CONDITION else ""
    return Finding(computed, verdict, within + listed)


def native(claim: Claim) -> Finding:
    """Bytes per parameter of the published checkpoint, against the same model in 16 bits."""
    row = catalog.model(claim.model)
    n, shipped = count(row).total, stored_bytes(claim.model, "native")
    per = shipped / n
    verdict, off = held((per, per), claim.range, ROUNDING)
    mix = row.native_format
    parts = f"experts {mix.routed_experts}, other layers {mix.other}, embeddings {mix.embeddings}"
    if off:
        verdict = Verdict.CONDITION
    unquantized = show("bytes", stored_bytes(claim.model, "bf16"))
    computed = f"{show('bytes', shipped)}, {significant(per)} B/param; {unquantized} in BF16"
    return Finding(computed, verdict, _join(off, parts))


def window(claim: Claim) -> Finding:
    """The model's own limit on the context."""
    limit = float(catalog.model(claim.model).max_context_tokens)
    verdict, off = held((limit, limit), claim.range, ROUNDING)
    return Finding(show("tokens", limit), verdict, off)


def exists(claim: Claim) -> Finding:
    """Whether a model is real; if not, which one is nearest."""
    row = catalog.model(claim.model)
    if row.status == "exists":
        return Finding("exists", Verdict.HOLDS)
    return Finding("no such model", Verdict.NO_PRODUCT, f"nearest: {nearest_model(row)}")


def product(claim: Claim) -> Finding:
    """Whether a device was sold with the claimed memory; if not, which real one is nearest."""
    device = catalog.machine(claim.hardware).device
    near = catalog.machine(claim.nearest)
    nearest = f"nearest: {machine_name(claim.nearest)} ({show('bytes', near.device.memory_gb * GB)})"
    if device.status == "guide":
        return Finding("never sold", Verdict.NO_PRODUCT, nearest)
    if abs(device.memory_gb * GB - claim.range[0]) > ROUNDING * claim.range[0]:
        return Finding(f"sold with {show('bytes', device.memory_gb * GB)}", Verdict.NO_PRODUCT, nearest)
    return Finding(f"sold with {show('bytes', device.memory_gb * GB)}", Verdict.HOLDS)


def capacity(claim: Claim) -> Finding:
    """Memory as labelled, as the driver shows it, and what the engine may use of it."""
    machine = catalog.machine(claim.hardware)
    device, n = machine.device, machine.n_devices
    label, shown = n * device.memory_gb * GB, float(n * device.memory_bytes)
    usable = shown * device.default_usable_frac * _share(claim.engine, device)
    verdict, off = held((min(label, shown), max(label, shown)), claim.range, ROUNDING)
    sizes = {"labeled": label, "shown": shown, "usable": usable}
    return Finding(", ".join(f"{show('bytes', size)} {how}" for how, size in sizes.items()), verdict, off)


def _share(engine_id: str, device: DeviceRow) -> float:
    runs = engine(engine_id)
    return memory_frac(runs, device, limits(runs, device).max_batched_tokens)


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
