"""Serving engines: their rules and limits, and what each reaches of a device's peaks."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from sim.catalog.lookup import resolve
from sim.catalog.rows import by_id, read_rows
from sim.errors import RoofcastError, sentence
from sim.schema import Confidence, DeviceRow, Row
from sim.units import GIB, MIB

Kernel = Literal["bf16", "fp8", "int8", "fp4", "int4", "gguf_k", "gguf_iq", "mlx"]
GRAPHS_GROW_FROM = 4  # devices of a replica
_HERE = Path(__file__).parent / "catalog"


class StepLimits(Row):
    """Token budget and sequence limit that the engine picks on devices of at least this memory."""

    min_memory_gib: NonNegativeFloat
    max_batched_tokens: PositiveInt
    max_sequences: PositiveInt
    graph_sequences: tuple[PositiveInt, PositiveInt] | None = None  # below 4 devices, from 4 on
    not_arch: str | None = None


class Outside(Row):
    """What an engine leaves outside its share of the memory where no share is stated, in MiB of each device."""

    base_mib: NonNegativeFloat
    step_token_mib: NonNegativeFloat
    least_step_tokens: NonNegativeFloat
    graph_sequence_mib: NonNegativeFloat
    device_mib: NonNegativeFloat
    dp_graph_sequence_mib: NonNegativeFloat
    dp_large_graph_sequence_mib: NonNegativeFloat
    large_graph_sequences: PositiveInt
    least_mib: NonNegativeFloat
    least_from_gib: NonNegativeFloat


class EngineRow(Row):
    """A serving engine: where it runs, how it splits a model, what it reserves, how it schedules."""

    id: str
    name: str
    version: str
    aliases: tuple[str, ...] = ()
    vendors: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    weight_only: tuple[Kernel, ...] = ()
    split: Literal["tensor", "layer"]
    attention_dp: bool = False  # replicas of the attention that share their experts
    pipelines: bool
    pipelines_prompts: Annotated[float, Field(ge=0, le=1)]
    last_token_alone: bool = False
    absorbs_prompts: bool = False
    reserves_context: bool = False
    counts_activations: bool = True
    slots: bool = False
    caches_prefix: bool = False
    null_blocks: int = 0
    offloads: bool = False
    tables_in_host: bool = False
    mixes_prefill: bool
    memory_frac: PositiveFloat
    outside: Outside | None = None
    reserve_gb: NonNegativeFloat
    logit_bytes_per_sequence: NonNegativeFloat
    block_tokens: PositiveInt
    graph_tokens: PositiveInt | None = None
    admission_steps: PositiveFloat = 1.0
    limits: tuple[StepLimits, ...]
    sources: dict[str, str]
    confidence: Confidence
    note: str = ""


class EfficiencyRow(Row):
    """Fractions of peak and fixed times of an engine on a device; an absent field leaves the less specific row's."""

    engine: str
    device: str
    weight_bw_frac: dict[Kernel, PositiveFloat] = {}
    expert_bw_frac: dict[Kernel, PositiveFloat] = {}
    gemm_compute_frac: dict[Kernel, PositiveFloat] = {}
    expert_compute_frac: dict[Kernel, PositiveFloat] = {}
    unpack_flops: dict[Kernel, NonNegativeFloat] = {}
    kv_bw_frac: PositiveFloat | None = None
    narrow_kv_bw_frac: PositiveFloat | None = None
    attention_decode_frac: PositiveFloat | None = None
    attention_prefill_frac: PositiveFloat | None = None
    score_bytes: NonNegativeFloat | None = None
    residency_ms_per_gb: NonNegativeFloat | None = None
    state_bw_frac: PositiveFloat | None = None
    state_compute_frac: PositiveFloat | None = None
    link_frac: PositiveFloat | None = None
    host_bw_frac: PositiveFloat | None = None
    sharpness: PositiveFloat | None = None
    lockstep_frac: NonNegativeFloat | None = None
    routing_skew: NonNegativeFloat | None = None
    expert_imbalance: PositiveFloat | None = None
    activation_passes: NonNegativeFloat | None = None
    expert_passes: NonNegativeFloat | None = None
    gemm_launch_us: dict[Kernel, NonNegativeFloat] = {}
    expert_launch_us: dict[Kernel, NonNegativeFloat] = {}
    attention_launch_us: NonNegativeFloat | None = None
    layer_us: NonNegativeFloat | None = None
    eager_layer_us: NonNegativeFloat | None = None
    ungraphed_layer_us: NonNegativeFloat | None = None
    eager_moe_layer_us: NonNegativeFloat | None = None
    eager_mla_layer_us: NonNegativeFloat | None = None
    eager_linear_layer_us: NonNegativeFloat | None = None
    moe_layer_us: NonNegativeFloat | None = None
    mla_layer_us: NonNegativeFloat | None = None
    linear_layer_us: NonNegativeFloat | None = None
    indexer_layer_us: NonNegativeFloat | None = None
    step_us: NonNegativeFloat | None = None
    sequence_us: NonNegativeFloat | None = None
    request_us: NonNegativeFloat | None = None
    allreduce_us: NonNegativeFloat | None = None
    allreduce_log2_us: NonNegativeFloat | None = None
    allreduce_ramp_us: NonNegativeFloat | None = None
    decode_power_frac: PositiveFloat | None = None
    prefill_power_frac: PositiveFloat | None = None
    source: str
    confidence: Confidence


