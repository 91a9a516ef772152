"""Calibrated profiles: what measurements taught, as shifts of the catalogue's efficiencies."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from pydantic import ValidationError

from sim import catalog
from sim.engines import architecture, engines
from sim.errors import RoofcastError, did_you_mean, expect_text, sentence
from sim.params import is_moe
from sim.profiles.rows import ANY, KINDS, TABLES, Profile, Quantity, architectures, level_of
from sim.schema import CompressedAttention, DeviceRow, GdnAttention, Mamba2Attention, MlaAttention, ModelRow
from sim.toml_errors import Problems, read_toml

Source = str | os.PathLike[str] | Profile | None
PRIORS = "none"
SHIPPED = Path(catalog.__file__).parent / "profile.toml"
# In a closed loop output tokens/s = concurrency · output / E2E (Little's law), and the total is a multiple of it: one
# error, so one interval.
SAME_AS: dict[Quantity, Quantity] = {"e2e_s": "output_tokens_per_s", "total_tokens_per_s": "output_tokens_per_s"}


def kind_of(row: ModelRow) -> str:
    """The structural kind of a model: by its attention "dsa", "mla", "linear" or "gqa", with "+moe" if it has experts.

    dsa: anything that selects what it attends to, DeepSeek V4 included; mla: a latent cache; linear: recurrent states
    beside plain attention.
    """
    mixers = row.attention.values()
    if any(isinstance(m, CompressedAttention) or getattr(m, "indexer", None) for m in mixers):
        kind = "dsa"
    elif any(isinstance(m, MlaAttention) for m in mixers):
        kind = "mla"
    else:
        kind = "linear" if any(isinstance(m, GdnAttention | Mamba2Attention) for m in mixers) else "gqa"
    return f"{kind}+moe" if is_moe(row) else kind


def load(path: str | os.PathLike[str]) -> Profile:
    """The profile of a TOML file; RoofcastError with a sentence for everything that is wrong in it."""
    raw, problems = read_toml(path, TABLES)
    try:
        profile = Profile.model_validate(raw)
    except ValidationError as error:
        for problem in error.errors():
            problems.add_invalid(problem)
    else:
        _check_names(profile, problems)
    problems.raise_if_any()
    return profile


def _check_names(profile: Profile, problems: Problems) -> None:
    """Notes engines, devices and kinds that nothing is called, rows of no level, and rows that stand twice."""
    devices = catalog.devices()
    known = {"engine": [ANY, *engines()], "device": [ANY, *architectures(), *devices], "kind": [ANY, *KINDS]}
    seen: dict[tuple[str, str, str], int] = {}
    for i, row in enumerate(profile.shift):
        wrong = [key for key, names in known.items() if getattr(row, key) not in names]
        for key in wrong:
            problems.add(("shift", i, key), *_unknown(getattr(row, key), key, known[key]))
        if not wrong and level_of(*row.place) is None:
            hint = 'shift an engine ("*" elsewhere), a device, or an engine with one of device and kind'
            problems.add(("shift", i), "no level of a profile has these of engine, device and kind", hint)
        if (first := seen.setdefault(row.place, i)) != i:
            problems.add(("shift", i), f"has engine, device and kind of shift {first + 1}", "make one table of both")
    for i, count in enumerate(profile.evidence):
        for key, names in (("engine", list(engines())), ("device", list(devices))):
            if getattr(count, key) not in names:
                problems.add(("evidence", i, key), *_unknown(getattr(count, key), key, names))


def _unknown(name: str, what: str, known: list[str]) -> tuple[str, str]:
    listed = f"known are {', '.join(known)}" if len(known) < 20 else f"take an id, as in roofcast {what}s"
    return f'no {what} is called "{name}"', did_you_mean(name, known) or listed.replace("devices", "hardware")


@functools.cache
def shipped() -> Profile | None:
    """The profile that the catalogue ships, or None where it ships none."""
    return load(SHIPPED) if SHIPPED.exists() else None


def named(profile: Source) -> Profile | None:
    """The profile of a file; None gives the shipped one, "none" no profile: the catalogue's figures as they are."""
    if profile is None:
        return shipped()
    if isinstance(profile, Profile):
        return profile
    if profile == PRIORS:
        return None
    path = profile if isinstance(profile, os.PathLike) else expect_text(profile, "a profile's file")
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return load(path)  # which says what is wrong with the name
    return _read_once(str(path), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=16)
def _read_once(path: str, changed_ns: int, size: int) -> Profile:
    return load(path)


def evidence(profile: Profile, engine_id: str, device: DeviceRow) -> str:
    """How much was measured of an engine on a device, in words."""
    rows = {(count.engine, count.device): count.rows for count in profile.evidence if count.rows}
    if (engine_id, device.id) in rows:
        return f"calibrated on {rows[engine_id, device.id]:,} rows of this pair"
    measured = [catalog.devices()[other] for runs, other in rows if runs == engine_id]
    if not measured:
        return "not calibrated for this engine: priors"
    near = any(architecture(other) == architecture(device) for other in measured)
    return f"calibrated on other devices of {architecture(device)}" if near else "calibrated on devices of other kinds"


def provenance(profile: Profile | None, engine_id: str = "", device: DeviceRow | None = None) -> str:
    """Which profile a forecast rests on, and where a device is given, its evidence."""
    if profile is None:
        return "profile: none, the catalogue's efficiencies as they are"
    told = f": {evidence(profile, engine_id, device)}" if device else ""
    return f"profile: {profile.name} of {profile.created}{told}"


def width(profile: Profile | None, quantity: Quantity, level: float) -> tuple[float, float]:
    """(noise, half-width in standard deviations) of a quantity at a level.

    What has no table of its own has that of the output tokens/s, if it is the same figure (see SAME_AS), and TPOT's
    otherwise.

    Raises RoofcastError where there is no profile with intervals, or the level is beyond its tables.
    """
    if profile is None or not profile.interval:
        what = (
            f"the profile {profile.name} has no intervals" if profile else "there is no profile to take intervals from"
        )
        raise RoofcastError(sentence(what, "interval", "name one that has them: --profile PATH"))
    known = profile.interval
    table = known.get(quantity) or known.get(SAME_AS.get(quantity, quantity)) or known["tpot_s"]
    return table.noise, table.width_at(level, profile.name)
