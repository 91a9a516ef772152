"""Many runs at once: each is one deployment, with the requests of one level and replication."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple

import numpy as np

from sim.config import ROUND_ROBIN
from sim.serving.deployment import Served
from sim.serving.lanes import Lane, Progress, n_workers, serve
from sim.serving.outcomes import Outcome
from sim.serving.router import dispatch
from sim.serving.runs import Run, deal, gather
from sim.serving.users import converse
from sim.traffic.requests import Requests

Tell = Callable[[str, int, int], None]  # what, requests done, requests in all


class Asked(NamedTuple):
    """A run to be: what serves it, its requests, and the longest sequence that is taken."""

    served: Served
    requests: Requests
    context_tokens: int

    @property
    def routed(self) -> bool:
        """Whether the state of the replicas decides who gets what."""
        return self.served.replicas > 1 and self.served.router != ROUND_ROBIN


def serve_runs(asked: Sequence[Asked], tell: Tell | None = None, what: str = "requests") -> list[Run]:
    """Serves all of them, over all cores; tell is given `what`, how many requests are done, and of how many."""
    progress = _counted(sum(len(one.requests) for one in asked), tell, what)
    lanes: list[Lane] = []
    dealt = {}
    for i, one in enumerate(asked):
        if one.requests.ready_s is None and not one.routed:
            new, replica = deal(*one)
            dealt[i] = replica, slice(len(lanes), len(lanes) + len(new))
            lanes += new
    outcomes = serve(lanes, progress=progress)
    with ThreadPoolExecutor(n_workers()) as pool:
        ids = [i for i in range(len(asked)) if i not in dealt]
        alone = dict(zip(ids, pool.map(lambda i: _alone(asked[i], progress), ids), strict=True))

    def found(i: int) -> tuple:
        if i in alone:
            return alone[i]
        replica, mine = dealt[i]
        return replica, outcomes[mine]

    return [gather(one.served, one.requests, *found(i)) for i, one in enumerate(asked)]


def _alone(one: Asked, progress: Progress | None) -> tuple[np.ndarray, list[Outcome]]:
    """(N,) the replica of each request, and the outcome of each, of a run in which arrivals depend on the replicas."""
    ready_s, thought_s = one.requests.ready_s, one.requests.thought_s
    if ready_s is None or thought_s is None:
        return dispatch(*one, progress)
    lanes, replica = deal(*one)
    later_s = thought_s + one.served.front_s  # users see an answer when the front end has it
    shares = [(ready_s[i :: len(lanes)], later_s[replica == i]) for i in range(len(lanes))]
    return replica, [converse(lane, *share, progress) for lane, share in zip(lanes, shares, strict=True)]


def _counted(total: int, tell: Tell | None, what: str) -> Progress | None:
    if tell is None:
        return None
    done, lock = 0, Lock()

    def count(n: int) -> None:
        nonlocal done
        with lock:
            done += n
            tell(what, done, total)

    return count
