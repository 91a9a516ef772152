"""A run: the requests of one level and replication of traffic, served by the replicas of one deployment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.serving.deployment import Served
from sim.serving.lanes import Lane
from sim.serving.outcomes import Outcome
from sim.traffic.requests import Requests

LONGER_THAN_CONTEXT = -1  # in the place of a replica


@dataclass(frozen=True, eq=False)
class Run:
    """What became of N requests, in the order of the traffic. Seconds are of the simulation's clock, (N,) each.

    NaN where it did not come to that: the request was refused, or the run met its bound.
    """

    served: Served
    requests: Requests
    replica: np.ndarray  # (N,) int that served it, or LONGER_THAN_CONTEXT
    outcomes: tuple[Outcome, ...]  # of each replica
    arrival_s: np.ndarray
    scheduled_s: np.ndarray
    first_token_s: np.ndarray
    finish_s: np.ndarray
    n_preemptions: np.ndarray  # (N,) int
    refused: np.ndarray  # (N,) bool, for either reason

    @property
    def ttft_s(self) -> np.ndarray:
        """(N,) time to first token, with the engine's front end."""
        return self.first_token_s - self.arrival_s + self.served.front_s

    @property
    def e2e_s(self) -> np.ndarray:
        """(N,) from arrival to the last token, with the engine's front end."""
        return self.finish_s - self.arrival_s + self.served.front_s

    @property
    def tpot_s(self) -> np.ndarray:
        """(N,) mean time per output token after the first; NaN for outputs of one token."""
        later = self.requests.output_tokens - 1
        return (self.finish_s - self.first_token_s) / np.where(later > 0, later, np.nan)

    @property
    def too_long(self) -> np.ndarray:
        """(N,) bool: refused because prompt and output are longer than the context."""
        return self.replica == LONGER_THAN_CONTEXT

    @property
    def complete(self) -> bool:
        """Whether every request that was not refused is done."""
        return all(outcome.complete for outcome in self.outcomes)

    @property
    def status(self) -> np.ndarray:
        """(N,) of each request in words."""
        refused = np.where(self.too_long, "refused: longer than the context", "refused: longer than the KV cache")
        return np.where(self.refused, refused, np.where(np.isnan(self.finish_s), "unfinished", "done"))


def deal(served: Served, requests: Requests, context_tokens: int) -> tuple[list[Lane], np.ndarray]:
    """A lane for each replica, which get requests in turn, and (N,) the replica of each request.

    Of a closed loop they get users in turn, and requests in proportion to them, as many for one user as for another.
    """
    n_replicas = min(served.replicas, requests.users or served.replicas)
    fits = fitting(requests, context_tokens)
    turn = np.cumsum(fits) - 1
    turn = turn % requests.users if requests.users else turn
    replica = np.where(fits, turn % n_replicas, LONGER_THAN_CONTEXT)
    return lanes_of(served, requests, replica, n_replicas), replica


def fitting(requests: Requests, context_tokens: int) -> np.ndarray:
    """(N,) bool: prompt and output are no longer than the context."""
    return requests.prompt_tokens.astype(np.int64) + requests.output_tokens <= context_tokens


def lanes_of(served: Served, requests: Requests, replica: np.ndarray, n_replicas: int) -> list[Lane]:
    """A lane for each replica, of the requests that are its own. Users see an answer when the front end has it."""
    lanes = []
    for i in range(n_replicas):
        mine = replica == i
        users = requests.users // n_replicas + (i < requests.users % n_replicas)
        prompt, hashes = requests.prompt_tokens[mine], requests.hashes
        lanes.append(
            Lane(
                table=served.table,
                rules=served.rules,
                arrival_s=requests.arrival_s[mine],
                prompt_tokens=prompt,
                output_tokens=requests.output_tokens[mine],
                users=users,
                think_s=requests.think_s + served.front_s,
                warmup=int(np.count_nonzero(mine[: requests.warmup])),
                hashes=None if hashes is None else hashes.take(np.flatnonzero(mine), prompt),
            )
        )
    return lanes


def gather(served: Served, requests: Requests, replica: np.ndarray, outcomes: list[Outcome]) -> Run:
    """The run of which these are the replicas' outcomes."""

    def whole(name: str, empty: float) -> np.ndarray:
        column = np.full(len(replica), empty, getattr(outcomes[0], name).dtype)
        for i, outcome in enumerate(outcomes):
            column[replica == i] = getattr(outcome, name)
        return column

    times = {name: whole(name, np.nan) for name in ("arrival_s", "scheduled_s", "first_token_s", "finish_s")}
    if not requests.users:
        times["arrival_s"] = requests.arrival_s
    n_preemptions, refused = whole("n_preemptions", 0), whole("refused", True)
    return Run(served, requests, replica, tuple(outcomes), **times, n_preemptions=n_preemptions, refused=refused)
