"""Random kernel pytrees of realistic size, as hypothesis strategies; leaves are float32 and int32, as in `lower`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kernels.types import GEMM_GROUPS, N_ATTENTION_SLOTS, WEIGHT_KERNELS, Device, Engine, Layout, Model, Workload

INF = float("inf")
Draw = Callable[[st.SearchStrategy], Any]
ENDLESS = st.just(INF)
EMPTY_SLOT = {
    "attn_layers": 0, "attn_stored_frac": 1, "attn_kv_heads": 1, "attn_heads": 1, "attn_min_heads": 1,
    "local_entry_bytes": 0, "window_tokens": 0, "entry_bytes": 0, "tokens_per_entry": 1, "topk_entries": INF,
    "index_entry_bytes": 0, "index_stored_frac": 1, "decode_flops_per_entry": 0, "prefill_flops_per_pair": 0,
    "index_flops_per_entry": 0, "state_bytes": 0, "state_passes": 2, "state_flops_per_token": 0, "state_heads": 1,
}  # fmt: skip
POLICIES = (
    "mixes_prefill", "pipelines", "pipelines_prompts", "last_token_alone", "reserves_context", "counts_activations"
)  # fmt: skip


def between(low: float, high: float) -> st.SearchStrategy[float]:
    """float32 numbers from `low` to `high`, spread over their orders of magnitude; the bounds themselves often."""
    exponent = st.floats(0.0, 1.0)
    return exponent.map(lambda u: float(np.float32(low * (high / low) ** u)))


def spread(low: float, high: float, n: int) -> st.SearchStrategy[list[float]]:
    """The same, n at once and none at the bounds: cheaper to draw."""
    seeds = st.integers(0, 2**32 - 1)
    return seeds.map(lambda seed: (low * (high / low) ** np.random.default_rng(seed).random(n)).tolist())


def cast(cls: type, values: dict[str, Any]) -> Any:
    """The pytree with every number a float32 scalar or array, and every kernel index an int32."""
    kinds = {name: np.int32 if name.endswith("_kernel") else np.float32 for name in values}
    return cls(**{name: np.asarray(value, kinds[name])[()] for name, value in values.items()})


def to(leaf: np.ndarray, dtype: type) -> np.ndarray:
    """A leaf in another floating type; kernel indices stay as they are."""
    return leaf if np.issubdtype(leaf.dtype, np.integer) else np.asarray(leaf, dtype)


@st.composite
def slots(draw: Draw) -> dict[str, float]:
    """Coefficients of one attention kind: grouped-query, windowed, latent, sparse latent, compressed or recurrent."""
    kind = draw(st.sampled_from(["full", "window", "reader", "mla", "sparse", "compressed", "linear"]))
    heads = draw(st.sampled_from([1, 2, 8, 32, 40, 128]))
    kv_heads = draw(st.sampled_from([n for n in (1, 2, 4, 8) if heads % n == 0]))
    entry = draw(st.sampled_from([64, 128, 256])) * 2.0 * kv_heads * draw(st.sampled_from([2.0, 1.0, 0.5625]))
    slot = {**EMPTY_SLOT, "attn_layers": draw(st.integers(1, 30)), "attn_heads": heads, "attn_kv_heads": kv_heads}
    flops = {"decode_flops_per_entry": 512.0 * heads, "prefill_flops_per_pair": draw(between(100, 1000)) * heads}
    if kind == "linear":
        state = heads * draw(between(1e4, 1e5))
        return {**slot, "attn_kv_heads": 1, "state_bytes": state, "state_heads": heads, "state_flops_per_token": state}
    if kind == "window":
        window = draw(st.sampled_from([128, 1024, 4096]))
        return {**slot, **flops, "local_entry_bytes": entry, "window_tokens": window}
    if kind in ("full", "reader"):
        return {**slot, **flops, "entry_bytes": entry, "attn_stored_frac": float(kind == "full")}
    index = {"topk_entries": draw(st.sampled_from([512, 2048])), "index_entry_bytes": 132.0,
             "index_flops_per_entry": 16384.0, "index_stored_frac": draw(st.sampled_from([0, 1]))}  # fmt: skip
    padded = {"attn_min_heads": draw(st.sampled_from([1, 16, 64]))}
    latent = {
        **slot,
        **flops,
        **padded,
        "attn_kv_heads": 1,
        "entry_bytes": draw(st.sampled_from([1152.0, 656.0, 584.0])),
    }
    if kind == "mla":
        return latent
    if kind == "sparse":
        return {**latent, **index}
    ring = {"state_bytes": draw(between(1e4, 1e6)), "state_passes": draw(st.sampled_from([0.25, 0.015625]))}
    ratio = draw(st.sampled_from([4, 128]))
    window = {"local_entry_bytes": latent["entry_bytes"], "window_tokens": 128, "tokens_per_entry": ratio, **ring}
    return {**latent, **window, **(index if ratio == 4 else {})}


@st.composite
def models(draw: Draw, moe: bool | None = None) -> Model:
    """Dense models and mixtures of experts with up to four kinds of attention. moe: only these, or only the others."""
    kinds = draw(st.lists(slots(), min_size=1, max_size=N_ATTENTION_SLOTS))
    kinds += [EMPTY_SLOT] * (N_ATTENTION_SLOTS - len(kinds))
    columns = {name: [kind[name] for kind in kinds] for name in EMPTY_SLOT}
    n_layers = sum(columns["attn_layers"]) + draw(st.integers(0, 5))
    params = np.asarray(draw(spread(1e6, 5e10, len(GEMM_GROUPS))))
    params[1:3] *= draw(st.sampled_from([0.0, 1.0]))
    kernel = st.integers(0, len(WEIGHT_KERNELS) - 1)
    values = {
        **columns,
        **draw(experts(n_layers, moe)),
        "gemm_params": params,
        "gemm_bytes": params * draw(st.sampled_from([2.0, 1.0, 0.53125])),
        "gemm_replicated_frac": [draw(st.sampled_from([0.0, 0.3])), 0.0, 0.0, 1.0, 0.0],
        "gemm_kernel": [draw(kernel) for _ in GEMM_GROUPS],
        "gemm_launches": [draw(st.integers(0, 200)) for _ in GEMM_GROUPS],
        "narrow_kv": draw(st.sampled_from([0, 1])),
        "expert_kernel": draw(kernel),
        "n_layers": n_layers,
        "n_blocks": n_layers * draw(st.sampled_from([1, 2])),
        "n_mla_layers": draw(st.integers(0, n_layers)),
        "n_linear_layers": draw(st.integers(0, n_layers)),
        "n_indexer_layers": draw(st.integers(0, n_layers)),
        "hidden_size": draw(st.sampled_from([512, 4096, 7168])),
        "vocab_size": draw(st.sampled_from([32000, 262144])),
        "ffn_width": draw(st.sampled_from([1024, 28672])),
        "table_bytes": draw(st.sampled_from([0.0, 2.1e9])),
        "max_context_tokens": draw(st.sampled_from([4096, 131072, 1048576, 10485760])),
    }
    return cast(Model, values)


@st.composite
def experts(draw: Draw, n_layers: int, moe: bool | None) -> dict[str, float]:
    """Fields of the routed experts; all zero for a dense model."""
    names = ("n_moe_layers", "n_experts", "n_experts_per_token", "expert_params", "expert_bytes")
    if not (draw(st.booleans()) if moe is None else moe):
        return dict.fromkeys(names, 0.0)
    n_experts = draw(st.sampled_from([1, 8, 60, 128, 512]))
    chosen = draw(st.integers(1, min(n_experts, 12)))
    params = draw(between(1e6, 2e8))
    n_moe = draw(st.integers(1, n_layers))
    return dict(
        zip(names, (n_moe, n_experts, chosen, params, params * draw(st.sampled_from([2, 0.5625]))), strict=True)
    )


@st.composite
def devices(draw: Draw) -> Device:
    """Devices from a laptop to a rack, all with a host and a link between domains."""
    values = {
        "memory_bytes": draw(between(1e10, 3e11)),
        "bandwidth_bytes_per_s": draw(between(1e11, 8e12)),
        "peak_flops_per_s": draw(spread(1e13, 1e16, len(WEIGHT_KERNELS))),
        "attention_flops_per_s": draw(between(1e13, 2e15)),
        "vector_flops_per_s": draw(between(1e12, 2e14)),
        "link_bytes_per_s": draw(between(5e9, 9e11)),
        "link_latency_s": draw(between(1e-6, 1e-4)),
        "link_mesh_links": draw(st.sampled_from([0, 3, 7])),
        "allreduce_bytes_per_s": draw(st.sampled_from([INF, INF, 2e10, 4e11])),
        "link_bus": draw(st.sampled_from([0, 1])),
        "domain_devices": draw(st.sampled_from([1, 2, 4, 8, 64])),
        "scale_out_bytes_per_s": draw(between(1e9, 1e11)),
        "scale_out_latency_s": draw(between(1e-6, 1e-4)),
        "pcie_bytes_per_s": draw(between(1e10, 1e11)),
        "host_memory_bytes": draw(between(1e11, 4e12)),
        "host_bandwidth_bytes_per_s": draw(between(5e10, 6e11)),
        "host_flops_per_s": draw(between(1e12, 1e13)),
        "idle_w": draw(between(5, 100)),
        "tdp_w": draw(between(100, 1400)),
        "host_power_w": draw(between(1, 300)),
    }
    return cast(Device, values)


@st.composite
def engines(draw: Draw) -> Engine:
    """Efficiencies in (0, 1], fixed times of microseconds, both scheduling policies."""
    fractions = [f.name for f in fields(Engine) if f.name.endswith("_frac")]
    by_kernel = ("weight_bw_frac", "expert_bw_frac", "gemm_compute_frac", "expert_compute_frac")
    times = [f.name for f in fields(Engine) if f.name.endswith("_s")]
    values = {
        **dict(zip(fractions, draw(spread(0.05, 1.0, len(fractions))), strict=True)),
        **{name: draw(spread(0.05, 1.0, len(WEIGHT_KERNELS))) for name in by_kernel},
        "unpack_flops": draw(st.sampled_from([[0.0] * len(WEIGHT_KERNELS), [8.0] * len(WEIGHT_KERNELS)])),
        **dict(zip(times, draw(spread(1e-7, 1e-4, len(times))), strict=True)),
        **{name: draw(spread(1e-7, 1e-4, len(WEIGHT_KERNELS))) for name in ("gemm_launch_s", "expert_launch_s")},
        "activation_passes": draw(between(0.1, 5.0)),
        "expert_passes": draw(between(0.1, 10.0)),
        "sharpness": draw(between(1.0, 20.0)),
        "routing_skew": draw(between(1e-3, 3.0)),
        "expert_imbalance": draw(between(0.01, 2.0)),
        "score_bytes": draw(st.sampled_from([0.0, 0.0, 16.0])),
        "residency_s_per_byte": draw(st.sampled_from([0.0, 0.0, 1e-11])),
        "reserve_bytes": draw(between(1e8, 3e9)),
        "logit_bytes_per_sequence": draw(st.sampled_from([4.0, 10.0])),
        "block_tokens": draw(st.sampled_from([1, 16, 64])),
        "max_batched_tokens": draw(st.sampled_from([512, 2048, 8192])),
        "max_sequences": draw(st.sampled_from([16, 256, 1024])),
        "graph_tokens": draw(st.sampled_from([INF, INF, 1, 20])),
        "admission_steps": draw(st.sampled_from([1, 1, 10])),
        **{name: draw(st.sampled_from([0, 1])) for name in POLICIES},
    }
    return cast(Engine, values)


@st.composite
def layouts(draw: Draw, hosts: bool = True, dps: tuple[int, ...] = (1, 1, 2, 8)) -> Layout:
    """Powers of two; experts over one rank or over all of a stage. hosts: also with weights in host memory."""
    tp, dp = draw(st.sampled_from([1, 2, 4, 8, 16])), draw(st.sampled_from(dps))
    frac = st.sampled_from([0.0, 0.0, 0.0, 0.25, 1.0]) if hosts else st.just(0.0)
    values = {
        "tp": tp,
        "pp": draw(st.sampled_from([1, 1, 2, 3])),
        "ep": draw(st.sampled_from([1, tp * dp])),
        "dp": dp,
        "replicas": draw(st.integers(1, 4)),
        "host_layer_frac": draw(frac),
        "host_expert_frac": draw(frac),
    }
    return cast(Layout, values)


@st.composite
def workloads(draw: Draw, most_prompt_tokens: int = 20000, runs: st.SearchStrategy[float] = ENDLESS) -> Workload:
    """One user or thousands, short or long prompts and outputs. runs: requests of a run."""
    prompt, output = draw(st.integers(1, most_prompt_tokens)), 4 * draw(st.integers(1, 1000))
    values = {
        "concurrency": draw(st.sampled_from([1, 2, 7, 64, 1000, 5000])),
        "prompt_tokens": prompt,
        "output_tokens": output,
        "context_tokens": prompt + output + draw(st.sampled_from([0, 1, 5000])),
        "kv_pool_tokens": draw(st.sampled_from([INF, INF, 1e5, 1e7])),
        "n_requests": draw(runs),
        "length_spread": draw(st.sampled_from([0, 0.2, 1])),
    }
    return cast(Workload, values)
