"""What is fitted: shifts of efficiencies and fixed times on unbounded scales, partially pooled over levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernels.types import Engine, pytree
from sim.calibration.contexts import Context
from sim.lower import engine_field
from sim.profiles.rows import FIELDS, KERNELS, Entry, Place, Profile
from sim.profiles.shifts import moved, places

ENTRIES: tuple[Entry, ...] = tuple((f, k) for f, by_kernel in FIELDS.items() for k in (KERNELS if by_kernel else ("",)))
ANOTHER_MACHINE = 0.5  # spread of a shift: how far a machine may be from others of its kind (clocks, builds)


@pytree
class Pooling:
    """How P standardized parameters z ~ N(0, 1) add up to the shift of each of S entries of each of D deployments."""

    center: Array  # (P,) shift at z = 0
    spread: Array  # (P,) shift of z = 1
    index: Array  # (D, S, L) into the parameters: one a level


@dataclass(frozen=True)
class Parameters:
    """The pooling, and what each parameter shifts: an efficiency entry at a level, in a place of the profile."""

    pooling: Pooling
    names: tuple[tuple[Entry, str, Place], ...]  # (P,)

    def pairs(self, z: np.ndarray, sd: np.ndarray) -> dict[tuple[Entry, str, Place], tuple[float, float]]:
        """(shift, standard deviation) of each parameter at z (P,), whose own deviation is sd (P,)."""
        shift = self.pooling.center + self.pooling.spread * z
        return dict(zip(self.names, zip(shift.tolist(), (self.pooling.spread * sd).tolist(), strict=True), strict=True))


def parameters(contexts: Sequence[Context], base: Profile, own_machine: bool) -> Parameters:
    """Every entry at every level of every context, about the base profile's shifts, or 0 ± the level's prior.

    own_machine: the rows are of one machine, which differs from others of its kind by half the spread of the prior.
    Only what is the device's own moves then, so that nothing else is forgotten.
    """
    place: dict[tuple[Entry, str, Place], int] = {}
    index = []
    for at in contexts:
        rows = places(at.engine, at.device, at.kind).items()
        index.append([[place.setdefault((entry, *row), len(place)) for row in rows] for entry in ENTRIES])
    own = {at.device.id for at in contexts} if own_machine else None
    known = [_prior(base, own, *name) for name in place]
    center, spread = np.asarray(known, np.float32).reshape(-1, 2).T
    return Parameters(Pooling(center, spread, np.asarray(index)), tuple(place))


def _prior(base: Profile, own: set[str] | None, entry: Entry, level: str, row: Place) -> tuple[float, float]:
    """(Center, spread); spread 0: does not move."""
    prior_sd = base.prior_sd.of(level, entry[0])
    shift, sd = base.by_place.get(row, {}).get(entry, (0.0, prior_sd))
    if row[1] == "":  # a device named as its architecture, whose level stands for both
        return 0.0, 0.0
    if own is None:
        return shift, min(sd, prior_sd)
    return shift, float(np.hypot(sd, ANOTHER_MACHINE)) if row[1] in own else 0.0


def shifts(pooling: Pooling, z: Array) -> Array:
    """(D, S) shift of each entry of each deployment."""
    return (pooling.center + pooling.spread * z)[pooling.index].sum(axis=-1)


def shifted_engine(prior: Engine, shift: Array) -> Engine:
    """An engine with the shift (S,) of each entry applied; unbatched."""
    new = {}
    for field, by_kernel in FIELDS.items():
        first = ENTRIES.index((field, KERNELS[0] if by_kernel else ""))
        by = shift[first : first + len(KERNELS)] if by_kernel else shift[first]
        name = engine_field(field)
        new[name] = moved(field, getattr(prior, name), by, jnp)
    return replace(prior, **new)


shifted_engines = jax.vmap(shifted_engine)
