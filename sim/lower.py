"""The one crossing from catalogue rows to kernel pytrees: names and strings to the left, only numbers to the right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from kernels.types import GEMM_GROUPS, N_ATTENTION_SLOTS, WEIGHT_KERNELS, Device, Engine, Model
from sim import catalog, units
from sim.catalog import Machine
from sim.engines import EngineRow, efficiency, limits, memory_frac
from sim.errors import RoofcastError, sentence
from sim.formats import LOCAL_BITS, WeightPlan, bytes_of, kv_bytes_per_element
from sim.params import ParamCounts, count
from sim.profiles import Profile
from sim.profiles.shifts import drawn, shifted
from sim.schema import GluFfn, ModelRow, MoeFfn
from sim.slots import Slot, slot

FLOAT = np.float32
NO_LIMIT = float("inf")
# GEMM kernels of one layer, with the projections of one input fused: MLA absorbs its up-projections in two more, and
# DeepSeek V4 has a low-rank output and a compressor.
MIXER_GEMMS = {"gqa": 2, "mla": 5, "gdn": 3, "mamba2": 2, "v4": 5, "none": 0}
FFN_GEMMS = 2


def lower_model(row: ModelRow, plan: WeightPlan, kv: str, engine: EngineRow) -> Model:
    """A model at a weight plan and a KV format ("16", "8" or "4") as an engine stores it."""
    counts = count(row)
    return Model(
        **_gemm_fields(counts, plan),
        gemm_launches=_floats(_gemm_launches(row, counts)),
        **_expert_fields(counts, plan),
        **_slot_fields(_slots(row, kv, kv_bytes_per_element(kv, engine.id), engine.absorbs_prompts)),
        **_shape_fields(row, counts),
        table_bytes=FLOAT(_table_bytes(row, counts, plan, engine)),
        narrow_kv=FLOAT(kv != "16"),
    )


def _gemm_fields(counts: ParamCounts, plan: WeightPlan) -> dict:
    """Parameters and bytes of the GEMM groups, in the order of kernels.types.GEMM_GROUPS."""
    small = counts.router + counts.norms + counts.extra
    attention = counts.attention_total
    whole = sum(n * counts.attention_replicated[kind] for kind, n in counts.attention_layers.items())
    params = [attention, counts.dense_ffn, counts.shared_expert, small, counts.head_streamed]
    n_bytes = [bytes_of(n, f) for n, f in zip(params, (plan.attention, plan.other, plan.other), strict=False)]
    n_bytes += [small * LOCAL_BITS / units.BITS_PER_BYTE, bytes_of(counts.head_streamed, plan.head)]
    kernels = [plan.attention.kernel, plan.other.kernel, plan.other.kernel, "bf16", plan.head.kernel]
    assert len(params) == len(n_bytes) == len(kernels) == len(GEMM_GROUPS)
    return {
        "gemm_params": _floats(params),
        "gemm_bytes": _floats(n_bytes),
        "gemm_replicated_frac": _floats([whole / attention if attention else 0.0, 0.0, 0.0, 1.0, 0.0]),
        "gemm_kernel": np.asarray([WEIGHT_KERNELS.index(k) for k in kernels], np.int32),
    }


def _gemm_launches(row: ModelRow, counts: ParamCounts) -> list[int]:
    """GEMM kernels of a step by group: mixers, dense blocks, shared experts, routers, the output head."""
    mixers = sum(n * MIXER_GEMMS[row.attention[kind].type] for kind, n in counts.attention_layers.items())
    dense = sum(run.count for run in row.layers if isinstance(row.ffn[run.ffn], GluFfn))
    moe = counts.n_moe_layers
    return [mixers, FFN_GEMMS * dense, FFN_GEMMS * moe if counts.shared_expert else 0, moe, 1]


def _expert_fields(counts: ParamCounts, plan: WeightPlan) -> dict:
    return {
        "n_moe_layers": FLOAT(counts.n_moe_layers),
        "n_experts": FLOAT(counts.n_experts),
        "n_experts_per_token": FLOAT(counts.n_experts_per_token),
        "expert_params": FLOAT(counts.routed_expert),
        "expert_bytes": FLOAT(bytes_of(counts.routed_expert, plan.routed)),
        "expert_kernel": np.int32(WEIGHT_KERNELS.index(plan.routed.kernel)),
    }


def _slots(row: ModelRow, kv: str, element_bytes: float, absorbs: bool) -> list[Slot]:
    """One slot per attention kind that caches anything, padded to the kernel's number.

    absorbs: prompts, too, attend to latents as they are cached (llama.cpp), at the cost of an entry in decode.
    """
    layers = count(row).attention_layers
    kinds = {kind: mixer for kind, mixer in row.attention.items() if mixer.type != "none" and layers.get(kind)}
    if len(kinds) > N_ATTENTION_SLOTS:
        what = f"{len(kinds)} kinds of attention layer, and the kernels have slots for {N_ATTENTION_SLOTS}"
        raise RoofcastError(sentence(what, f"{row.id}: attention"))
    slots = [slot(mixer, layers[kind], kv, element_bytes) for kind, mixer in kinds.items()]
    if absorbs:
        slots = [replace(found, prefill_flops_per_pair=found.decode_flops_per_entry) for found in slots]
    return slots + [Slot()] * (N_ATTENTION_SLOTS - len(slots))


def _slot_fields(slots: list[Slot]) -> dict:
    renamed = {
        "layers": "attn_layers",
        "stored_frac": "attn_stored_frac",
        "kv_heads": "attn_kv_heads",
        "heads": "attn_heads",
        "min_heads": "attn_min_heads",
    }
    return {renamed.get(f.name, f.name): _floats([getattr(s, f.name) for s in slots]) for f in fields(Slot)}


def _table_bytes(row: ModelRow, counts: ParamCounts, plan: WeightPlan, engine: EngineRow) -> float:
    """Tables that are looked up (unless the engine leaves them in host memory), and encoders."""
    encoders = (counts.vision + counts.audio) * LOCAL_BITS / units.BITS_PER_BYTE
    if engine.tables_in_host:
        return encoders
    own_embedding = 0 if row.tie_word_embeddings else counts.embedding
    return encoders + bytes_of(counts.lookup_only + own_embedding, plan.embedding)


def _shape_fields(row: ModelRow, counts: ParamCounts) -> dict:
    by_type = {t: 0 for t in ("gqa", "mla", "gdn", "mamba2", "v4", "none")}
    for kind, n in counts.attention_layers.items():
        by_type[row.attention[kind].type] += n
    return {
        "n_layers": FLOAT(sum(run.count for run in row.layers)),
        "n_blocks": FLOAT(_blocks(row)),
        "n_mla_layers": FLOAT(by_type["mla"] + by_type["v4"]),
        "n_linear_layers": FLOAT(by_type["gdn"] + by_type["mamba2"]),
        "n_indexer_layers": FLOAT(_indexer_layers(row, counts)),
        "hidden_size": FLOAT(row.hidden_size),
        "vocab_size": FLOAT(row.vocab_size),
        "ffn_width": FLOAT(max((_width(ffn) for ffn in row.ffn.values()), default=0)),
        "max_context_tokens": FLOAT(row.max_context_tokens),
    }


def _indexer_layers(row: ModelRow, counts: ParamCounts) -> int:
    """Layers that score their cache themselves."""
    own = [kind for kind, m in row.attention.items() if (i := getattr(m, "indexer", None)) and not i.shared]
    return sum(counts.attention_layers.get(kind, 0) for kind in own)


def _blocks(row: ModelRow) -> int:
    """Mixers and feed-forward blocks of all layers."""
    absent = [(row.attention[run.attention].type == "none") + (row.ffn[run.ffn].type == "none") for run in row.layers]
    return sum(run.count * (2 - missing) for run, missing in zip(row.layers, absent, strict=True))


def _width(ffn) -> int:
    """Widest intermediate activation of one token."""
    if isinstance(ffn, GluFfn):
        return ffn.intermediate_size
    if isinstance(ffn, MoeFfn):
        routed = ffn.n_experts_per_token * ffn.moe_intermediate_size
        return routed + ffn.shared_expert_intermediate_size + ffn.parallel_dense_intermediate_size
    return 0


def lower_device(machine: Machine, engine: EngineRow) -> Device:
    """One device of a machine, with its links and host. Peaks only; efficiencies are the engine's."""
    device, link, host = machine.device, machine.link, machine.host
    peak = device.peak_tflops
    rates = [_unit_rate(kernel, engine, peak) * units.TERA for kernel in WEIGHT_KERNELS]
    return Device(
        memory_bytes=FLOAT(device.memory_bytes * device.default_usable_frac),
        bandwidth_bytes_per_s=FLOAT(device.bandwidth_gb_per_s * units.GB),
        peak_flops_per_s=_floats(rates),
        attention_flops_per_s=FLOAT(peak["fp16"] * units.TERA),
        vector_flops_per_s=FLOAT(peak.get("fp32", peak["fp16"]) * units.TERA),
        link_bytes_per_s=FLOAT(link.gb_per_s * units.GB),
        link_latency_s=FLOAT(link.latency_us * units.MICRO),
        link_mesh_links=FLOAT(link.mesh_links or 0),
        allreduce_bytes_per_s=FLOAT((link.allreduce_busbw_gb_per_s or NO_LIMIT) * units.GB),
        link_bus=FLOAT(link.bus),
        domain_devices=FLOAT(link.domain_devices),
        scale_out_bytes_per_s=FLOAT((machine.scale_out_gb_per_s or 0.0) * units.GB),
        scale_out_latency_s=FLOAT((machine.scale_out_latency_us or 0.0) * units.MICRO),
        pcie_bytes_per_s=FLOAT((device.pcie_gb_per_s or 0.0) * units.GB),
        host_memory_bytes=FLOAT(host.memory_gb * units.GB if host else 0.0),
        host_bandwidth_bytes_per_s=FLOAT(host.bandwidth_gb_per_s * units.GB if host else 0.0),
        host_flops_per_s=FLOAT(host.peak_tflops * units.TERA if host else 0.0),
        idle_w=FLOAT(device.idle_w),
        tdp_w=FLOAT(device.tdp_w),
        host_power_w=FLOAT(device.host_power_w),
    )


