"""Seconds of one step: every layer, sequence and rank by itself."""

from __future__ import annotations

import math
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np

from kernels.types import Device, Engine, Layout, Model
from tests.oracle import collectives
from tests.oracle.layers import attention_layers, plain
from tests.oracle.work import Batch, attention_work, distinct_experts

BYTES_PER_ACTIVATION = 2.0
HEAD = 4
Spaces = SimpleNamespace
Row = tuple[float, float, float, float]


def p_norm(memory_s: float, compute_s: float, p: float) -> float:
    """(aᵖ + bᵖ)^(1/p), scaled by the larger so that it does not underflow."""
    large = max(memory_s, compute_s)
    return large * ((memory_s / large) ** p + (compute_s / large) ** p) ** (1.0 / p) if large else 0.0


def over(amount: float, rate: float) -> float:
    """Seconds of an amount at a rate; nothing takes no time."""
    return amount / rate if amount else 0.0


def flights(engine: Spaces, layout: Spaces, n_sequences: float) -> float:
    """Micro-batches in flight: never more than stages or sequences of a rank, never less than one."""
    return max(min(layout.pp, n_sequences / layout.dp), 1.0) if engine.pipelines else 1.0


def step(model: Model, device: Device, engine: Engine, layout: Layout, batch: Batch) -> Spaces:
    """(O,) seconds, bytes and FLOPs of one rank, and the total, in the order of kernels.types.OPERATIONS."""
    m, d, e, x = plain(model), plain(device), plain(engine), plain(layout)
    part = 1.0 / flights(e, x, batch.n_sequences)
    ranks = max(min(batch.n_sequences * part, x.dp), 1.0)  # that have a sequence, of those with attention of their own
    tokens = batch.n_tokens * part / ranks
    rows = [gemm(m, d, e, x, group, tokens, batch.n_logits * part / ranks) for group in range(HEAD + 1)]
    rows.append(experts(m, d, e, x, batch.n_tokens * part))
    rows += attention(model, d, e, x, batch, part / ranks)
    kept = [(1.0 - x.host_layer_frac) * (1.0 - x.host_expert_frac * (i == HEAD + 1)) for i in range(len(rows))]
    there = [tuple(value * (1.0 - k) for value in row) for row, k in zip(rows, kept, strict=True)]
    here = [tuple(value * k for value in row) for row, k in zip(rows, kept, strict=True)]
    seconds = [p_norm(row[2], row[3], e.sharpness) for row in here]
    comm_s, sent = communication(m, d, e, x, tokens)
    host_bytes, host_flops = sum(row[0] for row in there), sum(row[1] for row in there)
    seconds += [comm_s, host(m, d, e, host_bytes, host_flops)]
    decoding = sum(count for count, _ in batch.decode) * batch.copies * part / ranks
    captured = not batch.prefill and decoding * x.pp <= e.graph_tokens
    seconds.append(launches(m, e, tokens, captured, sum(seconds)))
    seconds.append(e.step_s + batch.n_sequences / max(min(batch.n_sequences, x.dp), 1.0) * e.sequence_s)
    return SimpleNamespace(
        seconds=np.asarray(seconds),
        bytes=np.asarray([row[0] for row in here] + [sent, host_bytes, 0.0, 0.0]),
        flops=np.asarray([row[1] for row in here] + [0.0, host_flops, 0.0, 0.0]),
        total_s=sum(seconds),
    )


def gemm(m: Spaces, d: Spaces, e: Spaces, x: Spaces, group: int, tokens: float, logits: float) -> Row:
    """One dense group: a rank streams what it holds whole and its part of the rest, and multiplies its rows by it."""
    whole = m.gemm_replicated_frac[group]
    held = whole + (1.0 - whole) / x.tp
    n_bytes = m.gemm_bytes[group] * held
    flops = 2.0 * m.gemm_params[group] * held * (logits if group == HEAD else tokens)
    unit = m.gemm_kernel[group]
    rows = logits if group == HEAD else tokens
    moved = e.activation_passes * crossing(m, rows, m.gemm_launches[group], m.gemm_params[group] * held)
    memory_s = over(n_bytes + moved, d.bandwidth_bytes_per_s * e.weight_bw_frac[unit])
    unpack_s = over(m.gemm_params[group] * held * e.unpack_flops[unit], d.vector_flops_per_s)
    return n_bytes, flops, memory_s, over(flops, d.peak_flops_per_s[unit] * e.gemm_compute_frac[unit]) + unpack_s


