"""What a fit taught, as a profile: its shifts over those of the profile that it started from, and their evidence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from sim.calibration.fit import Fit
from sim.calibration.parameters import Parameters
from sim.calibration.table import Table
from sim.profiles.rows import ANY, MOST_SHIFT, Entry, Evidence, Interval, Place, PriorSd, Profile, Shift
from sim.profiles.shifts import ABOVE_ONE

MOVED = 0.01  # a shift of less, that is hardly surer than before, is not worth a line
SURER = 0.97  # of the prior's standard deviation
LEAST_ROWS_OF_INTERVAL = 50
PRIOR_SD = PriorSd(engine=0.3, arch=0.2, device=0.15, engine_arch=0.15, engine_device=0.1, engine_kind=0.15)
FROM_SCRATCH = Profile(name="the catalogue's priors", created="-", prior_sd=PRIOR_SD)


@dataclass(frozen=True)
class Pin:
    """One parameter after the fit: the factor on what it shifts, its spread, and that over the prior's spread.

    before: the factor in the profile that the fit began at.
    """

    name: str
    of: str  # what the factor multiplies: "", or "odds" of a fraction, or "excess over 1"
    factor: float
    spread_frac: float
    of_prior_frac: float
    before: float

    def __str__(self) -> str:
        of = f" the {self.of}" if self.of else ""
        return f"{self.name}: {self.factor:.2f}x{of} ± {100 * self.spread_frac:.2g} %"

    @property
    def moved(self) -> bool:
        """Whether the fit changed it."""
        return self.factor != self.before

    def change(self) -> str:
        """From where to where it moved, as per cent over the catalogue's figure (or the odds of that)."""
        then, now = (round(100 * (factor - 1), 1) + 0.0 for factor in (self.before, self.factor))
        return f"{self.name}: {self.of}{' ' if self.of else ''}from {then:+.1f} % to {now:+.1f} %"


def settled(params: Parameters, found: Fit) -> tuple[Fit, np.ndarray]:
    """(The fit as a profile states it, (P,) what it states): the rest hardly moved, and is put back to the prior."""
    spread = params.pooling.spread
    kept = (spread > 0) & ((np.abs(spread * found.z) > MOVED) | (found.sd < SURER))
    return replace(found, z=np.where(kept, found.z, 0.0).astype(np.float32)), kept


def shifts_over(base: Profile, params: Parameters, found: Fit, kept: np.ndarray) -> tuple[Shift, ...]:
    """The base's shifts, replaced by the fit's wherever it states one."""
    by_place: dict[Place, dict[Entry, tuple[float, float]]] = {p: dict(own) for p, own in base.by_place.items()}
    pairs = params.pairs(found.z, found.sd)
    for (name, (shift, sd)), stated in zip(pairs.items(), kept, strict=True):
        if stated:
            entry, _, place = name
            bounded = min(max(shift, -MOST_SHIFT), MOST_SHIFT)
            by_place.setdefault(place, {})[entry] = (bounded, sd)
    return tuple(_shift(place, entries) for place, entries in sorted(by_place.items()))


def _shift(place: Place, entries: dict[Entry, tuple[float, float]]) -> Shift:
    values: dict = {}
    for (field, kernel), pair in entries.items():
        if kernel:
            values.setdefault(field, {})[kernel] = pair
        else:
            values[field] = pair
    engine, device, kind = place
    return Shift(engine=engine, device=device, kind=kind, **values)


def evidence_over(base: Profile, table: Table) -> tuple[Evidence, ...]:
    """Rows behind each engine on each device, those of the base included."""
    counts = Counter({(count.engine, count.device): count.rows for count in base.evidence})
    at = [table.contexts[d] for d in table.arrays.deployment[table.arrays.point]]
    lines = {(c.engine, c.device.id, row.file, row.line) for c, row in zip(at, table.rows, strict=True)}
    counts.update((engine, device) for engine, device, *_ in lines)
    return tuple(Evidence(engine=e, device=d, rows=n) for (e, d), n in sorted(counts.items()))


def intervals_over(base: Profile, found: dict[str, Interval], rows: dict[str, int]) -> dict[str, Interval]:
    """The base's interval tables, replaced where enough rows were held out; TPOT has one as soon as anything has."""
    enough = {name: table for name, table in found.items() if rows[name] >= LEAST_ROWS_OF_INTERVAL}
    merged = dict(base.interval) | enough
    if merged and "tpot_s" not in merged:
        merged["tpot_s"] = merged[max(merged, key=lambda name: rows.get(name, 0))]
    return merged


def pins(params: Parameters, found: Fit) -> list[Pin]:
    """Every parameter that could move, the surest for its prior first."""
    free = np.flatnonzero(params.pooling.spread > 0)
    order = free[np.argsort(found.sd[free], kind="stable")]
    pairs = list(params.pairs(found.z, found.sd).items())
    start = np.asarray(params.pooling.center, np.float64)
    return [_pin(*pairs[p][0], *pairs[p][1], float(found.sd[p]), float(start[p])) for p in order]


def _pin(entry: Entry, _: str, place: Place, shift: float, sd: float, of_prior: float, start: float) -> Pin:
    field, kernel = entry
    engine, device, kind = ("" if part == ANY else part for part in place)
    where = " on ".join(part for part in (engine, device) if part) + (f" with {kind} models" if kind else "")
    of = "odds" if field.endswith("_frac") else "excess over 1" if field in ABOVE_ONE else ""
    name = f"{field}{f' ({kernel})' if kernel else ''} of {where}"
    return Pin(name, of, float(np.exp(shift)), float(np.expm1(sd)), of_prior, float(np.exp(start)))
