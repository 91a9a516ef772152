"""A sweep's file, read from TOML into a Spec: ranges and slices become values, and everything wrong is said at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sim import catalog
from sim.bounds import MOST_CELLS
from sim.errors import RoofcastError, did_you_mean, sentence, shown
from sim.fields import Names, Table, Text
from sim.profiles import PRIORS
from sim.profiles import Source as Profile
from sim.sweeps.slices import expand
from sim.sweeps.spec import AXES, LENGTH_AXES, NAME_AXES, OBJECTIVES, Spec
from sim.sweeps.tables import MOST_TOP, Answers, Axes, Crossover, Limits, Range, SweepFile
from sim.toml_errors import Problems, Source, read_tables

MOST_GROUPS = 10**6
WHOLE = tuple(n for n in AXES if n not in (*NAME_AXES, "gpu_memory_utilization", "usd_per_gpu_hour", "usd_factor"))
TABLES: dict[str, type[Table]] = {
    "": SweepFile,
    "axes": Axes,
    "limits": Limits,
    "answers": Answers,
    "answers.crossover": Crossover,
    **{f"axes.{name}": Range for name in AXES if name not in NAME_AXES},
}


def load_sweep(source: Source) -> Spec:
    """The sweep of a TOML file, or of its tables as a mapping; RoofcastError with all that is wrong with it."""
    raw, problems = read_tables(source, TABLES, "sweep")
    folder = Path() if isinstance(source, Mapping) else Path(source).parent
    file = _checked(_with_values(raw, problems), problems)
    spec = _spec(file, _lost(raw, file), problems, folder)
    problems.raise_if_any()
    return spec


class _SomeAxes(Axes):
    model: Names = ()
    hardware: Names = ()


class _Some(SweepFile):
    """What is left of a file where wrong keys are taken out, so that the names in the others are checked as well."""

    name: Text = ""
    axes: _SomeAxes = _SomeAxes()


def _checked(tables: dict[str, Any], problems: Problems, kind: type[SweepFile] = SweepFile) -> SweepFile:
    """The file; or what is valid of it, with a problem for all that is not."""
    try:
        return kind.model_validate(tables)
    except ValidationError as error:
        found = error.errors()
        for problem in found:
            problems.add_invalid(problem)
        return _checked(_without(tables, found), problems, _Some)


def _without(tables: dict[str, Any], found: list[Any]) -> dict[str, Any]:
    """The tables without the keys that are wrong, and without lengths where one of them is: they are compared."""
    wrong = {(*error["loc"][:2], *([key] if len(error["loc"]) < 2 else [])) for error in found
             for key in error.get("ctx", {}).get("problems", [""])}  # fmt: skip
    if any(("axes", name) in wrong for name in LENGTH_AXES):
        wrong |= {("axes", name) for name in LENGTH_AXES}
    kept: dict[str, Any] = {}
    for name, value in tables.items():
        if isinstance(value, dict) and (name, "") not in wrong:
            kept[name] = {key: item for key, item in value.items() if (name, key) not in wrong}
        elif name not in {place[0] for place in wrong}:
            kept[name] = value
    return kept


def _lost(raw: dict[str, Any], file: SweepFile) -> set[str]:
    """Axes that were asked for, and are not in what is left of the file."""
    asked = raw.get("axes")
    return set(asked if isinstance(asked, dict) else AXES) - file.axes.model_fields_set


def answering(
    spec: Spec, by: Sequence[str] | str | None = None, top: int | None = None, profile: Profile = None, dash: str = ""
) -> Spec:
    """The sweep with what a caller says in place of its file; dash: what stands before a name where it is an option.

    Raises RoofcastError with all that is wrong.
    """
    problems: list[str] = []
    given: dict[str, Any] = {} if profile is None else {"profile": profile}
    if by is not None:
        given["by"], wrong = _groups(by, spec.axes)
        problems += [sentence(what, f"{dash}by", hint) for what, hint in wrong]
    if top is not None:
        given["top"] = top
        if type(top) is not int or not 1 <= top <= MOST_TOP:
            problems.append(sentence(f"expected a whole number from 1 to {MOST_TOP}, found {shown(top)}", f"{dash}top"))
    if problems:
        raise RoofcastError(*problems)
    return replace(spec, **given)


def _groups(by: Any, axes: Mapping[str, tuple]) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """(the axes to group by, each once; what is wrong with them, with hints)."""
    names = [by] if isinstance(by, str) else list(by) if isinstance(by, Iterable) else [by]
    names = list(dict.fromkeys(name if isinstance(name, str) else shown(name) for name in names))
    unknown = [name for name in names if name not in AXES]
    return tuple(names), [_no_axis(name) for name in unknown] or _explosion(axes, names, MOST_GROUPS, "groups")


def _no_axis(name: str) -> tuple[str, str]:
    return f"no axis is called {shown(name)}", did_you_mean(name, AXES) or f"axes are {', '.join(AXES)}"


def _with_values(raw: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """The file's tables with a list on each axis: single values listed, ranges counted out."""
    axes = raw.get("axes")
    if not isinstance(axes, dict):
        return raw
    full: dict[str, Any] = {}
    for name, value in axes.items():
        if isinstance(value, dict) and f"axes.{name}" in TABLES:
            numbers = _range(name, value, problems)
            full |= {} if numbers is None else {name: numbers}
        elif name == "kv":
            full[name] = [str(v) if type(v) is int else v for v in (value if isinstance(value, list) else [value])]
        else:
            full[name] = value if isinstance(value, list | dict) else [value]
    return {**raw, "axes": full}


