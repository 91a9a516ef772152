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
from sim.serving.misses import missed

_OWN_UNITS = {
    "label": "", "model": "", "hardware": "", "fits": "1", "replicas": "1", "n_devices": "1", "limited_by": "",
    "over_frac": "1", "verdict": "",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The values that were tried of one deployment, and between which of them it stops keeping to the objectives."""

    rows: Mapping[float, Row]
    votes: Mapping[float, list[bool]]  # of each replication by itself; none where there is one
    best: float | None  # the last value that keeps
    beyond: float | None  # the first that does not
    served: Served
    cut_short: bool  # the search met its bound of rounds

    @property
    def disagreement(self) -> tuple[float, float]:
        """From the first value at which replications disagree to the last; NaN where they never do."""
        split = [value for value, kept in self.votes.items() if any(kept) and not all(kept)]
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
            rows.append(_row(deployment, one, one.rows[at], _verdict(one, scenario, unit, fewest), fewest))
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    known = {**_OWN_UNITS, **UNITS, **dict.fromkeys(("max_load", "next", "disagree_from", "disagree_to"), unit)}
    return Result(columns, {name: known[name] for name in columns}, details={"load": load, "tried": unit})


def _row(deployment: Deployment, one: Found | None, row: Row, verdict: str, fewest: bool) -> dict[str, Any]:
    best = 0.0 if one is None or one.best is None else one.best
    limit, over = _limit(one)
    disagree = (np.nan, np.nan) if one is None else one.disagreement
    each = one.served.n_devices // one.served.replicas if one is not None else 0
    n = best if fewest else float(one.served.replicas if one is not None else 0)
    return {
        "label": deployment.label,
        "model": deployment.model,
        "hardware": deployment.hardware,
        "fits": one is not None,
        **({} if fewest else {"max_load": best}),
        "replicas": int(n),
        "n_devices": int(n) * each,
        "next": np.nan if one is None or one.beyond is None else one.beyond,
        "limited_by": limit,
        "over_frac": over,
        "disagree_from": disagree[0],
        "disagree_to": disagree[1],
        **{name: np.nan if row[name] is None else row[name] for name in AT_LEVEL},
        "verdict": verdict,
    }


def _limit(one: Found | None) -> tuple[str, float]:
    """What is missed by the largest part at the first value beyond, and that part."""
    if one is None or one.beyond is None:
        return "", np.nan
    over: dict[str, float] = one.rows[one.beyond]["over"]
    name = max(over, key=lambda name: over[name])
    return name, over[name]


def _verdict(one: Found, scenario: Scenario, unit: str, fewest: bool) -> str:
    """One sentence: how much, what the next value misses, and what makes that doubtful."""
    if one.best is None:
        assert one.beyond is not None
        return f"none: even with {show_load(one.beyond, unit)}: {one.rows[one.beyond]['verdict']}"
    told = show_load(one.best, unit)
    row, limit = one.rows[one.best], scenario.objectives.max_usd_per_hour
    if fewest and limit is not None and row["usd_per_hour"] > limit:
        told += f", but {show('usd_per_hour', row['usd_per_hour'])} is above {show('usd_per_hour', limit)}"
    if one.beyond is not None:
        told += f"; with {show_load(one.beyond, unit)}: {missed(one.rows[one.beyond])}"
        name, over = _limit(one)
        told += f" ({name} by {show('frac', over)})" if np.isfinite(over) else ""
    elif not fewest:
        told = f"at least {told}, the highest load that was tried"
    low, high = one.disagreement
    if np.isfinite(low):
        span = f"with {show_load(low, unit)}" if low == high else f"from {low:g} to {show_load(high, unit)}"
        told += f"; replications disagree {span}"
    farther = [value for value, row in one.rows.items() if row["keeps"] and _between(one.best, one.beyond, value)]
    if farther:
        told += f"; keeps again with {show_load(min(farther, key=lambda v: abs(v - one.best)), unit)}"
    if one.cut_short:
        told += "; the search met its bound of rounds before these were close"
    return "; ".join(filter(None, [told, row["doubt"]]))


def _between(first: float, second: float | None, third: float) -> bool:
    return second is not None and (second - first) * (third - second) > 0