def crossing(m: Spaces, rows: float, n_matrices: float, params: float) -> float:
    """Bytes of inputs and outputs of some weight matrices: each has the hidden size on one side."""
    elements = 0.0
    for _ in range(int(n_matrices)):
        other_side = params / n_matrices / m.hidden_size
        elements += rows * (m.hidden_size + other_side)
    if not n_matrices:
        elements = rows * params / m.hidden_size
    return BYTES_PER_ACTIVATION * elements


def experts(m: Spaces, d: Spaces, e: Spaces, x: Spaces, tokens: float) -> Row:
    """Routed experts: the fullest of `ep` groups of ranks, where a group shares each of its experts."""
    sharing = x.tp * x.dp / x.ep
    hit = distinct_experts(m.n_experts, m.n_experts_per_token, tokens, max(e.routing_skew, 1e-3))
    read, rows = fullest(m, e, x, tokens, hit)
    n_bytes = flops = moved = n_weights = 0.0
    for _ in range(int(m.n_moe_layers)):
        moved += e.expert_passes * crossing(m, rows, 2, m.expert_params / sharing)
        n_bytes += read * m.expert_bytes / sharing
        n_weights += read * m.expert_params / sharing
        flops += 2.0 * rows * m.expert_params / sharing
    unit = m.expert_kernel
    memory_s = over(n_bytes + moved, d.bandwidth_bytes_per_s * e.expert_bw_frac[unit])
    unpack_s = over(n_weights * e.unpack_flops[unit], d.vector_flops_per_s)
    return n_bytes, flops, memory_s, over(flops, d.peak_flops_per_s[unit] * e.expert_compute_frac[unit]) + unpack_s


def fullest(m: Spaces, e: Spaces, x: Spaces, tokens: float, hit: float) -> tuple[float, float]:
    """Experts that the fullest EP rank reads, and its rows: the mean, and what chance adds for the largest of them."""
    ranks, copies = x.ep, tokens * m.n_experts_per_token
    if not hit:
        return 0.0, copies / ranks
    deviate = e.expert_imbalance * NormalDist().inv_cdf((ranks - 3 / 8) / (ranks + 1 / 4))
    share = min(hit / m.n_experts, 1.0 - 1e-6)
    by_number = deviate * math.sqrt((ranks - 1) / (share * m.n_experts))
    read = m.n_experts / ranks * (1.0 - (1.0 - share) ** (1.0 + by_number))
    by_load = deviate * math.sqrt((ranks - 1) * (max(e.routing_skew, 0.0) / m.n_experts + 1.0 / max(copies, 1.0)))
    at_most = m.n_experts / ranks
    return min(max(read, min(hit, 1.0)), at_most), min(copies / ranks * (1.0 + by_load), copies)


def attention(model: Model, d: Spaces, e: Spaces, x: Spaces, batch: Batch, part: float) -> list[Row]:
    """Attention, indexer and recurrent state, summed over the layers. part: share of the batch on one rank at once."""
    m = plain(model)
    work = list(attention_work(list(attention_layers(model)), batch, x.tp))
    names = ("cache", "scores", "decode_flops", "prefill_flops", "index", "index_flops", "state", "state_flops")
    cache, scores, decode, prefill, index, index_flops, state, state_flops = (
        part * sum(getattr(w, name) for w in work) for name in names
    )
    cache += e.score_bytes * scores
    reached = e.narrow_kv_bw_frac if m.narrow_kv else e.kv_bw_frac
    bandwidth, peak = d.bandwidth_bytes_per_s * reached, d.attention_flops_per_s
    compute = decode / (peak * e.attention_decode_frac) + prefill / (peak * e.attention_prefill_frac)
    dense = peak * e.attention_prefill_frac
    return [
        (cache, decode + prefill, cache / bandwidth, compute),
        (index, index_flops, index / bandwidth, index_flops / dense),
        (
            state,
            state_flops,
            state / (d.bandwidth_bytes_per_s * e.state_bw_frac),
            state_flops / (peak * e.state_compute_frac),
        ),
    ]