def _range(name: str, table: dict[str, Any], problems: Problems) -> list[Any] | None:
    """Numbers of a range: of an axis of counts rounded where `n` of them were asked for, each once."""
    try:
        counted = Range.model_validate(table)
    except ValidationError as error:
        for problem in error.errors():
            problems.add_invalid({**problem, "loc": ("axes", name, *problem["loc"])})
        return None
    values = counted.values()
    if name not in WHOLE:
        return values
    if counted.n is None and (broken := next((v for v in values if v != round(v)), None)) is not None:
        problems.add(("axes", name), f"the range gives {broken:g}", "take a whole step from a whole number")
        return None
    return list(dict.fromkeys(round(value) for value in values))


def _spec(file: SweepFile, lost: set[str], problems: Problems, folder: Path) -> Spec:
    """The Spec of a file, or of what is left of one that has problems. lost: axes whose values are not all known."""
    axes: dict[str, tuple[Any, ...]] = {}
    for name in AXES:
        given = getattr(file.axes, name)
        if given is not None:
            n_problems = len(problems.found)
            axes[name] = tuple(dict.fromkeys(_names(name, given, problems) if name in NAME_AXES else given))
            lost = lost | {name} if len(problems.found) > n_problems else lost
    if "hardware" not in lost:
        axes["hardware"] = _once(axes["hardware"], counted="gpus" in axes)
    for too_many in _explosion(axes, axes, MOST_CELLS, "configurations"):
        problems.add(("axes",), *too_many)
    if not lost:
        _check_limits(file, problems)
    for wrong in _groups(file.answers.by, axes)[1]:
        problems.add(("answers", "by"), *wrong)
    single = {name for name in AXES if len(axes.get(name, ())) < 2} - lost
    answers, profile = _answers(file.answers, single, problems), file.profile
    own = None if profile is None else profile if profile == PRIORS else str(folder / profile)
    limits = file.limits.model_dump(exclude_none=True)
    given: dict[str, Any] = {**axes, **answers}
    return Spec(file.name, limits=limits, pay=file.pay, profile=own, **given)