def _unit_rate(kernel: str, engine: EngineRow, peak: dict[str, float]) -> float:
    """TFLOP/s of the unit that multiplies weights of this kernel: the first of its formats' choices that is there.

    An engine that dequantizes first (`weight_only`) multiplies at the 16-bit rate.
    """
    choices = next(f.compute for f in catalog.formats().values() if f.kernel == kernel)
    units_there = [unit for unit in choices if unit in peak and not (unit != "fp16" and kernel in engine.weight_only)]
    return peak[units_there[0]] if units_there else peak["fp16"]


def lower_engine(row: EngineRow, machine: Machine, profile: Profile | None = None, kind: str = "") -> Engine:
    """An engine on a device: rules, default limits, efficiencies and fixed times, shifted as the profile says.

    kind: of the model that it runs, as sim.profiles.kind_of has it; only a profile asks for it.
    """
    merged, _ = efficiency(row.id, machine.device)
    return _engine(row, machine, shifted(merged, profile, row.id, machine.device, kind))


def drawn_engines(row: EngineRow, machine: Machine, profile: Profile, kind: str, n_draws: int) -> list[Engine]:
    """Engines that the profile holds possible, about the one that `lower_engine` gives."""
    merged, _ = efficiency(row.id, machine.device)
    return [_engine(row, machine, one) for one in drawn(merged, profile, row.id, machine.device, kind, n_draws)]


