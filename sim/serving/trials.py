"""What a search for capacity has tried of one deployment, and how much longer its runs are to be.

A queue that grows slowly, or a batch that still fills, looks like one that keeps up until a run is long enough. So the
search is made again around its answer with runs LONGER times as long, until that changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from sim.serving.search import Axis

LONGER = 4.0  # at the most, from one search to the next
SAME_FRAC = 0.02  # two searches agree
ENOUGH_REQUESTS = 100_000  # of a replica, in one run
MOST_REQUESTS_NEAR = 5_000_000  # of all runs of one search around an answer
LOADS_NEAR = 8  # that such a search tries, about
ROUTED_COST = 10  # requests in turn that are served while a router that looks deals one
Row = dict[str, Any]


@dataclass(frozen=True)
class Trials:
    """Rows and votes by the value that was tried, of runs that are all `times` as long as the scenario says."""

    axis: Axis
    rows: dict[float, Row] = field(default_factory=dict)
    votes: dict[float, list[bool]] = field(default_factory=dict)  # of each replication by itself
    times: float = 1.0
    shorter: Trials | None = None  # what runs before these found

    @property
    def _keeps(self) -> dict[float, bool]:
        return {value: row["keeps"] for value, row in self.rows.items()}

    @property
    def wanted(self) -> list[float]:
        """What to try next."""
        return self.axis.next_values(self._keeps)

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The last value that keeps, and the first that does not."""
        return self.axis.ends(self._keeps)

    @property
    def moved_from(self) -> float | None:
        """What runs before these found, where these find something else."""
        best, before = self.ends[0], self.shorter.ends[0] if self.shorter else None
        return before if best is not None and before is not None and abs(best / before - 1) > SAME_FRAC else None

    @property
    def doubtful(self) -> bool:
        """Whether longer runs may find less. Where nothing keeps they cannot."""
        best, _ = self.ends
        return best is not None and (self.moved_from is not None or bool(self.rows[best]["doubt"]))

    @property
    def settled(self) -> bool:
        """Whether longer runs would say the same, as these do of those before."""
        return self.ends[0] is None or (self.shorter is not None and not self.doubtful)

    def longer(self, replicas: int, replications: int, routed: bool) -> Trials | None:
        """A search around the answer with longer runs; None where they would exceed their bound."""
        best, _ = self.ends
        assert best is not None
        n_requests = self.rows[best]["n_requests"]
        near = MOST_REQUESTS_NEAR / (LOADS_NEAR * replications * (ROUTED_COST if routed else 1))
        factor = min(LONGER, ENOUGH_REQUESTS * replicas / n_requests, near / n_requests)
        if factor < LONGER / 2:
            return None
        return Trials(replace(self.axis, start=best, near=True), times=factor * self.times, shorter=self)

    def all_rows(self) -> list[Row]:
        """Those of the longest runs, and beyond the values that they tried those of shorter ones, in order."""
        rows = self.rows
        if self.shorter is not None:
            low, high = min(rows), max(rows)
            rows = rows | {row["load"]: row for row in self.shorter.all_rows() if not low <= row["load"] <= high}
        return [rows[value] for value in sorted(rows)]
