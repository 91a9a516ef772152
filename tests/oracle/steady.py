"""Closed loop of the replicas, from the oracle's own steps and caches."""

from __future__ import annotations

import math
from types import SimpleNamespace

from kernels.types import Device, Engine, Layout, Model, Workload
from tests.oracle import memory
from tests.oracle.layers import plain, stages
from tests.oracle.step import flights, step
from tests.oracle.work import Batch

Spaces = SimpleNamespace
MEAN_FILL = 0.75
DISSOLVED = 10.0
EXPERTS, COMMUNICATION, HOST = 5, 9, 10


def running_sequences(model: Model, e: Spaces, x: Spaces, w: Spaces, pool_bytes: float) -> float:
    """Users of a replica, unless memory, the engine's limit or (where prompts share its budget) their tokens bind."""
    tokens = w.context_tokens if e.reserves_context else w.prompt_tokens + MEAN_FILL * w.output_tokens
    stage = max(stages(float(model.n_layers), x.pp)) / float(model.n_layers) * (1.0 - x.host_layer_frac)
    each = stage * sum(memory.cache(model, int(tokens), int(x.tp)))
    held = min(memory.held_sequences(pool_bytes, each), w.kv_pool_tokens / tokens)
    limits = [max(w.concurrency / x.replicas, 1.0), e.max_sequences * x.dp]
    limits.append(math.floor(held) * x.dp if held < math.inf else held)
    if e.mixes_prefill:
        steps = w.output_tokens + math.ceil(w.prompt_tokens / e.max_batched_tokens)
        limits.append(budget(e, x) / ((w.prompt_tokens + w.output_tokens) / steps))
    return max(min(limits), 1.0)


def budget(e: Spaces, x: Spaces) -> float:
    """Tokens of all steps under way at once: of every attention-DP rank, and every micro-batch in a pipeline."""
    return sum(e.max_batched_tokens for _ in range(int(x.dp * (x.pp if e.pipelines else 1))))


def room_of(e: Spaces, x: Spaces, running: float) -> float:
    """What the running sequences leave of the budget, where they take part of it."""
    return max(budget(e, x) - (running if e.mixes_prefill else 0.0), 1.0)


def chunk_of(e: Spaces, x: Spaces, w: Spaces, running: float) -> tuple[float, float]:
    """(prefill tokens of a mixed step, share of decode steps that another's prompt is in): a prompt for each busy rank,
    or what is needed for R of them to pass while each spends its own prefill and O steps here, but no more than the
    running sequences leave of the budget.
    """
    room = room_of(e, x, running)
    one_each = w.prompt_tokens * ranks_of(x, running)
    stay = w.output_tokens + max(one_each / room, 1.0)
    needed = running * w.prompt_tokens / stay
    chunk = min(max(needed, one_each), room)
    others = 1.0 - 1.0 / running
    return chunk, min(needed / chunk, 1.0) * others


def ranks_of(x: Spaces, running: float) -> float:
    """Attention-DP ranks with a sequence."""
    return max(min(running, x.dp), 1.0)


def passes(e: Spaces, x: Spaces, n_chunks: float) -> float:
    """Steps until the last of a prompt's chunks leaves the last stage, in passes through all stages: the first passes
    all of them, each further one is out a stage later where nothing waits, and a whole pass later where all waits.
    """
    followed = 1.0 / x.pp
    return 1.0 + (n_chunks - 1.0) * (e.pipelines_prompts * followed + (1.0 - e.pipelines_prompts))


