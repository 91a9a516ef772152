"""Seconds of prompts alone, step by step."""

from __future__ import annotations

import math

from kernels.types import Device, Engine, Layout, Model
from tests.oracle.layers import plain
from tests.oracle.memory import weights
from tests.oracle.steady import passes
from tests.oracle.step import step
from tests.oracle.work import Batch


def prefill_s(
    model: Model, device: Device, engine: Engine, layout: Layout, n_prompts: int, prompt: int, depth: int
) -> float:
    """Equal chunks of the prompts but for a last token that the engine leaves for a step of its own; and the weights
    made resident at the start.
    """
    e, x = plain(engine), plain(layout)
    apart = int(e.last_token_alone) if prompt > 1 else 0
    n_chunks = math.ceil(n_prompts * (prompt - apart) / e.max_batched_tokens)
    chunk = Batch(prefill=[(n_prompts / n_chunks, depth, prompt - apart)])
    seconds = step(model, device, engine, layout, chunk).total_s * passes(e, x, n_chunks)
    if apart:
        seconds += step(model, device, engine, layout, Batch([(n_prompts, depth + prompt)])).total_s
    return seconds + e.residency_s_per_byte * weights(model, layout)[0]