def communication(m: Spaces, d: Spaces, e: Spaces, x: Spaces, tokens: float) -> tuple[float, float]:
    """Block by block: an all-reduce after each mixer and feed-forward; but attention-DP spreads the tokens of an MoE
    block over the experts of all ranks and gathers them again. Then the hops from stage to stage.
    """
    message = tokens * m.hidden_size * BYTES_PER_ACTIVATION
    reduce_s = collectives.all_reduce(message, x.tp, d, e)
    spread_s = collectives.all_to_all(message, m.n_experts_per_token, x.tp * x.dp, d, e)
    seconds = sent = 0.0
    for block in range(int(m.n_blocks)):
        spread = x.dp > 1 and block < m.n_moe_layers
        seconds += 2.0 * spread_s if spread else reduce_s
        sent += message if x.tp > 1 and not spread else 0.0
    near_s, far_s = collectives.point_to_point(message, d, e)
    borders = math.ceil(x.tp * x.dp * x.pp / d.domain_devices) - 1
    for hop in range(1, int(x.pp)):
        seconds += far_s if hop <= borders else near_s
        sent += message
    return seconds, sent


def host(m: Spaces, d: Spaces, e: Spaces, n_bytes: float, flops: float) -> float:
    """What host memory holds is multiplied there, or brought over PCIe and multiplied here, whichever is sooner."""
    if not n_bytes:
        return 0.0
    there = p_norm(
        over(n_bytes, d.host_bandwidth_bytes_per_s * e.host_bw_frac), over(flops, d.host_flops_per_s), e.sharpness
    )
    unit = m.gemm_kernel[0]
    here = over(n_bytes, d.pcie_bytes_per_s * e.link_frac) + over(
        flops, d.peak_flops_per_s[unit] * e.gemm_compute_frac[unit]
    )
    return min(there, here)


def launches(m: Spaces, e: Spaces, tokens: float, captured: bool, busy_s: float) -> float:
    """Fixed time of every layer, of which half is for each of its blocks; outside a graph with gaps, and launching
    every block by itself besides, as the legs of a right triangle add up.
    """
    if not tokens:
        return 0.0
    seconds = gaps = one_by_one = 0.0
    for _ in range(int(m.n_blocks)):
        seconds += e.layer_s / 2.0
        gaps += e.ungraphed_layer_s / 2.0
        one_by_one += e.eager_layer_s / 2.0
    for layer in range(int(m.n_layers)):
        seconds += e.moe_layer_s + e.expert_launch_s[m.expert_kernel] if layer < m.n_moe_layers else 0.0
        seconds += e.mla_layer_s if layer < m.n_mla_layers else 0.0
        seconds += e.linear_layer_s if layer < m.n_linear_layers else 0.0
        seconds += e.indexer_layer_s if layer < m.n_indexer_layers else 0.0
        one_by_one += e.eager_moe_layer_s if layer < m.n_moe_layers else 0.0
        one_by_one += e.eager_mla_layer_s if layer < m.n_mla_layers else 0.0
        one_by_one += e.eager_linear_layer_s if layer < m.n_linear_layers else 0.0
    seconds += sum(e.attention_launch_s for count in m.attn_layers for _ in range(int(count)))
    for count, unit in zip(m.gemm_launches, m.gemm_kernel, strict=True):
        seconds += sum(e.gemm_launch_s[unit] for _ in range(int(count)))
    if captured:
        return seconds
    whole = busy_s + seconds + gaps
    return math.hypot(whole, one_by_one) - busy_s
