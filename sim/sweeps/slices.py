"""Names on the axes of a sweep: rows of the catalogue, one by one or in slices such as "all:nvidia"."""

from __future__ import annotations

from collections.abc import Callable

from sim import catalog
from sim.engines import engine, engines
from sim.errors import RoofcastError, clipped, did_you_mean, sentence
from sim.formats import KV_BYTES, kv_format
from sim.params import is_moe

Slices = dict[str, tuple[str, ...]]


def expand(axis: str, name: str) -> tuple[str, ...]:
    """Ids that a name or a slice stands for on one of NAME_AXES; RoofcastError with the nearest names if none does.

    A machine keeps the name that it was given, since a count and a memory size are part of it.
    """
    word = name.strip().lower()
    if word in ("all", "current") or word.startswith("all:"):
        known = slices(axis)
        if word not in known:
            hint = did_you_mean(word, known) or f"known are {', '.join(known)}"
            raise RoofcastError(sentence(f'no slice of {axis} is called "{clipped(name)}"', hint=hint))
        return known[word]
    return (_LOOK_UPS[axis](name),)


def slices(axis: str) -> Slices:
    """Slices of an axis of names: word -> ids. Models and devices that only the guide names are in none."""
    return _SLICES[axis]()


def _models() -> Slices:
    rows = [row for row in catalog.models().values() if row.status == "exists"]
    return {
        "all": tuple(row.id for row in rows),
        "all:moe": tuple(row.id for row in rows if is_moe(row)),
        "all:dense": tuple(row.id for row in rows if not is_moe(row)),
        "current": tuple(row.id for row in rows if row.current),
    }


def _hardware() -> Slices:
    """Devices by vendor and by family, each with all memory sizes that it was sold with."""
    found: dict[str, list[str]] = {}
    for row in catalog.devices().values():
        sizes = [f"{row.id}-{size}gb" for size in row.memory_options_gb] or [row.id]
        for word in dict.fromkeys(("all", f"all:{row.vendor.lower()}", f"all:{row.family}")):
            if row.status == "exists":
                found.setdefault(word, []).extend(sizes)
    return {word: tuple(names) for word, names in found.items()}


def _formats() -> Slices:
    return {"all": ("native", *(row.id for row in catalog.formats().values() if not row.tensor_only))}


def _format(name: str) -> str:
    return "native" if name.lower() == "native" else catalog.fmt(name).id


def _machine(name: str) -> str:
    catalog.machine(name)
    return name


_SLICES: dict[str, Callable[[], Slices]] = {
    "model": _models,
    "weights": _formats,
    "kv": lambda: {"all": tuple(KV_BYTES["tensor"])},
    "hardware": _hardware,
    "engine": lambda: {"all": tuple(engines())},
}
_LOOK_UPS: dict[str, Callable[[str], str]] = {
    "model": lambda name: catalog.model(name).id,
    "weights": _format,
    "kv": kv_format,
    "hardware": _machine,
    "engine": lambda name: engine(name).id,
}
