"""A closed loop of users, from the seconds of its steps. Element by element: arguments of any shapes broadcast."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from kernels.first_token import Full, line_of_paused, line_of_shared, mean_of_run
from kernels.roofline import divide
from kernels.step import busy_ranks, micro_batches
from kernels.types import Device, Engine, Layout, Workload, pytree

MEAN_FILL = 0.75  # share of its output that a sequence holds when memory is contended (fit on queued serving rows)


@pytree
class Pace:
    """What one request of a replica sees. line: wait inside the engine; most_per_s: prompts that can be prefilled."""

    tpot_s: Array
    line_s: Array
    own_s: Array
    most_per_s: Array


@pytree
class Loop:
    """Times of a closed loop. rate_per_s: requests of a busy replica; busy_frac: share of replicas that have users."""

    ttft_s: Array
    tpot_s: Array
    e2e_s: Array
    prefill_s: Array
    rate_per_s: Array
    busy_frac: Array


Make = Callable[[], Pace]
Choose = Callable[[Array, Make, Make], Pace]


def by_element(hit: Array, one: Make, other: Make) -> Pace:
    """`one` where hit, `other` elsewhere."""
    return jax.tree.map(functools.partial(jnp.where, hit), one(), other())


def by_grid(hit: Array, one: Make, other: Make) -> Pace:
    """The same, where only what some element takes is computed."""
    shapes = jax.tree.map(lambda a: a.shape, jax.eval_shape(lambda: by_element(hit, one, other)))
    alone = (lambda make=make: jax.tree.map(jnp.broadcast_to, make(), shapes) for make in (one, other))
    return lax.switch(jnp.any(hit) + 2 * jnp.any(~hit) - 1, (*alone, lambda: by_element(hit, one, other)))


def closed_loop(
    engine: Engine, layout: Layout, load: Workload, running: Array, chunk: Array, share: Array,
    decode_s: Array, alone_s: Array, wave_s: Array, mixed_s: Array, filled_s: Array, choose: Choose = by_element,
) -> Loop:  # fmt: skip
    """The loop of a replica whose `five_steps` take so long. Element by element: arguments of any shapes broadcast."""
    t_prefill, t_wave = (t * serial_chunks(engine, layout, load.prompt_tokens) for t in (alone_s, wave_s))
    full = full_steps(engine, layout, load, running, filled_s)
    pace = choose(
        engine.mixes_prefill > 0,
        lambda: shared_pace(engine, layout, load, running, chunk, share, decode_s, mixed_s, t_prefill, full),
        lambda: paused_pace(engine, layout, load, running, decode_s, t_prefill, t_wave, full),
    )
    decoding = (load.output_tokens - 1.0) * pace.tpot_s
    service = engine.request_s + pace.line_s + pace.own_s + decoding
    each = load.concurrency / layout.replicas  # below 1, some replicas stand idle
    users = jnp.maximum(each, 1.0)
    in_slots = users / running * (pace.own_s + decoding)
    wait = jnp.maximum(jnp.maximum(in_slots, users / pace.most_per_s) - service, 0.0)
    later, half = pace.line_s + pace.own_s, jnp.where(running > 1.0, 0.5 * (full.wave_s + full.step_s), 0.0)
    opening = jnp.maximum(half, t_prefill)
    first = jnp.minimum(load.concurrency / load.n_requests, 1.0)
    ttft = engine.request_s + mean_of_run(first, running / users, later, opening, wait)
    return Loop(
        ttft_s=ttft,
        tpot_s=pace.tpot_s,
        e2e_s=ttft + decoding,
        prefill_s=t_prefill,
        rate_per_s=users / jnp.maximum(service + wait, ttft + decoding),
        busy_frac=jnp.minimum(each, 1.0),
    )


def shared_pace(
    engine: Engine,
    layout: Layout,
    load: Workload,
    running: Array,
    chunk: Array,
    share: Array,
    t_dec: Array,
    t_mix: Array,
    t_prefill: Array,
    full: Full,
) -> Pace:
    """Prefill chunks share steps with decode: TPOT = t_dec + s·(t_mix − t_dec), s the share of mixed steps.

    A prompt joins the step after the one under way, and takes P/c mixed steps of its rank; no more than c tokens of
    prompts pass in a step.
    """
    crowd = running > 1.0
    tpot = t_dec + share * jnp.maximum(t_mix - t_dec, 0.0)
    ranks = busy_ranks(layout, running)
    steps = jnp.maximum(load.prompt_tokens * ranks / chunk, 1.0)
    passes = through_stages(engine, layout, steps)
    own = jnp.where(crowd, jnp.maximum(passes * t_mix, t_prefill), t_prefill)
    others_per_s = jnp.maximum(running / ranks - 1.0, 0.0) / (load.output_tokens * tpot + own)
    line = line_of_shared(engine, load, full, others_per_s, share, t_dec, t_mix, tpot, own)
    return Pace(
        tpot_s=tpot,
        line_s=jnp.where(crowd, line, 0.0),
        own_s=own,
        most_per_s=chunk / load.prompt_tokens / t_mix * steps / passes,
    )


def paused_pace(
    engine: Engine,
    layout: Layout,
    load: Workload,
    running: Array,
    t_dec: Array,
    t_prefill: Array,
    t_wave: Array,
    full: Full,
) -> Pace:
    """Prefill pauses decode: while a request runs, each of the others of its rank is prefilled once.

    Of that queue a part is waited for before the first token, the rest q slows the decode: TPOT = t_dec + q / O.
    """
    ranks = busy_ranks(layout, running)
    others = jnp.maximum(running / ranks - 1.0, 0.0)
    queue = others * t_wave
    cycle = load.output_tokens * t_dec + queue + t_wave
    line, before = line_of_paused(engine, load, full, others / cycle, t_dec, t_wave, cycle)
    return Pace(
        tpot_s=t_dec + jnp.maximum(queue - before, 0.0) / load.output_tokens,
        line_s=jnp.where(others > 0, line, 0.0),
        own_s=jnp.where(running > 1.0, t_wave, t_prefill),
        most_per_s=ranks / t_wave,
    )


def full_tokens(engine: Engine, layout: Layout, load: Workload, running: Array) -> Array:
    """Prompt tokens of a step that is as full as budget and running sequences allow."""
    return jnp.minimum(budget_left(engine, layout, running), running * load.prompt_tokens)


def full_steps(engine: Engine, layout: Layout, load: Workload, running: Array, step_s: Array) -> Full:
    """The times of such steps, from those of one."""
    tokens = full_tokens(engine, layout, load, running)
    steps = running * load.prompt_tokens / tokens
    prompts = tokens / (load.prompt_tokens * busy_ranks(layout, running))
    return Full(step_s=step_s, prompt_s=step_s / prompts, wave_s=through_stages(engine, layout, steps) * step_s)


def mean_context(load: Workload) -> Array:
    """Cached tokens of a sequence, averaged over its decode."""
    return load.prompt_tokens + 0.5 * load.output_tokens


def running_sequences(engine: Engine, layout: Layout, load: Workload, held: Array) -> Array:
    """Sequences that run at once in one replica, in prefill or in decode.

    The least of: concurrency; the engine's limit; what the KV pool holds, at P + 0.75·O tokens each or at the whole
    context where the engine reserves it; and, where prefill shares the token budget B with decode, B·(O + m)/(P + O)
    with m = ⌈P/B⌉ steps of prefill each, beyond which prompts arrive slower than outputs end.
    held: `sequences_held` of `kept_tokens`.
    """
    asked = jnp.maximum(load.concurrency / layout.replicas, 1.0)
    steps = load.output_tokens + prompt_chunks(engine, load.prompt_tokens)
    budget = engine.max_batched_tokens * layout.dp * in_flight(engine, layout)
    budget = budget * steps / (load.prompt_tokens + load.output_tokens)
    shared = jnp.where(engine.mixes_prefill > 0, budget, jnp.inf)
    limit = engine.max_sequences * layout.dp
    return jnp.maximum(jnp.minimum(jnp.minimum(asked, limit), jnp.minimum(held, shared)), 1.0)


def kept_tokens(engine: Engine, load: Workload) -> Array:
    """Tokens for which a sequence takes memory when memory is contended."""
    filled = load.prompt_tokens + MEAN_FILL * load.output_tokens
    return jnp.where(engine.reserves_context > 0, load.context_tokens, filled)


def in_flight(engine: Engine, layout: Layout) -> Array:
    """Micro-batches that a full pipeline holds, each with a token budget of its own."""
    return jnp.where(engine.pipelines > 0, layout.pp, 1.0)


def budget_left(engine: Engine, layout: Layout, running: Array) -> Array:
    """Prompt tokens for which the budget has room, beside the running sequences where they share it."""
    budget = engine.max_batched_tokens * layout.dp * in_flight(engine, layout)
    return jnp.maximum(budget - engine.mixes_prefill * running, 1.0)


def mixing(engine: Engine, layout: Layout, running: Array, prompt: Array, output: Array) -> tuple[Array, Array]:
    """(prefill tokens of a mixed step, share of a sequence's decode steps that others' prompts make mixed).

    A request is m steps in prefill and O in decode, and R prompts pass in that time. A mixed step carries one prompt a
    busy rank, more where prompts come faster, and at most what the budget leaves.
    """
    left = budget_left(engine, layout, running)
    whole = prompt * busy_ranks(layout, running)
    per_step = running * prompt / (output + jnp.maximum(whole / left, 1.0))
    chunk = jnp.clip(per_step, jnp.minimum(whole, left), left)
    return chunk, jnp.minimum(per_step / chunk, 1.0) * (running - 1.0) / running


def prompt_chunks(engine: Engine, prompt_tokens: Array) -> Array:
    """Chunks of a prompt alone: ⌈P / B⌉."""
    return jnp.ceil(prompt_tokens / engine.max_batched_tokens)


def serial_chunks(engine: Engine, layout: Layout, prompt_tokens: Array) -> Array:
    """Chunk times that a prompt alone takes."""
    return through_stages(engine, layout, prompt_chunks(engine, prompt_tokens))


def through_stages(engine: Engine, layout: Layout, chunks: Array) -> Array:
    """Step times of m chunks of a prompt: m, or 1 + (m − 1)/p where they follow each other through p stages."""
    overlap = engine.pipelines_prompts * (1.0 - 1.0 / layout.pp)
    return 1.0 + (chunks - 1.0) * (1.0 - overlap)


@pytree
class Work:
    """Of a decode step and of a prompt's equal chunk on one rank, what its own memory moves and its own units do."""

    decode_bytes: Array
    decode_flops: Array
    prefill_flops: Array  # of experts, which span the ranks, and a rank's share of the rest


def utilization(
    device: Device, engine: Engine, layout: Layout, load: Workload, running: Array, work: Work, peak: Array,
    requests_per_s: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """(MBU, MFU) of a device: share of peak bandwidth, and of `highest_peak`, over the loop."""
    flights = micro_batches(engine, layout, running)
    working = jnp.minimum(running / layout.dp, 1.0)
    steps_per_s = requests_per_s * (load.output_tokens - 1.0) / running
    local = working * flights / layout.pp * steps_per_s
    mbu = divide(work.decode_bytes * local, device.bandwidth_bytes_per_s)
    prompt_flops = work.prefill_flops * prompt_chunks(engine, load.prompt_tokens) / layout.pp
    return mbu, (work.decode_flops * local + prompt_flops * requests_per_s) / peak
