"""Measurements from their parts: what ran, on what load, and the figure that was read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sim import params, units
from sim.engines import engines
from sim.measure import cells, names
from sim.measure.checkpoints import checkpoint
from sim.measure.rows import (
    Defaults,
    Deployment,
    Load,
    Measurement,
    Missing,
    Quantity,
    Raw,
    Unusable,
    all_stated,
)
from sim.schema import ModelRow

NAMED = {name: name for name in ("model", "engine", "hardware")}  # columns that the command line can stand in for
OPENING = 2.0  # requests for each user, from which on the median request is none of those that opened the run
PER_MS = 1.0 / units.MILLI  # milliseconds in a second: the scale of a column in ms


@dataclass(frozen=True)
class Figure:
    """A figure as a file states it: its column, what it measures, and its scale (see Measurement)."""

    column: str
    stated: float
    quantity: Quantity
    scale: float = 1.0
    inverse: bool = False
    stat: str = "unspecified"


def measurement(raw: Raw, source: str, tier: str, ran: Deployment, load: Load, figure: Figure) -> Measurement:
    """The figure in SI units, with everything that a forecast of it needs."""
    later = figure.quantity == "ttft_s" and figure.stat == "median" and load.n_requests > OPENING * load.concurrency
    value = figure.scale / figure.stated if figure.inverse else figure.stated / figure.scale
    return Measurement(
        file=raw.file, line=raw.line, columns=raw.columns, id=cells.text(raw.columns, "id", f"{raw.file}:{raw.line}"),
        source=source, tier=tier, quantity=figure.quantity, value=value, measured_column=figure.column,
        scale=figure.scale, inverse=figure.inverse, stat=figure.stat,
        model=ran.model, machine=ran.machine, engine=ran.engine, weights=ran.weights, kv=ran.kv, moe=ran.moe,
        tp=ran.tp, pp=ran.pp, ep=ran.ep, dp=ran.dp, replicas=ran.replicas,
        concurrency=load.concurrency, prompt=load.prompt, output=load.output, depth=load.depth,
        n_requests=math.inf if later else load.n_requests, limits=load.limits,
    )  # fmt: skip


def deployment(row: ModelRow, machine: str, engine_id: str, weights: str, kv: str) -> Deployment:
    """A model on the whole of a machine: split by layer or by tensor, as the engine does it."""
    n_devices = names.n_devices(machine)
    by_layer = engines()[engine_id].split == "layer"
    tp, pp = (1, n_devices) if by_layer else (n_devices, 1)
    return Deployment(row.id, machine, engine_id, weights, names.kv(kv), params.is_moe(row), tp=tp, pp=pp)


def stated_deployment(model: str, engine: str, defaults: Defaults) -> Deployment:
    """What a serving harness measured: the model that its file names, else all that the command line states."""
    (row, found), machine, runs = all_stated(
        lambda: checkpoint(_known(model, defaults)),
        lambda: names.stated_machine(defaults.hardware or ""),
        lambda: names.engine(defaults.engine or engine),
    )
    weights = names.canonical(row, defaults.weights or found)
    return split(deployment(row, machine, runs, weights, defaults.kv or ""), defaults)


def stated(defaults: Defaults, name: str) -> Any:
    """What the command line states under a name; Missing where it does not."""
    if getattr(defaults, name) is None:
        raise Missing({f"--{name}": name})
    return getattr(defaults, name)


def cells_or_stated(row: Mapping[str, str], defaults: Defaults, columns: Mapping[str, str]) -> list[Any]:
    """Of columns by the command line's name, the cells or else what it states; Missing with all that neither does."""

    def told(name: str) -> Any:
        return cells.text(row, columns[name]) or stated(defaults, name)

    return all_stated(*(partial(told, name) for name in columns))


def split(ran: Deployment, defaults: Defaults) -> Deployment:
    """The deployment with the parallelism that the command line states; what is open fills the machine."""
    n_devices = ran.tp * ran.pp
    pp, dp, replicas = defaults.pp or (ran.pp if defaults.tp is None else 1), defaults.dp or 1, defaults.replicas or 1
    tp = defaults.tp or max(n_devices // (pp * dp * replicas), 1)
    asked = tp * pp * dp * replicas
    machine = names.stated_machine(ran.machine, asked) if n_devices == 1 else ran.machine
    return replace(ran, machine=machine, tp=tp, pp=pp, dp=dp, ep=defaults.ep or 1, replicas=replicas)


def _known(model: str, defaults: Defaults) -> str:
    """The name in the file, or the command line's where the file's (a path, a served alias) names no model."""
    if not defaults.model:
        return model
    try:
        checkpoint(model)
    except Unusable:
        return defaults.model
    return model
