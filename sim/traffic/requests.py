"""The requests of one run, as arrays: what a simulation reads, whether they were drawn or recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Hashes:
    """What the prompts share: for each request the ids of its blocks, of which equal ids hold equal text.

    Block k of a request stands for all its tokens up to (k + 1) · block_tokens; its last block may be partly filled.
    """

    offsets: np.ndarray  # (N + 1,) int64: the ids of request i are ids[offsets[i] : offsets[i + 1]]
    ids: np.ndarray  # (offsets[-1],) int64
    block_tokens: int

    def take(self, rows: np.ndarray, prompt_tokens: np.ndarray) -> Hashes:
        """The ids of these requests (M,), each cut to the blocks of a prompt of so many tokens (M,)."""
        most = -(-prompt_tokens.astype(np.int64) // self.block_tokens)
        lengths = np.minimum(np.diff(self.offsets)[rows], most)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Hashes(offsets, self.ids[np.repeat(self.offsets[rows], lengths) + within], self.block_tokens)


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests in order of arrival.

    users: 0 of an open loop; of a closed loop how many users ask, each `think_s` after the last answer, and then
    `arrival_s` is zero: when a request arrives is for the simulation to find out.
    system_prompt_tokens: the first tokens of every prompt, the same in all of them; part of prompt_tokens.
    warmup: the first requests that figures leave out. ready_s, thought_s: where the users of a closed loop do not all
    begin at 0 and think think_s, when each asks first, and for how long the n-th who has an answer thinks.
    provenance: where the requests are from, in a sentence without its full stop.
    """

    arrival_s: np.ndarray  # (N,) float64, nondecreasing, >= 0
    prompt_tokens: np.ndarray  # (N,) int32, >= 1
    output_tokens: np.ndarray  # (N,) int32, >= 1
    provenance: str
    users: int = 0
    think_s: float = 0.0
    warmup: int = 0
    ready_s: np.ndarray | None = None  # (users,) float64
    thought_s: np.ndarray | None = None  # (N,) float64
    system_prompt_tokens: int = 0
    hashes: Hashes | None = None

    def __len__(self) -> int:
        return len(self.prompt_tokens)