def engine_field(name: str) -> str:
    """The field of Engine that a field of an efficiency row becomes: in SI units."""
    return f"{name[:-3]}_s" if name.endswith("_us") else name.replace("_ms_per_gb", "_s_per_byte")


def _scale_of(name: str) -> float:
    """What its figure is multiplied with."""
    return units.MICRO if name.endswith("_us") else units.MILLI / units.GB if name.endswith("_ms_per_gb") else 1.0


def _engine(row: EngineRow, machine: Machine, merged: Mapping[str, Any]) -> Engine:
    default = limits(row, machine.device)
    values = {n: [v[k] for k in WEIGHT_KERNELS] if isinstance(v, dict) else v for n, v in merged.items()}
    return Engine(
        **{engine_field(n): FLOAT(_scale_of(n)) * FLOAT(v) for n, v in values.items()},
        memory_frac=FLOAT(memory_frac(row, machine.device, default.max_batched_tokens)),
        reserve_bytes=FLOAT(row.reserve_gb * units.GB),
        logit_bytes_per_sequence=FLOAT(row.logit_bytes_per_sequence),
        block_tokens=FLOAT(row.block_tokens),
        max_batched_tokens=FLOAT(default.max_batched_tokens),
        max_sequences=FLOAT(default.max_sequences),
        graph_tokens=FLOAT(row.graph_tokens or NO_LIMIT),
        mixes_prefill=FLOAT(row.mixes_prefill),
        admission_steps=FLOAT(row.admission_steps),
        pipelines=FLOAT(row.pipelines),
        pipelines_prompts=FLOAT(row.pipelines_prompts),
        last_token_alone=FLOAT(row.last_token_alone),
        reserves_context=FLOAT(row.reserves_context),
        counts_activations=FLOAT(row.counts_activations),
    )


def _floats(values: list) -> np.ndarray:
    return np.asarray(values, FLOAT)
