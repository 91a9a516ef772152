"""The configurations that a recommendation chooses from, as index lists into stacked pytrees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from kernels.types import Device, Engine, Model
from sim import catalog
from sim.catalog import Machine
from sim.engines import EngineRow, engine, limits, memory_frac
from sim.errors import RoofcastError, sentence
from sim.formats import kv_format, row_kernels, weight_plan
from sim.layouts import Parallel, check
from sim.lower import NO_LIMIT, lower_device, lower_engine, lower_model
from sim.money import device_rate, purchase_usd
from sim.params import is_moe
from sim.point import Point
from sim.profiles import Profile, kind_of
from sim.request import model_note, named
from sim.schema import ModelRow

DEVICE_COUNTS = (1, 2, 4, 8)
REPLICAS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
LEAST_GAIN = 0.9  # of the published bits per weight, for which another format is worth a loss of quality
DEFAULT_ENGINES = ("vllm", "llamacpp", "mlx")
FORMATS = {
    "vllm": ("native", "fp8", "int4_g128"),
    "sglang": ("native", "fp8", "int4_g128"),
    "trtllm": ("native", "fp8", "int4_g128"),
    "llamacpp": ("q8_0", "q6_k", "q4_k_m", "q3_k_m", "q2_k"),
    "ollama": ("q8_0", "q4_k_m"),
    "mlx": ("native", "mlx8", "mlx6", "mlx4", "mlx3"),
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """A workload and what it may cost, in seconds and USD; None: no limit."""

    users: int
    prompt: int
    output: int
    context: int
    ttft_s: float | None
    tpot_s: float | None
    usd_per_hour: float | None
    usd: float | None


@dataclass
class Candidates:
    """Configurations i = 0..N−1: rows and names by i, and indices into the lists of lowered pytrees."""

    kv: str
    floor: str
    models: list[Model] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    rows: list[ModelRow] = field(default_factory=list)
    hardware: list[str] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)  # what `hardware` counts
    engine_ids: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    indices: list[tuple[int, int, int]] = field(default_factory=list)
    numbers: list[tuple[float, ...]] = field(default_factory=list)
    prices: list[float] = field(default_factory=list)
    refused: Counter = field(default_factory=Counter)
    workload: Limits | None = None
    profile: Profile | None = None
    notes: tuple[str, ...] = ()
    lowered: dict[tuple[str, str, str], int] = field(default_factory=dict)
    layouts: dict[tuple, list[Parallel]] = field(default_factory=dict)

    @property
    def which(self) -> np.ndarray:
        """(N, 3) indices of model, device and engine."""
        return np.asarray(self.indices, np.int32).reshape(-1, 3)

    @property
    def purchase_usd(self) -> np.ndarray:
        """(N,) purchase price of all devices, NaN where none is known."""
        return np.asarray(self.prices)

    @property
    def points(self) -> Point:
        """(N,) points."""
        table = np.asarray(self.numbers, np.float32)
        names = ("tp", "pp", "ep", "replicas", "max_batched_tokens", "max_sequences", "memory_frac",
                 "mixes_prefill", "usd_per_device_s", "usd_per_joule")  # fmt: skip
        load = self.workload
        fixed = {
            "dp": 1, "host_layer_frac": 0, "host_expert_frac": 0, "concurrency": load.users,
            "prompt_tokens": load.prompt, "output_tokens": load.output, "context_tokens": load.context,
            "kv_pool_tokens": NO_LIMIT, "n_requests": NO_LIMIT, "length_spread": 0, "admission_steps": 1,
        }  # fmt: skip
        same = {name: np.full(len(table), value, np.float32) for name, value in fixed.items()}
        return Point(**same, **{name: table[:, i] for i, name in enumerate(names)})


def gather(
    workload: Limits,
    hardware: Sequence[str] | None,
    models: Sequence[str] | None,
    named_engines: Sequence[str] | None,
    kv: str | None,
    floor: str,
    profile: Profile | None = None,
) -> Candidates:
    """Every model, machine, engine, format and layout worth scoring; what cannot be built is counted as refused."""
    found = Candidates(kv=kv_format(kv), floor=catalog.fmt(floor).id, workload=workload, profile=profile)
    rows = named(*(partial(catalog.model, name) for name in models)) if models else current_models()
    runs = named(*(partial(engine, name) for name in named_engines or DEFAULT_ENGINES))
    groups = group_machines(hardware)
    for device, machines in groups:
        for run in (r for r in runs if machines[0].device.vendor in r.vendors):
            _add_engine(found, rows, device, machines, run, on_hand=hardware is not None)
    if not found.indices:
        reasons = [f"{reason} ({number})" for reason, number in found.refused.most_common()]
        why = "; ".join(reasons) or f"none of {', '.join(r.id for r in runs)} runs on this hardware"
        raise RoofcastError(sentence(f"nothing to choose from: {why}", hint="name other models, hardware or engines"))
    on_hand = [note for _, machines in groups for note in machines[0].notes] if hardware is not None else []
    found.notes = tuple(dict.fromkeys(note for note in (*map(model_note, rows), *on_hand) if note))
    return found


def current_models() -> list[ModelRow]:
    """The models that the catalogue marks as current, and the user's own."""
    return [row for row in catalog.models().values() if row.current]


