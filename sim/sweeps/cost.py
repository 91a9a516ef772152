"""What a sweep will take on this machine, from one of its own blocks."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

from sim.sweeps.blocks import Sweeper
from sim.sweeps.plan import Plan


@dataclass(frozen=True)
class Cost:
    """memory_bytes: of the process at its largest; seconds: of all blocks; compile_s: before them, or cached."""

    memory_bytes: float
    seconds: float
    compile_s: float


def cost_of(plan: Plan) -> Cost:
    """Evaluates a block twice, first with its compilation: all blocks have its shape, so the others take as long."""
    sweeper = Sweeper(plan)
    first, again = (_timed(sweeper, len(plan.blocks) // 2) for _ in range(2))
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, by getrusage(2)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Cost(largest, again * len(plan.blocks), max(first - again, 0.0))


def _timed(sweeper: Sweeper, i_block: int) -> float:
    start = time.perf_counter()
    sweeper.evaluate(i_block)
    return time.perf_counter() - start
