"""Step tables whose seconds are those of the reference scheduler's linear cost."""

from __future__ import annotations

import numpy as np

from kernels.step import LaunchParts
from kernels.step_table import BEHIND, DECODE, DECODE_MEMORY, N_COLUMNS, TOKEN, UP_TO, A, StepTable, knots
from tests.oracle.replica import LinearCost


def linear_table(cost: LinearCost) -> StepTable:
    """The table of a cost whose sequence_s is at least token_s + chunk_s + finish_s."""
    x, zero = knots(), np.float64(0.0)
    rest = cost.sequence_s - cost.token_s - cost.chunk_s - cost.finish_s
    context = np.zeros((len(x), N_COLUMNS))
    context[:, DECODE] = context[:, DECODE_MEMORY.start] = rest + cost.context_s * x
    context[:, TOKEN.start] = cost.attention_s * (x - 0.5)
    context[:, UP_TO.start] = cost.attention_s * 0.5 * x * x
    context[:, BEHIND] = 0.0
    return StepTable(
        by_tokens=np.stack([cost.token_s * x, *np.zeros((5, len(x)))], axis=1),
        by_context=context,
        token_memory_s=np.zeros(A),
        token_bytes=zero,
        head_work=np.zeros(2),
        head_s=np.array([[0.0, cost.finish_s], [0.0, 0.0]]),
        launches=LaunchParts(zero, zero, zero),
        graph_tokens=np.float64(np.inf),
        sharpness=np.float64(1.2),
        step_s=np.float64(cost.step_s),
        sequence_s=np.float64(cost.chunk_s),
        flights=np.float64(1.0),
        pp=np.float64(1.0),
        dp=np.float64(1.0),
    )
