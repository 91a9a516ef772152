"""Applies a profile: shifts of an engine's efficiencies on a device, and draws of what they could be."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.engines import architecture
from sim.profiles.rows import ANY, FIELDS, KERNELS, Entry, Place, Profile
from sim.schema import DeviceRow

ABOVE_ONE = ("sharpness",)
MOST_LOG = 15.0  # beyond it a fraction rounds to 0 or 1 in 32 bits
Merged = Mapping[str, Any]


def shifted(merged: Merged, profile: Profile | None, engine_id: str, device: DeviceRow, kind: str) -> Merged:
    """The merged efficiencies of an engine on a device with the shifts of all levels applied.

    A shift adds to the log of a time or a scalar, to the log odds of a fraction, and to log(x − 1) of what is above 1.
    """
    if profile is None:
        return merged
    totals: dict[Entry, float] = {}
    for place in places(engine_id, device, kind).values():
        for entry, (shift, _) in profile.by_place.get(place, {}).items():
            totals[entry] = totals.get(entry, 0.0) + shift
    values = _moved_all(merged, list(totals), np.asarray([*totals.values()]))
    return _with(merged, dict(zip(totals, values, strict=True)))


def drawn(merged: Merged, profile: Profile, engine_id: str, device: DeviceRow, kind: str, n_draws: int) -> list[Merged]:
    """`n_draws` merged efficiencies that the profile holds possible; the same ones every time.

    Each field is normal about its shift, of variance Σ over levels sd², that of the level's prior where it has no row.
    """
    entries = _entries(merged)
    levels = [(profile.by_place.get(place, {}), level) for level, place in places(engine_id, device, kind).items()]
    pairs = np.asarray([[at.get(e, (0.0, profile.prior_sd.of(level, e[0]))) for at, level in levels] for e in entries])
    center, deviation = pairs[:, :, 0].sum(axis=1), np.sqrt((pairs[:, :, 1] ** 2).sum(axis=1))
    shifts = center + deviation * _normals(f"{engine_id}|{device.id}|{kind}", n_draws, len(entries))
    return [_with(merged, dict(zip(entries, one, strict=True))) for one in _moved_all(merged, entries, shifts)]


def moved(name: str, base: Any, shift: Any, xp: Any = np) -> Any:
    """Figures after shifts, in numpy or jax.numpy. What is not inside its bounds stays as it is."""
    by = xp.clip(shift, -MOST_LOG, MOST_LOG)
    if name.endswith("_frac"):
        inside = (base > 0) & (base < 1)
        safe = xp.where(inside, base, 0.5)
        odds = xp.clip(xp.log(safe) - xp.log1p(-safe) + by, -MOST_LOG, MOST_LOG)
        return xp.where(inside, 1 / (1 + xp.exp(-odds)), base)
    floor = 1.0 if name in ABOVE_ONE else 0.0
    return xp.where(base > floor, floor + (base - floor) * xp.exp(by), base)


def places(engine_id: str, device: DeviceRow, kind: str) -> dict[str, Place]:
    """Where a row of each level stands that applies. A device named as its architecture has no level of its own."""
    arch = architecture(device)
    own = device.id if device.id != arch else ""
    return {
        "engine": (engine_id, ANY, ANY),
        "arch": (ANY, arch, ANY),
        "device": (ANY, own, ANY),
        "engine_arch": (engine_id, arch, ANY),
        "engine_device": (engine_id, own, ANY),
        "engine_kind": (engine_id, ANY, kind),
    }


def _entries(merged: Merged) -> list[Entry]:
    """What can be shifted: scalars first, then weight kernel by weight kernel, so that what one model uses is close."""
    scalars = [(name, "") for name, by_kernel in FIELDS.items() if not by_kernel and name in merged]
    tables = [name for name, by_kernel in FIELDS.items() if by_kernel and name in merged]
    return scalars + [(name, kernel) for kernel in KERNELS for name in tables if kernel in merged[name]]


def _moved_all(merged: Merged, entries: Sequence[Entry], shifts: np.ndarray) -> Any:
    """The figures of entries after shifts of shape (..., entries), those of one transform at once."""
    base = np.asarray([merged[name][kernel] if kernel else merged[name] for name, kernel in entries], float)
    alike: dict[tuple[bool, bool], list[int]] = {}
    for i, (name, _) in enumerate(entries):
        alike.setdefault((name.endswith("_frac"), name in ABOVE_ONE), []).append(i)
    values = np.empty(shifts.shape)
    for indices in alike.values():
        values[..., indices] = moved(entries[indices[0]][0], base[indices], shifts[..., indices])
    return values.tolist()


def _with(merged: Merged, values: Mapping[Entry, float]) -> Merged:
    """A copy with these values in their places."""
    new: dict[str, Any] = {name: dict(value) if isinstance(value, dict) else value for name, value in merged.items()}
    for (name, kernel), value in values.items():
        if kernel:
            new[name][kernel] = value
        else:
            new[name] = value
    return new


def _normals(context: str, n: int, columns: int) -> np.ndarray:
    """(n, columns) standard normals of a context, of mean 0 and variance 1, without correlation in blocks of n − 1.

    So few draws would otherwise get the variance of a forecast wrong by √(2/n).
    """
    seed = int.from_bytes(hashlib.sha256(context.encode()).digest()[:8], "big")
    raw = np.random.default_rng(seed).standard_normal((n, columns))
    raw -= raw.mean(axis=0)
    blocks = [np.linalg.qr(raw[:, start : start + n - 1])[0] for start in range(0, columns, n - 1)]
    return np.concatenate(blocks, axis=1) * math.sqrt(n)