def _once(names: tuple[str, ...], counted: bool) -> tuple[str, ...]:
    """Machines without those that another name has named before; counted: an axis of their numbers says how many."""
    parts = {name: catalog.machine(name).parts for name in names}
    first: dict[tuple, str] = {}
    for name, (device, memory, n_devices) in parts.items():
        first.setdefault((device, memory, None if counted else n_devices), name)
    return tuple(first.values())


def _names(axis: str, given: tuple[str, ...], problems: Problems) -> list[str]:
    found: list[str] = []
    for name in given:
        problems.add_unknown(("axes", axis), partial(_extend, found, axis), name)
    return found


def _extend(found: list[str], axis: str, name: str) -> None:
    found += expand(axis, name)


def _answers(answers: Answers, single: set[str], problems: Problems) -> dict[str, Any]:
    """Fields of the Spec, with a problem for each axis or objective that there is none of. single: of one value."""
    crossover = tuple((c.along, c.between, c.objective or answers.minimize[0]) for c in answers.crossover)
    for objective in answers.minimize:
        problems.add_unknown(("answers", "minimize"), _check_objective, objective)
    for i, (along, between, objective) in enumerate(crossover):
        for place, name in (("along", along), ("between", between)):
            if name not in AXES:
                problems.add(("answers", "crossover", i, place), *_no_axis(name))
        if answers.crossover[i].objective:
            problems.add_unknown(("answers", "crossover", i, "objective"), _check_objective, objective)
        if along in AXES and along not in (*LENGTH_AXES, "concurrency"):
            hint = f"take one of {', '.join((*LENGTH_AXES, 'concurrency'))}"
            problems.add(("answers", "crossover", i, "along"), f"nothing crosses along {along}", hint)
        if along == between:
            problems.add(("answers", "crossover", i, "between"), f"is the same axis as along, {shown(along)}")
        for place, name in (("along", along), ("between", between)):
            if name in single:
                what = f"the axis {name} has one value, and nothing to compare"
                problems.add(("answers", "crossover", i, place), what, "give it several")
    once = {name: tuple(dict.fromkeys(getattr(answers, name))) for name in ("minimize", "by")}
    return {**once, "top": answers.top, "crossover": crossover}


def _check_objective(name: str) -> None:
    if name not in OBJECTIVES:
        hint = did_you_mean(name, OBJECTIVES) or f"known are {', '.join(OBJECTIVES)}"
        raise RoofcastError(sentence(f"nothing to minimize is called {shown(name)}", hint=hint))


def _explosion(axes: Mapping[str, tuple], names: Iterable[str], most: float, what: str) -> list[tuple[str, str]]:
    """Nothing; or what to say, with a hint, where the axes have more combinations than that."""
    sizes = {name: len(axes[name]) for name in names if len(axes.get(name, ())) > 1}
    if prod(sizes.values()) <= most:
        return []
    product = " x ".join(f"{name} {n:,}" for name, n in sorted(sizes.items(), key=lambda item: -item[1]))
    many = f"{prod(sizes.values()):.2g} {what} explode the sweep, of at most {most:.0e}: {product}"
    return [(many, f"give {max(sizes, key=lambda name: sizes[name])} fewer values")]


def _check_limits(file: SweepFile, problems: Problems) -> None:
    """Limits that no deployment on these axes can keep to."""
    axes, limits, least = file.axes, file.limits, file.axes.least_devices
    if limits.n_devices is not None and limits.n_devices < least:
        what = f"at most {limits.n_devices} contradicts the axes: no deployment has fewer than {least} devices"
        problems.add(("limits", "n_devices"), what)
    if limits.usd_per_hour is not None and axes.usd_per_gpu_hour is not None:
        cost = least * min(axes.usd_per_gpu_hour)
        if limits.usd_per_hour < cost:
            what = f"at most {limits.usd_per_hour:g} contradicts the axes: the cheapest deployment costs {cost:g}"
            problems.add(("limits", "usd_per_hour"), what)