@functools.cache
def engines() -> dict[str, EngineRow]:
    """Engines by id."""
    return by_id(read_rows([_HERE / "engines.toml"], "engine", EngineRow))


def engine(name: str) -> EngineRow:
    """The engine that `name` names."""
    return resolve(name, engines(), "engine")


@functools.cache
def efficiency_rows() -> tuple[EfficiencyRow, ...]:
    """Every efficiency row, least specific first; rows of equal reach keep the order of the file."""
    files = [_HERE / "efficiency.toml", _HERE / "silicon.toml"]
    rows = [row for _, row in read_rows(files, "efficiency", EfficiencyRow)]
    return tuple(rows)


def _reach(row: EfficiencyRow, engine_id: str, places: tuple[str, ...]) -> int | None:
    """How specific a row is for this pair, or None where it does not apply. An engine outweighs any device."""
    if row.engine not in ("*", engine_id) or row.device not in places:
        return None
    return len(places) * (row.engine == engine_id) + places.index(row.device)


def architecture(device: DeviceRow) -> str:
    """The word by which profiles and efficiency rows name a device's architecture."""
    return device.arch.split()[0].lower()


def efficiency(engine_id: str, device: DeviceRow) -> tuple[Mapping[str, Any], tuple[EfficiencyRow, ...]]:
    """(fields merged from all rows that apply, the rows used, least specific first)."""
    return _merged(engine_id, ("*", device.vendor.lower(), device.family, architecture(device), device.id))


@functools.cache
def _merged(engine_id: str, places: tuple[str, ...]) -> tuple[Mapping[str, Any], tuple[EfficiencyRow, ...]]:
    """Of an engine on a device that rows may name so, least specific first."""
    reaches = [(row, _reach(row, engine_id, places)) for row in efficiency_rows()]
    used = [row for row, reach in sorted((p for p in reaches if p[1] is not None), key=lambda p: p[1])]
    merged: dict[str, Any] = {}
    for row in used:
        for name, value in row.model_dump(exclude={"engine", "device", "source", "confidence"}).items():
            if isinstance(value, dict):
                merged[name] = {**merged.get(name, {}), **value}
            elif value is not None:
                merged[name] = value
    return merged, tuple(used)


def limits(row: EngineRow, device: DeviceRow) -> StepLimits:
    """The engine's default token budget and sequence limit on this device."""
    gib = device.memory_bytes / GIB
    arch = architecture(device)
    return next(limit for limit in row.limits if gib >= limit.min_memory_gib and arch != limit.not_arch)


def memory_frac(
    row: EngineRow, device: DeviceRow, batched_tokens: float, tp: float = 1, pp: float = 1, dp: float = 1
) -> float:
    """Share of a device's memory that the engine uses where none is stated; 0 where nothing is left.

    memory_frac − o / memory, with what stays outside by SGLang's rule
    o = o₀ + o_t · max(T, T₀) + o_g · G + o_d · tp · dp · pp, and o_dp · G · dp where dp > 1 (more from G = 300 on);
    T: tokens of the largest step, G: sequences of the largest CUDA graph.
    """
    rule, graphs = row.outside, limits(row, device).graph_sequences
    if rule is None or graphs is None:
        return row.memory_frac
    captured = graphs[tp * dp >= GRAPHS_GROW_FROM]
    outside = rule.base_mib + rule.step_token_mib * max(batched_tokens, rule.least_step_tokens)
    outside += rule.graph_sequence_mib * captured + rule.device_mib * tp * dp * pp
    if dp > 1:
        large = rule.dp_large_graph_sequence_mib if captured > rule.large_graph_sequences else 0.0
        outside += (rule.dp_graph_sequence_mib + large) * captured * dp
    if device.memory_bytes / GIB > rule.least_from_gib:
        outside = max(outside, rule.least_mib)
    return max(row.memory_frac - outside * MIB / device.memory_bytes, 0.0)


def check_runs_on(row: EngineRow, device: DeviceRow) -> None:
    """Raises RoofcastError where the engine does not run on the device's vendor."""
    if device.vendor not in row.vendors:
        others = ", ".join(e.id for e in engines().values() if device.vendor in e.vendors)
        hint = f"on {device.vendor} take one of {others}" if others else ""
        raise RoofcastError(sentence(f"{row.name} does not run on {device.name}", "engine", hint))
