"""What a search for capacity found, as one row per deployment: how much, what limits it, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.config import Deployment, Scenario
from sim.report.number import show, show_load
from sim.results import Result
from sim.serving.deployment import Served
from sim.serving.levels import AT_LEVEL, Row
from sim.serving.metrics import UNITS
from sim.serving.misses import DOLLARS, missed
from sim.serving.trials import Trials

_OWN_UNITS = {
    "label": "", "model": "", "hardware": "", "fits": "1", "replicas": "1", "n_devices": "1", "limited_by": "",
    "over_frac": "1", "at_most": "1", "at_least": "1", "verdict": "",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What was tried of one deployment, and between which values it stops keeping to the objectives."""

    trials: Trials
    served: Served
    usd_per_hour: float | None = None  # at most, where replicas are counted: fewer would keep to nothing

    @property
    def rows(self) -> Mapping[float, Row]:
        """By value, of the longest runs."""
        return self.trials.rows

    @property
    def best(self) -> float | None:
        """The last value that keeps."""
        return self.trials.ends[0]

    @property
    def beyond(self) -> float | None:
        """The first that does not."""
        return self.trials.ends[1]

    @property
    def dear(self) -> bool:
        """Whether the fewest replicas that keep to the other objectives cost more than they may."""
        most, best = self.usd_per_hour, self.best
        return most is not None and best is not None and self.rows[best]["usd_per_hour"] > most

    @property
    def disagreement(self) -> tuple[float, float]:
        """From the first value at which replications disagree to the last; NaN where they never do."""
        split = [value for value, kept in self.trials.votes.items() if any(kept) and not all(kept)]
        return (min(split), max(split)) if split else (np.nan, np.nan)


def capacity_summary(
    scenario: Scenario, found: Mapping[str, Found], results: Mapping[str, Result], unit: str, fewest: bool, load: str
) -> Result:
    """One row per deployment. unit: of what was tried; load: what the traffic counts."""
    rows = []
    for deployment in scenario.deployments:
        one = found.get(deployment.label)
        if one is None:
            (level,) = results[deployment.label].rows()
            rows.append(_row(deployment, None, level, str(level["verdict"]), fewest))
        else:
            at = one.best if one.best is not None else one.beyond
            assert at is not None
            rows.append(_row(deployment, one, one.rows[at], _verdict(one, unit, fewest), fewest))
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    known = {**_OWN_UNITS, **UNITS, **dict.fromkeys(("max_load", "next", "disagree_from", "disagree_to"), unit)}
    return Result(columns, {name: known[name] for name in columns}, details={"load": load, "tried": unit})


def _row(deployment: Deployment, one: Found | None, row: Row, verdict: str, fewest: bool) -> dict[str, Any]:
    none = one is None or one.best is None or one.dear
    best = 0.0 if none else one.best
    limit, over = _limit(one)
    disagree = (np.nan, np.nan) if one is None else one.disagreement
    each = one.served.n_devices // one.served.replicas if one is not None else 0
    n = best if fewest else float(one.served.replicas if one is not None else 0)
    doubtful = one is not None and one.trials.doubtful and not none
    nothing = fewest and none  # no replicas have no figures
    return {
        "label": deployment.label,
        "model": deployment.model,
        "hardware": deployment.hardware,
        "fits": one is not None,
        **({"at_least": doubtful} if fewest else {"max_load": best, "at_most": doubtful}),
        "replicas": int(n),
        "n_devices": int(n) * each,
        "next": np.nan if one is None or one.beyond is None else one.beyond,
        "limited_by": limit,
        "over_frac": over,
        "disagree_from": disagree[0],
        "disagree_to": disagree[1],
        **{name: np.nan if nothing or row[name] is None else row[name] for name in AT_LEVEL},
        "verdict": verdict,
    }


def _limit(one: Found | None) -> tuple[str, float]:
    """What is missed by the largest part at the first value beyond, and that part."""
    if one is not None and one.dear:
        assert one.best is not None and one.usd_per_hour is not None
        return DOLLARS, one.rows[one.best]["usd_per_hour"] / one.usd_per_hour - 1
    if one is None or one.beyond is None:
        return "", np.nan
    over: dict[str, float] = one.rows[one.beyond]["over"]
    name = max(over, key=lambda name: over[name])
    return name, over[name]


def _verdict(one: Found, unit: str, fewest: bool) -> str:
    """One sentence: how much, what the next value misses, and what makes that doubtful."""
    if one.best is None:
        assert one.beyond is not None
        return f"none: even with {show_load(one.beyond, unit)}: {one.rows[one.beyond]['verdict']}"
    told, row = show_load(one.best, unit), one.rows[one.best]
    if one.dear:
        costs, most = (show("usd_per_hour", value) for value in (row["usd_per_hour"], one.usd_per_hour))
        return f"none: it takes {told}, and {costs} is above {most}"
    if one.beyond is not None:
        told += f"; with {show_load(one.beyond, unit)}: {missed(one.rows[one.beyond])}"
        name, over = _limit(one)
        told += f" ({name} by {show('frac', over)})" if np.isfinite(over) else ""
    if one.beyond is None and not fewest:
        told = f"at least {told}, the highest load that was tried"
    elif one.trials.doubtful:
        told = f"at {'least' if fewest else 'most'} {told}"
    return "; ".join(filter(None, [told, *_doubts(one, one.best, unit), row["doubt"]]))


def _doubts(one: Found, best: float, unit: str) -> list[str]:
    """What makes the answer doubtful, beside the figures there."""
    told = []
    if before := one.trials.moved_from:
        told.append(f"runs so long moved it from {show_load(before, unit)}, and longer ones may again")
    low, high = one.disagreement
    if np.isfinite(low):
        span = f"with {show_load(low, unit)}" if low == high else f"from {low:g} to {show_load(high, unit)}"
        told.append(f"replications disagree {span}")
    farther = [value for value, row in one.rows.items() if row["keeps"] and _between(best, one.beyond, value)]
    if farther:
        told.append(f"keeps again with {show_load(min(farther, key=lambda v: abs(v - best)), unit)}")
    if one.trials.wanted:
        told.append("the search met its bound of rounds before these were close")
    return told


def _between(first: float, second: float | None, third: float) -> bool:
    return second is not None and (second - first) * (third - second) > 0
