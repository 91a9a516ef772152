"""What goes into the reference scheduler and what comes out of it: requests, a policy, the cost of a step, a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

Chunk = tuple[int, int, bool]  # tokens computed before, tokens of this step, whether the prompt is then complete
StepSeconds = Callable[[int, int, list[Chunk]], float]  # (decoding sequences, sum of their tokens computed, chunks)


@dataclass(frozen=True)
class Requests:
    """N requests in order of arrival; in a closed loop (users > 0) the arrival times given are not looked at."""

    arrival_s: np.ndarray  # (N,) float64
    prompt_tokens: np.ndarray  # (N,) int
    output_tokens: np.ndarray  # (N,) int
    users: int = 0  # of a closed loop; 0: open loop
    think_s: float = 0.0  # from a completion to the next request of that user
    ids: tuple[tuple[int, ...], ...] = ()  # of each request: names of its prompt's pieces of id_tokens tokens each
    id_tokens: int = 1

    def __post_init__(self) -> None:
        demand(len(self.arrival_s) == len(self.prompt_tokens) == len(self.output_tokens), "as many times as lengths")
        demand(np.all(self.prompt_tokens >= 1) and np.all(self.output_tokens >= 1), "lengths of at least one token")
        ordered = np.all(np.diff(self.arrival_s) >= 0) and np.all(self.arrival_s >= 0)
        demand(self.users > 0 or ordered, "arrivals from 0 on, in order")
        demand(self.users >= 0 and self.think_s >= 0, "no negative users or think time")
        pieces = [-(-int(prompt) // self.id_tokens) for prompt in self.prompt_tokens]
        demand(not self.ids or [len(ids) for ids in self.ids] == pieces, "an id for each piece of a prompt")


@dataclass(frozen=True)
class Policy:
    """The rules of an engine as numbers."""

    block_tokens: int
    n_blocks: int  # usable ones
    max_batched_tokens: int  # token budget of a step; of its prompt tokens alone, unless prefill is mixed
    max_sequences: int
    mixes_prefill: bool = True  # prompts share steps with decode
    reserves: bool = False  # prompt + output allocated at admission
    whole_gate: bool = True  # admission demands that the whole present sequence fits, not the chunk alone
    watermark_blocks: int = 0  # kept free by the whole gate while something runs
    prefix_tokens: int = 0  # of a system prompt that all prompts begin with
    admission_steps: int = 1  # of decode from one look at the line to the next
    caches_prefix: bool = False

    def __post_init__(self) -> None:
        least = min(self.block_tokens, self.n_blocks, self.max_batched_tokens, self.max_sequences)
        demand(least >= 1, "at least one token, block and sequence")
        demand(self.admission_steps >= 1, "a look at the line every step or less often")
        demand(self.watermark_blocks >= 0 and self.prefix_tokens >= 0, "no negative watermark or prefix")

    def blocks(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_tokens)

    def holds(self, prompt: int, output: int) -> bool:
        """Whether an empty cache is enough. The last token is sampled, and written only where its place is reserved."""
        return self.blocks(prompt + output - (not self.reserves)) <= self.n_blocks


@dataclass(frozen=True)
class Step:
    """One engine step; running sequences and blocks are those during the step, after allocation."""

    n_decode: int
    sum_context: int
    chunks: list[Chunk]
    n_preempted: int
    n_running: int
    n_blocks: int
    seconds: float
    clock_s: float  # when it ends


@dataclass(frozen=True)
class Reference:
    """What became of N requests; a refused one has no times (NaN), except an arrival in an open loop."""

    arrival_s: np.ndarray  # (N,)
    scheduled_s: np.ndarray  # (N,) start of the step in which a request is first scheduled
    first_token_s: np.ndarray  # (N,)
    finish_s: np.ndarray  # (N,)
    n_preemptions: np.ndarray  # (N,) int
    n_hit: np.ndarray  # (N,) int tokens found in the cache when it was first admitted
    refused: np.ndarray  # (N,) bool
    itl_s: np.ndarray  # from one token of a request to its next, in order of steps, then of requests
    steps: list[Step]
    max_blocks: int  # high-water mark of blocks in use
    max_running: int
    busy_s: float  # sum of the seconds of all steps
    running_s: float  # sum over steps of running sequences times seconds
    blocks_s: float  # sum over steps of blocks in use times seconds


@dataclass(frozen=True)
class LinearCost:
    """Seconds of a step, linear in what it holds; attention of a chunk is quadratic."""

    step_s: float
    sequence_s: float  # per decoding sequence
    context_s: float  # per token of context read in decode
    chunk_s: float
    token_s: float  # per token of a chunk
    attention_s: float  # per pair of a chunk's token and a token before it
    finish_s: float  # per prompt completed

    def __call__(self, n_decode: int, sum_context: int, chunks: list[Chunk]) -> float:
        seconds = self.step_s + self.sequence_s * n_decode + self.context_s * sum_context
        for depth, tokens, finishes in chunks:
            pairs = tokens * (depth + 0.5 * tokens)
            seconds += self.chunk_s + self.token_s * tokens + self.attention_s * pairs + self.finish_s * finishes
        return seconds


def linear_cost(seed: int) -> LinearCost:
    """Random coefficients, so that a step of an ordinary batch takes between 1 ms and 1 s and no two times tie."""
    scales = {"step_s": 1e-2, "sequence_s": 1e-4, "context_s": 1e-6, "chunk_s": 1e-3, "token_s": 1e-4,
              "attention_s": 1e-7, "finish_s": 1e-4}  # fmt: skip
    draws = np.random.default_rng(seed).uniform(0.1, 1.0, len(scales))
    return LinearCost(**{f.name: float(scales[f.name] * x) for f, x in zip(fields(LinearCost), draws, strict=True)})


def demand(held: bool, what: str) -> None:
    """ValueError that names what was expected of the input."""
    if not held:
        raise ValueError(f"expected {what}")
