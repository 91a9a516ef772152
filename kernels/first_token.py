"""What a prompt waits for before its first token, besides its own prefill.

In an endless loop of many lengths prompts come at any time: half of the step under way, and prompts that came in the
same time and are prefilled beside it. A benchmark adds two things. It offers all users at once, and that opening is
part of the mean; and where all lengths are equal, sequences that started together end together, so that their
successors come together again.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from kernels.types import Engine, Workload, pytree

DISSOLVED = 10.0  # ranges of ending times, over a wave's prefill, that take a wave apart to one half: at a range of a
# fifth of the length nothing of it was seen in 1,000 serving runs, so this only has to be large


@pytree
class Full:
    """Prefill in steps that are as full as budget and users allow. prompt_s: of a step, for each prompt in it."""

    step_s: Array
    prompt_s: Array
    wave_s: Array  # until all running sequences are prefilled


def lockstep(engine: Engine, load: Workload, full: Full, tpot: Array) -> Array:
    """Share of a wave of sequences that is still together when it ends: κ·D / (D + 10·w·O·TPOT).

    D: seconds to prefill the wave; w·O·TPOT: seconds over which it ends. In an endless loop there are no waves.
    """
    apart = DISSOLVED * load.length_spread * load.output_tokens * tpot
    return jnp.where(jnp.isfinite(load.n_requests), engine.lockstep_frac * full.wave_s / (full.wave_s + apart), 0.0)


def line_of_shared(
    engine: Engine, load: Workload, full: Full, others_per_s: Array, share: Array,
    t_dec: Array, t_mix: Array, tpot: Array, own_s: Array,
) -> Array:  # fmt: skip
    """Seconds in line where prefill shares steps with decode; share: of mixed steps.

    A step under way when a prompt comes lasts E[t²]/E[t], and half of that is left. Prompts that come in the same time
    are prefilled beside it. In a wave, the step under way and the prompt's own are full, and the budget cuts the prompt
    in two the more often, the more of it the prompt is.
    """
    mixed = jnp.maximum(t_mix, t_dec)
    under_way = (share * mixed * mixed + (1.0 - share) * t_dec * t_dec) / (share * mixed + (1.0 - share) * t_dec)
    under_way = under_way + (engine.admission_steps - 1.0) * t_dec
    spread = 0.5 * under_way + others_per_s * under_way * full.prompt_s
    of_budget = jnp.minimum(full.prompt_s / full.step_s, 1.0)
    together = (1.5 + 0.5 * of_budget) * full.step_s - own_s
    return spread + lockstep(engine, load, full, tpot) * jnp.maximum(together - spread, 0.0)


def line_of_paused(
    engine: Engine, load: Workload, full: Full, others_per_s: Array, t_dec: Array, t_wave: Array, cycle_s: Array
) -> tuple[Array, Array]:
    """(seconds in line, those of them in which others are prefilled) where prefill pauses decode.

    ρ = others' prompts a second times their prefill: the share of time in which a prefill is under way. In a wave half
    of the others are prefilled before the first token.
    """
    looks = engine.admission_steps * t_dec
    busy = jnp.minimum(others_per_s * t_wave, 1.0)
    under_way = busy * t_wave + (1.0 - busy) * looks
    beside = others_per_s * under_way * full.prompt_s
    spread, prefill = 0.5 * under_way + beside, 0.5 * busy * t_wave + beside
    half = 0.5 * (full.wave_s + full.step_s)
    together = 0.5 * looks + half - t_wave
    part = lockstep(engine, load, full, cycle_s / load.output_tokens)
    in_wave = part * jnp.maximum(together - spread, 0.0)
    return spread + in_wave, prefill + part * jnp.maximum(half - t_wave - prefill, 0.0)


def mean_of_run(first: Array, at_once: Array, later_s: Array, opening_s: Array, wait_s: Array) -> Array:
    """TTFT over all requests of a run, of which the share `first` comes at once.

    later_s, opening_s: without the wait for a slot. Of the first ones, the share `at_once` runs at once and has the
    mean of the opening, the rest what later ones have; they wait for half the queue on average, later ones for all.
    """
    opening = at_once * opening_s + (1.0 - at_once) * later_s + 0.5 * wait_s
    return (1.0 - first) * (later_s + wait_s) + first * opening
