"""Deployments of a sweep: every combination of the axes of names that an engine can run, lowered once for each part."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from kernels.types import Device, Engine, Layout, Model
from sim import catalog, profiles, units
from sim.catalog import Machine
from sim.engines import EngineRow, engine, limits, memory_frac
from sim.errors import RoofcastError, sentence
from sim.formats import kv_format, weight_plan
from sim.layouts import Parallel, fill
from sim.lower import lower_device, lower_engine, lower_model
from sim.money import device_rate, mixed_note, purchase_usd
from sim.point import stack
from sim.request import choose_engine, machine_for, model_note
from sim.schema import ModelRow
from sim.sweeps.spec import ROW_AXES, Spec

T = TypeVar("T")
Tell = Callable[[str, int, int], None]  # what, how many are done, of all
MOST_BUILT = 3_000_000  # in one or two minutes and 1.5 GB
TOLD_EVERY = 4096
NUMBERS = ("tp", "pp", "ep", "dp", "replicas", "max_batched_tokens", "max_sequences", "memory_frac",
           "usd_per_device_s", "usd_per_joule", "purchase_usd")  # fmt: skip

TUNED = ("max_batched_tokens", "max_sequences", "memory_frac")  # of NUMBERS, in place of the engine's


@dataclass(frozen=True)
class Rows:
    """N deployments: indices into stacked pytrees and into the values of the axes, and numbers."""

    models: Model  # stacked
    devices: Device
    engines: Engine
    which: np.ndarray  # (N, 3)
    at: np.ndarray  # (N, len(ROW_AXES)) index of the value on each axis
    numbers: dict[str, np.ndarray]  # (N,) by NUMBERS, float32
    refused: Counter  # combinations that cannot be, by reason
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.which)

    @property
    def layouts(self) -> Layout:
        """(N,) layouts; nothing lies in host memory."""
        zero = np.zeros(len(self), np.float32)
        names = ("tp", "pp", "ep", "dp", "replicas")
        return Layout(**{n: self.numbers[n] for n in names}, host_layer_frac=zero, host_expert_frac=zero)


@dataclass
class _Lists:
    """Lowered parts by what they are lowered from."""

    trees: list = field(default_factory=list)
    index: dict = field(default_factory=dict)

    def place(self, key: tuple, make: Callable[[], Any]) -> int:
        if key not in self.index:
            self.index[key] = len(self.trees)
            self.trees.append(make())
        return self.index[key]


class _Builder:
    """Resolves names, and remembers: a combination costs a few look-ups."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.profile = spec, profiles.named(spec.profile)
        self.models, self.devices, self.engines = _Lists(), _Lists(), _Lists()
        self.known: dict[tuple, Any] = {}
        self.numbers: dict[tuple, tuple[float, ...]] = {}
        self.refused: Counter = Counter()
        self.notes: dict[str, None] = {}
        self.paid: dict[str, str] = {}  # device -> how, where the catalogue's price counts

    def once(self, key: tuple, make: Callable[[], T]) -> T | None:
        """What `make` gives, or None where it raises RoofcastError, once for each key."""
        if key not in self.known:
            try:
                self.known[key] = make(), ""
            except RoofcastError as error:
                self.known[key] = None, error.problems[0].split("; hint:")[0]
        return self.known[key][0]

    def row(self, values: tuple) -> tuple[tuple[int, int, int], tuple[float, ...]] | None:
        """(indices of the lowered parts, NUMBERS) of a combination; None where it cannot be."""
        model, weights, kv, hardware, gpus, runs, tp, pp, ep, dp, replicas, budget, seqs, frac = values
        served = ("serve", model, weights, runs, hardware)
        found = self.once(served, lambda: self._served(model, weights, runs, catalog.machine(hardware)))
        if found is None:
            return self._refuse(served)
        row, plan, run = found
        asked = Parallel(tp, pp, ep, dp, replicas)
        place = ("machine", hardware, gpus, asked.replicas, None if gpus else asked.n_devices)
        machine = self.once(place, lambda: self._machine(hardware, gpus, asked))
        if machine is None:
            return self._refuse(place)
        n_gpus = gpus or max(catalog.machine(hardware).n_devices, asked.n_devices)
        laid = ("layout", model, run.id, n_gpus, machine.link.domain_devices, asked)
        layout = self.once(laid, lambda: fill(asked, n_gpus, run, row, machine.link.domain_devices))
        if layout is None:
            return self._refuse(laid)
        which = (
            self.models.place((model, weights, kv, run.id), lambda: lower_model(row, plan, kv_format(kv), run)),
            self.devices.place((*machine.parts, run.id), lambda: lower_device(machine, run)),
            self._engine(run, machine, row),
        )
        return which, self._numbers(run, machine, layout, (budget, seqs, frac))

    def _machine(self, hardware: str, gpus: int | None, asked: Parallel) -> Machine:
        given = {n: np.array([getattr(asked, n)]) for n in ("tp", "pp", "dp", "replicas") if getattr(asked, n)}
        if gpus is not None:
            given["gpus"] = np.array([gpus])
        return machine_for(catalog.machine(hardware), given)

    def _served(self, model: str, weights: str, runs: str | None, machine: Machine) -> tuple[ModelRow, Any, EngineRow]:
        row = catalog.model(model)
        plan = weight_plan(row, weights)
        self.notes |= dict.fromkeys(note for note in (model_note(row),) if note)
        return row, plan, choose_engine(runs, machine, plan, row)

    def _engine(self, run: EngineRow, machine: Machine, row: ModelRow) -> int:
        kind = profiles.kind_of(row) if self.profile else ""
        key = (run.id, machine.device.id, machine.device.memory_bytes, kind)
        return self.engines.place(key, lambda: lower_engine(run, machine, self.profile, kind))

    def _numbers(self, run: EngineRow, machine: Machine, layout: Parallel, own: tuple) -> tuple[float, ...]:
        key = (run.id, *machine.parts, layout, own)
        if key not in self.numbers:
            self.numbers[key] = self._counted(run, machine, layout, own)
        return self.numbers[key]

    def _counted(self, run: EngineRow, machine: Machine, layout: Parallel, own: tuple) -> tuple[float, ...]:
        default, rate = limits(run, machine.device), device_rate(machine, self.spec.pay)
        if None in self.spec.usd_per_gpu_hour:
            self.paid[machine.device.name] = rate.paid
        budget, seqs, frac = own
        budget = budget or default.max_batched_tokens
        share = memory_frac(run, machine.device, budget, layout.tp or 1, layout.pp or 1, layout.dp or 1)
        price = purchase_usd(machine)
        parallel = tuple(float(getattr(layout, n)) for n in ("tp", "pp", "ep", "dp", "replicas"))
        limit = (float(budget), float(seqs or default.max_sequences), float(share if frac is None else frac))
        owned = float("nan") if price is None else float(price)
        return (*parallel, *limit, rate.usd_per_device_s, rate.usd_per_joule, owned)

    def _refuse(self, key: tuple) -> None:
        self.refused[self.known[key][1]] += 1