def pace(e: Spaces, x: Spaces, w: Spaces, running: float, steps: Spaces) -> Spaces:
    """TPOT, the wait in line, the prefill of one's own, and the most prompts a second that prefill alone allows."""
    ranks = ranks_of(x, running)
    t_dec, t_wave, t_prefill = (
        steps.decode.total_s,
        steps.serial * steps.wave.total_s,
        steps.serial * steps.alone.total_s,
    )
    out = Spaces(tpot=t_dec, line=0.0, own=t_prefill, most_per_s=math.inf)
    others = max(running / ranks - 1.0, 0.0)
    if not e.mixes_prefill:
        out.most_per_s = ranks / t_wave
        if running > 1:
            out.own = t_wave
        if others:
            out.line, before = line_of_paused(e, w, steps, others, t_dec, t_wave)
            out.tpot += max(others * t_wave - before, 0.0) / w.output_tokens
        return out
    out.tpot += steps.mixed_share * max(steps.mixed.total_s - t_dec, 0.0)
    n_steps = max(w.prompt_tokens / (steps.chunk / ranks), 1.0)
    in_passes = passes(e, x, n_steps)
    if running > 1:
        out.own = max(in_passes * steps.mixed.total_s, t_prefill)
        out.line = line_of_shared(e, w, steps, others, out.tpot, out.own)
    out.most_per_s = steps.chunk / w.prompt_tokens * n_steps / (in_passes * steps.mixed.total_s)
    return out


def kept_together(e: Spaces, w: Spaces, steps: Spaces, tpot: float) -> float:
    """Share of a wave that started together and ends so: of none in an endless loop, of few where lengths differ."""
    if not math.isfinite(w.n_requests):
        return 0.0
    ends_within = w.length_spread * w.output_tokens * tpot
    return e.lockstep_frac / (1.0 + DISSOLVED * ends_within / steps.wave_s)


def line_of_shared(e: Spaces, w: Spaces, steps: Spaces, others: float, tpot: float, own: float) -> float:
    """A step drawn at random in time, of which half is left, and the prompts that come while it lasts; or, together
    with the wave: half a full step, one's own, and half of a third as often as the budget cuts a prompt.
    """
    t_dec, t_mix, s = steps.decode.total_s, max(steps.mixed.total_s, steps.decode.total_s), steps.mixed_share
    weights = s * t_mix, (1.0 - s) * t_dec
    lasts = (weights[0] * t_mix + weights[1] * t_dec) / sum(weights) + (e.admission_steps - 1.0) * t_dec
    come = others / (w.output_tokens * tpot + own) * lasts
    alone = lasts / 2.0 + come * steps.full.total_s / steps.full_prompts
    cut = min(1.0 / steps.full_prompts, 1.0)
    in_wave = steps.full.total_s * (0.5 + 1.0 + 0.5 * cut) - own
    return alone + kept_together(e, w, steps, tpot) * max(in_wave - alone, 0.0)


def line_of_paused(
    e: Spaces, w: Spaces, steps: Spaces, others: float, t_dec: float, t_wave: float
) -> tuple[float, float]:
    """(time in line, the part of it in which others are prefilled): of one who comes alone, and of one in a wave."""
    cycle = w.output_tokens * t_dec + (others + 1.0) * t_wave
    busy = min(others * t_wave / cycle, 1.0)
    looks = e.admission_steps * t_dec
    lasts = busy * t_wave + (1.0 - busy) * looks
    beside = others / cycle * lasts * steps.full.total_s / steps.full_prompts
    alone = lasts / 2.0 + beside, busy * t_wave / 2.0 + beside
    in_wave = (steps.wave_s + steps.full.total_s) / 2.0 - t_wave
    share = kept_together(e, w, steps, cycle / w.output_tokens)
    line = alone[0] + share * max(looks / 2.0 + in_wave - alone[0], 0.0)
    return line, alone[1] + share * max(in_wave - alone[1], 0.0)


def five_steps(model: Model, device: Device, engine: Engine, layout: Layout, w: Spaces, running: float) -> Spaces:
    """The steps that the loop is made of."""
    e, x, prompt = plain(engine), plain(layout), int(w.prompt_tokens)
    chunk, mixed_share = chunk_of(e, x, w, running)
    n_chunks = math.ceil(prompt / e.max_batched_tokens)
    full = min(room_of(e, x, running), running * w.prompt_tokens)
    half = [((running - 1.0) / 2.0, prompt + 0.5 * w.output_tokens)] if e.mixes_prefill and running > 1 else []
    decoding = [(running, prompt + 0.5 * w.output_tokens)]
    batches = {
        "decode": Batch(decoding),
        "alone": Batch(prefill=[(1.0 / n_chunks, 0, prompt)]),
        "wave": Batch(prefill=[(1.0 / n_chunks, 0, prompt)], copies=ranks_of(x, running)),
        "mixed": Batch(decoding, [(chunk / prompt, 0, prompt)]),
        "full": Batch(half, [(full / prompt, 0, prompt)]),
    }
    found = {name: step(model, device, engine, layout, batch) for name, batch in batches.items()}
    serial = passes(e, x, n_chunks)
    wave_s = passes(e, x, running * w.prompt_tokens / full) * found["full"].total_s
    prompts = full / w.prompt_tokens / ranks_of(x, running)
    return Spaces(n_chunks=n_chunks, serial=serial, chunk=chunk, mixed_share=mixed_share, wave_s=wave_s,
                  full_prompts=prompts, **found)  # fmt: skip


