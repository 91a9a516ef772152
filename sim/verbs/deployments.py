"""What verbs on scenario files share: a deployment's keys as arguments, its profile, and where a problem is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sim.config import Scenario
from sim.errors import RoofcastError, sentence
from sim.profiles import PRIORS

SAME_NAME = ("engine", "gpus", "tp", "pp", "ep", "dp", "replicas", "weights", "kv",
             "max_num_batched_tokens", "max_num_seqs", "gpu_memory_utilization", "kv_blocks", "gpu_layers",
             "cpu_moe_frac")  # fmt: skip


@contextmanager
def placed(place: str, problems: list[str]) -> Iterator[None]:
    """Notes what a RoofcastError says, with its place, instead of raising it."""
    try:
        yield
    except RoofcastError as error:
        problems += [sentence(problem, place) for problem in error.problems]


def profile_of(scenario: Scenario, folder: Path) -> str | None:
    """The profile that a scenario of a folder names, as a path from here; None where it names none."""
    own = scenario.profile
    return own if own in (None, PRIORS) else str(folder / own)
