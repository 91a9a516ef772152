"""What a sweep will take on this machine, from one of its own blocks."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from sim.sweeps.blocks import Sweeper
from sim.sweeps.plan import Plan


@dataclass(frozen=True)
class Cost:
    """memory_bytes: of the process at its largest; seconds: of all blocks and, of that, build_s: of the deployments;
    compile_s: before the blocks, or cached."""

    memory_bytes: float
    seconds: float
    compile_s: float
    build_s: float


def cost_of(plan: Plan, build_s: float) -> Cost:
    """Evaluates a block twice, first with its compilation: all blocks have its shape, so the others take as long.

    build_s: what the plan took.
    """
    sweeper = Sweeper(plan)
    compile_s, again = first_and_again(lambda: sweeper.evaluate(len(plan.blocks) // 2))
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, by getrusage(2)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Cost(largest, again * len(plan.blocks) + build_s, compile_s, build_s)


def first_and_again(call: Callable[[], object]) -> tuple[float, float]:
    """(seconds that the first call takes longer than the next, as it compiles or reads the cache; those of the next)"""
    first, again = (_timed(call) for _ in range(2))
    return max(first - again, 0.0), again


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