def steady(model: Model, device: Device, engine: Engine, layout: Layout, load: Workload, pool_bytes: float) -> Spaces:
    """Latencies, rate and utilization; the rate is the least of three bounds, and what exceeds it waits."""
    e, x, w = plain(engine), plain(layout), plain(load)
    running = running_sequences(model, e, x, w, pool_bytes)
    steps = five_steps(model, device, engine, layout, w, running)
    at = pace(e, x, w, running, steps)
    in_slot = at.own + (w.output_tokens - 1.0) * at.tpot
    users, busy_replicas = max(w.concurrency / x.replicas, 1.0), min(x.replicas, w.concurrency)
    rate = min(users / (e.request_s + at.line + in_slot), running / in_slot, at.most_per_s)
    found = Spaces(tpot_s=at.tpot, decode_step_s=steps.decode.total_s, prefill_s=steps.serial * steps.alone.total_s)
    in_steps = (w.output_tokens - 1.0) * at.tpot
    later = users / rate - in_steps
    wait = later - e.request_s - at.line - at.own
    n_waiting = users - running
    half = (steps.wave_s + steps.full.total_s) / 2.0 if running > 1 else 0.0
    opening = e.request_s + max(half, steps.serial * steps.alone.total_s)
    first = (running * opening + n_waiting * (later - wait)) / users + wait / 2.0
    n_first = min(w.concurrency, w.n_requests)
    found.ttft_s = later if math.isinf(w.n_requests) else later + n_first / w.n_requests * (first - later)
    found.e2e_s = found.ttft_s + in_steps
    rate = min(rate, users / found.e2e_s)
    found.running_sequences, found.requests_per_s = running * busy_replicas, rate * busy_replicas
    moved, multiplied = per_device(e, x, steps, running, rate * (w.output_tokens - 1.0) / running, rate)
    found.mbu_frac = moved / plain(device).bandwidth_bytes_per_s * busy_replicas / x.replicas
    found.mfu_frac = multiplied / fastest_unit(model, device) * busy_replicas / x.replicas
    return found


def fastest_unit(model: Model, device: Device) -> float:
    """Peak FLOP/s of the fastest unit that any weights of the model run on."""
    m, d = plain(model), plain(device)
    used = {*m.gemm_kernel} | ({m.expert_kernel} if m.n_moe_layers else set())
    return max(d.peak_flops_per_s[unit] for unit in used)


def per_device(
    e: Spaces, x: Spaces, steps: Spaces, running: float, passes_per_s: float, requests_per_s: float
) -> tuple[float, float]:
    """(bytes of decode, FLOPs of decode and of whole prompts) of a device of a busy replica in a second; `step` tells
    those of a rank with sequences. Routed experts lie on all ranks, so a prompt on one rank occupies them all.
    """
    working = min(running / x.dp, 1.0) * flights(e, x, running) / x.pp * passes_per_s
    moved = sum(v for o, v in enumerate(steps.decode.bytes) if o not in (HOST, COMMUNICATION))
    multiplied = sum(v for o, v in enumerate(steps.decode.flops) if o != HOST)
    own = [v / (1.0 if o == EXPERTS else x.dp) for o, v in enumerate(steps.alone.flops) if o != HOST]
    return moved * working, multiplied * working + steps.n_chunks * sum(own) / x.pp * requests_per_s
