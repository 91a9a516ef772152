"""Pytrees of coefficients that the kernels read. Unbatched: map them with `jax.vmap`.

Shape letters: G GEMM groups, K attention slots, C weight kernels, O operations of a step. No letter: a scalar.
Every number is dynamic; nothing about a model or a machine is static, so that all of them share one compilation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import jax
from jax import Array

GEMM_GROUPS = ("attention projections", "dense FFN", "shared experts", "router, norms, other", "output head")
OPERATIONS = (*GEMM_GROUPS, "routed experts", "attention", "indexer", "recurrent state", "communication",
              "host memory", "launches", "scheduler and sampling")  # fmt: skip
ROUTED, ATTENTION, INDEXER, STATE, COMMUNICATION, HOST, LAUNCH, SCHEDULER = range(len(GEMM_GROUPS), len(OPERATIONS))
HEAD = GEMM_GROUPS.index("output head")
WEIGHT_KERNELS = ("bf16", "fp8", "int8", "fp4", "int4", "gguf_k", "gguf_iq", "mlx")
N_ATTENTION_SLOTS = 4
T = TypeVar("T")


def pytree(cls: type[T]) -> type[T]:
    """A frozen dataclass whose fields are all leaves."""
    return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls))


@pytree
class Model:
    """A model at one weight format and one KV format, whole (before parallelism)."""

    gemm_params: Array  # (G,) parameters that multiply each token
    gemm_bytes: Array  # (G,) bytes streamed once a step
    gemm_replicated_frac: Array  # (G,) share that every TP rank holds whole
    gemm_kernel: Array  # (G,) int32, index into WEIGHT_KERNELS
    gemm_launches: Array  # (G,) GEMM kernels of a step, each between the residual stream and something else
    n_moe_layers: Array
    n_experts: Array
    n_experts_per_token: Array
    expert_params: Array  # of one expert of one layer
    expert_bytes: Array  # of one expert of one layer
    expert_kernel: Array  # int32
    narrow_kv: Array  # 1: the cache is stored in 8 bits or fewer
    attn_layers: Array  # (K,) layers of this kind
    attn_stored_frac: Array  # (K,) 1, or 0 where the layer reads another layer's cache
    attn_kv_heads: Array  # (K,) heads over which TP can split the cache (1: replicated)
    attn_heads: Array  # (K,) query heads
    attn_min_heads: Array  # (K,) to which a kernel pads the heads of a rank
    local_entry_bytes: Array  # (K,) one cached token inside the window, keys and values
    window_tokens: Array  # (K,)
    entry_bytes: Array  # (K,) one cached entry of the global stream
    tokens_per_entry: Array  # (K,) 1, or the compression ratio
    topk_entries: Array  # (K,) entries attended at most (inf: all)
    index_entry_bytes: Array  # (K,) indexer key of one entry
    index_stored_frac: Array  # (K,)
    decode_flops_per_entry: Array  # (K,) scores and values, all heads
    prefill_flops_per_pair: Array  # (K,)
    index_flops_per_entry: Array  # (K,)
    state_bytes: Array  # (K,) recurrent or compressor state of one sequence and layer
    state_passes: Array  # (K,) times a step moves that state: 2 where all is read and written
    state_flops_per_token: Array  # (K,)
    state_heads: Array  # (K,)
    n_layers: Array
    n_blocks: Array  # mixers and feed-forward blocks: two a layer, one in some hybrids
    n_mla_layers: Array
    n_linear_layers: Array
    n_indexer_layers: Array  # that score the cache anew, then attend to the best entries
    hidden_size: Array
    vocab_size: Array
    ffn_width: Array  # widest intermediate activation of a token
    table_bytes: Array  # embeddings, per-layer tables, encoders: stored, not streamed in a step; split by TP
    max_context_tokens: Array


@pytree
class Device:
    """One device and its links, at peak. Bandwidths are one direction, per device."""

    memory_bytes: Array
    bandwidth_bytes_per_s: Array
    peak_flops_per_s: Array  # (C,) rate of the unit that multiplies each weight kernel
    attention_flops_per_s: Array
    vector_flops_per_s: Array  # of the units that unpack weights, beside those that multiply matrices
    link_bytes_per_s: Array
    link_latency_s: Array  # of a small message; the engine's own start-up time may be longer
    link_mesh_links: Array  # 0: switched; otherwise direct links, one a peer
    allreduce_bytes_per_s: Array  # measured bus bandwidth of a large all-reduce, or inf
    link_bus: Array  # 1: a shared bus, over which collectives pass rank by rank
    domain_devices: Array
    scale_out_bytes_per_s: Array
    scale_out_latency_s: Array
    pcie_bytes_per_s: Array
    host_memory_bytes: Array
    host_bandwidth_bytes_per_s: Array
    host_flops_per_s: Array
    idle_w: Array
    tdp_w: Array
    host_power_w: Array  # a device's share of the rest of the server, at its peak


@pytree
class Engine:
    """How an engine uses a device: efficiencies, fixed times, limits and policy."""

    weight_bw_frac: Array  # (C,) of bandwidth, dense GEMM at small batch
    expert_bw_frac: Array  # (C,)
    gemm_compute_frac: Array  # (C,) of peak, dense GEMM at large batch
    expert_compute_frac: Array  # (C,)
    unpack_flops: Array  # (C,) vector operations to unpack one weight, once a step
    kv_bw_frac: Array
    narrow_kv_bw_frac: Array  # where the kernel widens 8-bit entries before it multiplies
    attention_decode_frac: Array  # of peak FLOP/s
    attention_prefill_frac: Array
    score_bytes: Array  # moved per head and attention pair; 0: flash attention, which keeps the scores on the chip
    state_bw_frac: Array  # of bandwidth, recurrent and compressor state
    state_compute_frac: Array  # of peak FLOP/s, recurrent scan
    link_frac: Array
    host_bw_frac: Array
    sharpness: Array  # p of the smooth maximum
    routing_skew: Array
    expert_imbalance: Array  # of the spread that random routing gives the fullest EP rank: 0 balanced, 1 random
    activation_passes: Array  # times what flows between GEMMs crosses memory
    expert_passes: Array  # the same among the experts: sorted, quantized, gathered, summed
    gemm_launch_s: Array  # (C,) of a dense GEMM of no size, its quantization included
    expert_launch_s: Array  # (C,) of the grouped kernels of one MoE layer
    attention_launch_s: Array  # of a layer's attention or state kernels
    layer_s: Array  # of a layer, all other kernels
    ungraphed_layer_s: Array  # gaps between the kernels of a layer outside a captured graph: so much longer
    eager_layer_s: Array  # launches of a layer outside a captured graph: at least so long; more for each kind:
    eager_moe_layer_s: Array
    eager_mla_layer_s: Array
    eager_linear_layer_s: Array
    moe_layer_s: Array
    mla_layer_s: Array
    linear_layer_s: Array
    indexer_layer_s: Array  # scores, selection and gathering of a layer that selects what it attends to
    step_s: Array
    sequence_s: Array  # per running sequence and step
    request_s: Array  # front end, once a request
    residency_s_per_byte: Array  # of weights made resident again at each call that prefills; 0: they stay so
    allreduce_s: Array  # at two ranks
    allreduce_log2_s: Array  # for each doubling of ranks beyond two
    allreduce_ramp_s: Array  # for each doubling of ranks, of a message beyond a mebibyte: the second exchange
    memory_frac: Array
    reserve_bytes: Array  # context, graphs, workspace, per device
    logit_bytes_per_sequence: Array  # per vocabulary entry
    block_tokens: Array
    max_batched_tokens: Array
    max_sequences: Array
    graph_tokens: Array  # most decode tokens, times stages, of a step that replays a captured graph
    admission_steps: Array  # decode steps from one look at new prompts to the next
    lockstep_frac: Array  # share of sequences of equal length that stay together once they started together
    mixes_prefill: Array  # 1: prefill chunks share steps with decode, 0: prefill pauses decode
    pipelines: Array  # 1: pipeline stages decode different micro-batches at once
    pipelines_prompts: Array  # 1: chunks of a prompt follow each other through the stages; below, with waits; 0: not
    last_token_alone: Array  # 1: the last token of a prompt is a step of its own
    reserves_context: Array  # 1: a sequence's whole context is allocated when it starts
    counts_activations: Array  # 1: the memory fraction holds activations too
    decode_power_frac: Array  # of (tdp - idle), at full memory utilization
    prefill_power_frac: Array  # of (tdp - idle), at full compute utilization


@pytree
class Layout:
    """Parallelism. A replica spans tp * pp * dp devices; the experts spread over tp * dp ranks, ep ways."""

    tp: Array
    pp: Array
    ep: Array
    dp: Array  # attention data parallel, within the replica
    replicas: Array
    host_layer_frac: Array  # layers computed by the host, from its memory
    host_expert_frac: Array  # routed experts of the other layers that stay in host memory


@pytree
class Workload:
    """A closed loop: `concurrency` users of one replica set, each sending its next request at once."""

    concurrency: Array
    prompt_tokens: Array
    output_tokens: Array
    context_tokens: Array  # to reserve for a sequence, at least prompt + output
    kv_pool_tokens: Array  # stated by the user, or inf: follows from memory
    n_requests: Array  # of a benchmark that starts with all users at once; inf: an endless loop
    length_spread: Array  # width of the uniform range of lengths, over their mean


@pytree
class Load:
    """Aggregates of one engine step over a replica; sums over sequences of what each must read or multiply."""

    n_decode_tokens: Array
    n_prefill_tokens: Array
    n_logit_tokens: Array
    n_sequences: Array
    local_entries: Array  # (K,) decode reads inside windows
    global_entries: Array  # (K,) decode reads of the global stream
    index_entries: Array  # (K,)
    prefill_pairs: Array  # (K,) attention pairs of prefill tokens, windows and top-k applied
    prefill_index_pairs: Array  # (K,)
    prefill_local_entries: Array  # (K,) cache reads of prefill chunks
    prefill_global_entries: Array  # (K,)


@pytree
class StepTime:
    """One step, by operation, on the critical path of a replica."""

    seconds: Array  # (O,)
    bytes: Array  # (O,) per rank
    flops: Array  # (O,) per rank
    memory_s: Array  # (O,)
    compute_s: Array  # (O,)
    total_s: Array


@pytree
class Memory:
    """Bytes on the fullest device of a replica, and what fits beside the weights."""

    usable_bytes: Array
    weights_bytes: Array
    host_bytes: Array  # over the whole replica
    activation_bytes: Array
    reserve_bytes: Array
    pool_bytes: Array  # left for KV cache and state (negative: the weights do not fit)
    host_pool_bytes: Array  # host memory left for the cache of the layers there
    sequence_kv_bytes: Array  # of one sequence at the asked context
    sequence_state_bytes: Array
    max_sequences: Array


@pytree
class Steady:
    """Closed-loop steady state of one workload."""

    running_sequences: Array
    ttft_s: Array
    tpot_s: Array
    itl_s: Array
    e2e_s: Array
    decode_step_s: Array
    prefill_s: Array
    requests_per_s: Array  # over all replicas
    mbu_frac: Array
    mfu_frac: Array
    decode: StepTime  # a pure decode step at the running batch
    prefill: StepTime  # one prompt alone, or one of its equal chunks


@pytree
class Economics:
    """Money and energy of a deployment at a steady state."""

    power_w: Array
    joules_per_token: Array
    usd_per_hour: Array
    usd_per_output_token: Array
    usd_per_token: Array  # prompt and output tokens alike