def group_machines(hardware: Sequence[str] | None) -> list[tuple[str, list[Machine]]]:
    """Machines by device: those on hand as they are, or 1 to 8 of every device that has a price."""
    if hardware is not None:
        machines = named(*(partial(catalog.machine, name) for name in hardware))
        return [(name, [machine]) for name, machine in dict(zip(hardware, machines, strict=True)).items()]
    groups = []
    for row in catalog.devices().values():
        if row.status != "exists" or row.vendor == "Google":
            continue
        counts = [n for n in DEVICE_COUNTS if n <= row.link.domain_devices]
        if row.vendor == "Apple":
            options = [catalog.machine(f"{row.id}-{gb}gb") for gb in row.memory_options_gb] or [catalog.machine(row.id)]
            groups += [(f"{row.id}-{m.device.memory_gb:.0f}gb", [m]) for m in options]
        else:
            base = catalog.machine(row.id)
            groups.append((row.id, [catalog.machine_of(base.device, n) for n in counts]))
    return groups


def _add_engine(
    found: Candidates, rows: list[ModelRow], name: str, machines: list[Machine], run: EngineRow, on_hand: bool
) -> None:
    """All models and formats of one engine on the counts of one device."""
    engine_index: dict[str, int] = {}
    first_device = len(found.devices)
    found.devices += [lower_device(machine, run) for machine in machines]
    for row in rows:
        kind = kind_of(row) if found.profile else ""
        if kind not in engine_index:
            engine_index[kind] = len(found.engines)
            found.engines.append(lower_engine(run, machines[0], found.profile, kind))
        for weights in FORMATS[run.id]:
            reason = _refusal(found, row, weights, run)
            if reason:
                found.refused[reason] += 1
                continue
            model_index = _model_index(found, row, weights, run)
            for offset, machine in enumerate(machines):
                at = (model_index, first_device + offset, engine_index[kind])
                _add_layouts(found, row, weights, name, machine, run, at, on_hand)


def _refusal(found: Candidates, row: ModelRow, weights: str, run: EngineRow) -> str:
    """Why a format is not tried, or an empty string."""
    plan, native = weight_plan(row, weights), weight_plan(row, "native")
    if not row_kernels(plan, row) <= set(run.kernels):
        return "the engine has no kernel for the format"
    if weights == "native":
        return ""
    if min(plan.routed.quality_rank, plan.other.quality_rank) < catalog.fmt(found.floor).quality_rank:
        return "below the precision floor"
    small = plan.routed.bits_per_weight > LEAST_GAIN * native.routed.bits_per_weight
    if small and row_kernels(native, row) <= set(run.kernels):
        return "the published format is as small"
    return ""


def _model_index(found: Candidates, row: ModelRow, weights: str, run: EngineRow) -> int:
    key = (row.id, weights, run.id)
    if key not in found.lowered:
        found.lowered[key] = len(found.models)
        found.models.append(lower_model(row, weight_plan(row, weights), found.kv, run))
    return found.lowered[key]


def _add_layouts(
    found: Candidates,
    row: ModelRow,
    weights: str,
    name: str,
    machine: Machine,
    run: EngineRow,
    at: tuple,
    on_hand: bool,
) -> None:
    """One machine's layouts: all of it as one replica, or (on hand) split into replicas, or several machines."""
    rate, default, price = device_rate(machine), limits(run, machine.device), purchase_usd(machine)
    if np.isnan(rate.usd_per_device_s) and not on_hand:
        found.refused["no price is known"] += 1
        return
    for layout in _layouts(found, row, machine, run, on_hand):
        count = layout.n_devices
        found.rows.append(row)
        found.hardware.append(name if on_hand else f"{count}x {name}" if count > 1 else name)
        found.machines.append(name)
        found.engine_ids.append(run.id)
        found.weights.append(weights)
        found.indices.append(at)
        found.prices.append(price * count if price is not None else float("nan"))
        found.numbers.append(
            (layout.tp, layout.pp, layout.ep, layout.replicas, default.max_batched_tokens, default.max_sequences,
             memory_frac(run, machine.device, default.max_batched_tokens, layout.tp, layout.pp),
             run.mixes_prefill, rate.usd_per_device_s, rate.usd_per_joule)
        )  # fmt: skip


def _layouts(found: Candidates, row: ModelRow, machine: Machine, run: EngineRow, on_hand: bool) -> list[Parallel]:
    """Layouts that the engine can run: a replica spans the machine, or a part of it that divides it (on hand)."""
    key = (row.id, machine.n_devices, machine.link.domain_devices, run.split, on_hand)
    if key not in found.layouts:
        found.layouts[key] = list(_valid_layouts(row, machine, run, on_hand))
    return found.layouts[key]


def _valid_layouts(row: ModelRow, machine: Machine, run: EngineRow, on_hand: bool) -> Iterable[Parallel]:
    n = machine.n_devices
    moe = is_moe(row)
    for span in [s for s in range(1, n + 1) if n % s == 0] if on_hand else [n]:
        inside = min(span, machine.link.domain_devices)
        if span % inside:
            continue
        tp, pp = (1, span) if run.split == "layer" else (inside, span // inside)
        for ep in {1, tp} if moe else {1}:
            try:
                check(Parallel(tp, pp, ep, 1, 1), row, run)
            except RoofcastError:
                continue
            for copies in [n // span] if on_hand else REPLICAS:
                yield Parallel(tp, pp, ep, 1, copies)
