"""Measurements as arrays: what the kernels need to forecast all of them in one mapped call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from jax import Array

from kernels.observe import QUANTITIES, observe
from kernels.types import Device, Engine, Model, pytree
from sim import errors, profiles
from sim.calibration.contexts import Context, context
from sim.errors import RoofcastError, sentence, why_reasons
from sim.measure import Measurement, Unused
from sim.measure.rows import commonest
from sim.point import Point, evaluate, split, stack
from sim.request import Request, build

Load = tuple[float, ...]
Progress = Callable[[int, int], None]  # deployments done, deployments in all
NO_ROOM = (
    errors.WEIGHTS_DO_NOT_FIT | errors.KV_DOES_NOT_FIT
)  # a context beyond the model's own limit was run all the same


@pytree
class Arrays:
    """D deployments, N operating points of them, M measurements at those points."""

    models: Model  # (D, ...)
    devices: Device  # (D, ...)
    engines: Engine  # (D, ...) as the profile has them
    deployment: Array  # (N,) index into the deployments
    points: Point  # (N,)
    depth_tokens: Array  # (N,)
    point: Array  # (M,) index into the points
    quantity: Array  # (M,) index into QUANTITIES
    measured: Array  # (M,) in the quantity's unit


@dataclass(frozen=True)
class Table:
    """The arrays, and what they came from."""

    arrays: Arrays
    contexts: tuple[Context, ...]  # (D,)
    rows: tuple[Measurement, ...]  # (M,)


@dataclass(frozen=True)
class _Block:
    """The rows of one deployment, and their distinct loads."""

    request: Request
    loads: tuple[Load, ...]
    rows: tuple[Measurement, ...]


class NoForecast(RoofcastError):
    """None of the measurements can be forecast; `unused` says of each why."""

    def __init__(self, unused: Sequence[Unused]):
        self.unused = tuple(unused)
        super().__init__(sentence("no measurement can be forecast", "measurements", commonest(unused)))


def tabulate(
    rows: Sequence[Measurement], profile: profiles.Source = None, progress: Progress = lambda *_: None
) -> tuple[Table, list[Unused]]:
    """(The table of the rows that can be forecast, the others with the reason why not).

    profile: whose engines the table has; None: the shipped one's; "none": the priors'. Raises NoForecast where no row
    can be forecast.
    """
    chosen = profiles.named(profile) or profiles.PRIORS
    together: dict[tuple, list[Measurement]] = {}
    for row in rows:
        together.setdefault((*row.group(), *sorted(row.limits)), []).append(row)
    blocks: list[_Block] = []
    unused: list[Unused] = []
    for done, members in enumerate(together.values(), 1):
        for block, lost in _blocks(members, chosen):
            blocks += [block] if block else []
            unused += lost
        progress(done, len(together))
    if not blocks:
        raise NoForecast(unused)
    return _join(blocks), unused


def forecast(arrays: Arrays, engines: Engine) -> Array:
    """(M,) forecasts of the measurements with `engines` (N, ...), in the quantities' units."""
    models, devices = (jax.tree.map(lambda leaf: leaf[arrays.deployment], t) for t in (arrays.models, arrays.devices))
    every = jax.vmap(observe_point)(models, devices, engines, arrays.points, arrays.depth_tokens)
    return every[arrays.point, arrays.quantity]


def observe_point(model: Model, device: Device, engine: Engine, point: Point, depth_tokens: Array) -> Array:
    """(Q,) quantities of one operating point; unbatched."""
    tuned, layout, load = split(engine, point)
    return observe(model, device, tuned, layout, load, depth_tokens)


def _load(row: Measurement) -> Load:
    limits = (row.limits[name] for name in sorted(row.limits))
    return (row.concurrency, max(round(row.prompt), 1), max(round(row.output), 1), row.depth, row.n_requests, *limits)


def _blocks(rows: list[Measurement], profile: profiles.Source) -> list[tuple[_Block | None, list[Unused]]]:
    """The rows of one deployment as a block; load by load where one of them is out of bounds."""
    try:
        return [_feasible(_block(rows, profile))]
    except RoofcastError as error:
        by_load: dict[Load, list[Measurement]] = {}
        for row in rows:
            by_load.setdefault(_load(row), []).append(row)
        if len(by_load) == 1:
            return [(None, [_unused(row, "no forecast", error.problems[0]) for row in rows])]
        return [found for alike in by_load.values() for found in _blocks(alike, profile)]


def _block(rows: list[Measurement], profile: profiles.Source) -> _Block:
    first = rows[0]
    loads = tuple(dict.fromkeys(_load(row) for row in rows))
    concurrency, prompt, output, depth, n_requests, *limits = np.asarray(loads).T
    stated = dict(zip(sorted(first.limits), limits, strict=True))
    request = build(
        first.model, first.machine, engine=first.engine, weights=first.weights, kv=first.kv, profile=profile,
        tp=first.tp, pp=first.pp, ep=first.ep, dp=first.dp, replicas=first.replicas, concurrency=concurrency,
        prompt=prompt, output=output, context=prompt + output + depth, n_requests=n_requests, **stated,
    )  # fmt: skip
    return _Block(request, loads, tuple(rows))


def _feasible(block: _Block) -> tuple[_Block | None, list[Unused]]:
    """The block's rows whose load finds room, and those whose load finds none."""
    why = dict(zip(block.loads, evaluate(block.request.setup, block.request.points).why.tolist(), strict=True))
    rows = tuple(row for row in block.rows if not why[_load(row)] & NO_ROOM)
    bad = [(row, why[_load(row)]) for row in block.rows if why[_load(row)] & NO_ROOM]
    lost = [_unused(row, "does not fit", "; ".join(why_reasons(bits))) for row, bits in bad]
    return (replace(block, rows=rows) if rows else None), lost


def _unused(row: Measurement, reason: str, detail: str) -> Unused:
    return Unused(row.file, row.line, row.columns, reason, detail)


def _join(blocks: list[_Block]) -> Table:
    starts = np.cumsum([0] + [len(block.loads) for block in blocks])
    rows = tuple(row for block in blocks for row in block.rows)
    place = [s + block.loads.index(_load(r)) for s, block in zip(starts, blocks, strict=False) for r in block.rows]
    setups = [block.request.setup for block in blocks]
    depth = [load[3] for block in blocks for load in block.loads]
    arrays = Arrays(
        models=stack([setup.model for setup in setups]),
        devices=stack([setup.device for setup in setups]),
        engines=stack([setup.engine for setup in setups]),
        deployment=np.repeat(np.arange(len(blocks)), [len(block.loads) for block in blocks]),
        points=jax.tree.map(lambda *parts: np.concatenate(parts), *[block.request.points for block in blocks]),
        depth_tokens=np.asarray(depth, np.float32),
        point=np.asarray(place),
        quantity=np.asarray([QUANTITIES.index(row.quantity) for row in rows]),
        measured=np.asarray([row.value for row in rows], np.float32),
    )
    return Table(arrays, tuple(context(block.request) for block in blocks), rows)