def rows_of(spec: Spec, progress: Tell | None = None) -> Rows:
    """All deployments of a sweep, those of one group of `by` next to each other.

    RoofcastError where a name is unknown, none of the combinations can be, or there are more than MOST_BUILT.
    """
    build, n_built = _Builder(spec), _to_build(spec)
    which, at, numbers = [], [], []
    for i, (index, values) in enumerate(combinations(spec)):
        if progress and i % TOLD_EVERY == 0:
            progress("deployments", i, n_built)
        found = build.row(values)
        if found is not None:
            which.append(found[0])
            at.append(index)
            numbers.append(found[1])
    if not which:
        raise RoofcastError(f"no combination of the axes can be run: {'; '.join(by_kind(build.refused)[:5])}")
    table = np.asarray(numbers, np.float32)
    notes = filter(None, (*build.notes, mixed_note(build.paid)))
    return Rows(
        models=stack(build.models.trees), devices=stack(build.devices.trees), engines=stack(build.engines.trees),
        which=np.asarray(which, np.int32), at=np.asarray(at, np.int32),
        numbers={name: table[:, i] for i, name in enumerate(NUMBERS)},
        refused=build.refused, notes=tuple(notes),
    )  # fmt: skip


def by_kind(refused: Mapping[str, int]) -> list[str]:
    """`tp: tp = 3 does not divide the 64 heads of Qwen3 32B (42 combinations like it)`: a line a kind, most first.

    Reasons are of one kind where they differ only in numbers and names: in what is not a plain word of lower case.
    """
    kinds: dict[tuple[str, ...], Counter] = {}
    for reason, n in refused.items():
        words = re.sub(r"\(.*?\)|\S+ (?=weights )", "", reason)
        kind = tuple(re.findall(r"(?<![\w.+-])[a-z·]+(?![\w.+-])", words))
        kinds.setdefault(kind, Counter())[reason] += n
    ranked = sorted(kinds.values(), key=Counter.total, reverse=True)
    words = ["combination" if n.total() == 1 else f"combinations{' like it' if len(n) > 1 else ''}" for n in ranked]
    return [f"{n.most_common(1)[0][0]} ({n.total():,} {what})" for n, what in zip(ranked, words, strict=True)]


def _to_build(spec: Spec) -> int:
    """Combinations to build; RoofcastError where they are too many."""
    counts = {name: len(getattr(spec, name)) for name in ROW_AXES}
    n = math.prod(counts.values())
    if n > MOST_BUILT:
        longest = sorted((name for name in counts if counts[name] > 1), key=lambda name: -counts[name])
        product = " x ".join(f"{name} {counts[name]:,}" for name in longest)
        what = f"{n:,} combinations are to be built one by one, of at most {MOST_BUILT:,}: {product}"
        raise RoofcastError(sentence(what, "axes", f"give {' or '.join(longest[:2])} fewer values"))
    return n


def combinations(spec: Spec) -> Iterator[tuple[tuple[int, ...], tuple]]:
    """(index on each of ROW_AXES, values): the axes of `by` change slowest."""
    first = [i for i, name in enumerate(ROW_AXES) if name in spec.by]
    turn = first + [i for i in range(len(ROW_AXES)) if i not in first]
    back = np.argsort(turn).tolist()
    values = [getattr(spec, name) for name in ROW_AXES]
    for mixed in itertools.product(*(range(len(values[i])) for i in turn)):
        index = tuple(mixed[i] for i in back)
        yield index, tuple(axis[i] for axis, i in zip(values, index, strict=True))


def rent(usd_per_hour: float) -> float:
    """USD per second of a price by the hour."""
    return usd_per_hour / units.S_PER_HOUR


def checked_names(spec: Spec) -> None:
    """Raises RoofcastError with every name that nothing is called."""
    problems: list[str] = []
    look_ups: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("model", catalog.model), ("hardware", catalog.machine), ("engine", engine), ("kv", kv_format),
        ("weights", lambda name: name.lower() == "native" or catalog.fmt(name)),
    )  # fmt: skip
    for axis, look_up in look_ups:
        for name in getattr(spec, axis):
            try:
                _ = name is None or look_up(name)
            except RoofcastError as error:
                problems += [f"{axis}: {problem}" for problem in error.problems]
    if problems:
        raise RoofcastError(*dict.fromkeys(problems))
