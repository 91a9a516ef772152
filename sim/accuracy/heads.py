"""The head figures of the accuracy document: which rows each is of, and what it aims at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sim.measure import Measurement

SMALL_BATCH = 8
DEEP_TOKENS = 4096


@dataclass(frozen=True)
class Head:
    """The median error, or the mean where `mean`, over the rows that `of` picks."""

    name: str
    aim_frac: float
    of: Callable[[Measurement], bool]
    mean: bool = False


def is_silicon(row: Measurement, quantity: str) -> bool:
    """Whether a row is of the closed-loop serving runs that aims are set for."""
    return row.source == "silicon" and row.quantity == quantity


def _local(row: Measurement, quantity: str) -> bool:
    return source(row) == "local" and row.quantity == quantity


def source(row: Measurement) -> str:
    """Where a row is from, without the set in it: "silicon", "serving", "local", "vllm"."""
    return row.source.partition(":")[0]


HEADS: Sequence[Head] = (
    Head("Serving TPOT (silicon), median", 0.075, lambda row: is_silicon(row, "tpot_s")),
    Head("Serving TPOT (silicon), mean", 0.11, lambda row: is_silicon(row, "tpot_s"), mean=True),
    Head("Serving TTFT (silicon), median", 0.20, lambda row: is_silicon(row, "ttft_s")),
    Head(
        f"Local decode, batch up to {SMALL_BATCH}, median",
        0.08,
        lambda row: _local(row, "decode_step_s") and row.concurrency <= SMALL_BATCH,
    ),
    Head("Local decode of MoE models, median", 0.12, lambda row: _local(row, "decode_step_s") and row.moe),
    Head(
        "Local decode behind 4k tokens and more, median",
        0.12,
        lambda row: _local(row, "decode_step_s") and row.prompt >= DEEP_TOKENS,
    ),
    Head("Local prefill, median", 0.15, lambda row: _local(row, "prefill_s")),
)
LEFT_OUT_AIMS = {"model": 0.14, "device": 0.16}
RANK_AIM = 0.95
COVERAGE_AIM = (0.75, 0.87)
