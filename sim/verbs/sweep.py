"""`sim.sweep`: every combination of named axes, reduced to the best of each group, the top and the Pareto front."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from sim import profiles
from sim.errors import RoofcastError, sentence, shown
from sim.files import write_whole
from sim.request import build
from sim.results import Result
from sim.sweeps.blocks import Sweeper, reason_names
from sim.sweeps.cells import to_parquet
from sim.sweeps.cluster import check_cluster
from sim.sweeps.cluster import cluster as workers
from sim.sweeps.compiled import keep_compiled
from sim.sweeps.cost import first_and_again
from sim.sweeps.crossover import crossover
from sim.sweeps.file import answering, load_sweep
from sim.sweeps.kept import kept_cells
from sim.sweeps.manifest import manifest
from sim.sweeps.parts import Part
from sim.sweeps.plan import Plan, plan
from sim.sweeps.run import Evaluate, Tell, cells_of, in_process, left, run
from sim.sweeps.sensitivity import sensitivities as elasticities
from sim.sweeps.spec import NAME_AXES, ROW_AXES, Spec
from sim.sweeps.store import Store
from sim.verbs.estimate import COUNTS, UNITS, answered
from sim.verbs.sweep_verify import verify as verify_front

Keep = Literal["front", "feasible", "all"]
KEEP = ("front", "feasible", "all")
ARGUMENTS = ("gpus", "tp", "pp", "ep", "dp", "replicas", "max_num_batched_tokens", "max_num_seqs",
             "gpu_memory_utilization")  # fmt: skip
# Axes that sim.estimate has no column for; NaN: filled in.
OWN = {"max_num_batched_tokens": "tokens", "max_num_seqs": "1", "gpu_memory_utilization": "1",
       "usd_per_gpu_hour": "USD/h", "usd_factor": "1"}  # fmt: skip

AT_ONCE = 2  # blocks in this process
MOST_SENSITIVE = 32  # cells whose elasticities are told


@dataclass(frozen=True)
class Sweep:
    """What a sweep found. Rows of the tables have the axes' values, and the figures of `sim.estimate`.

    best: for each group of `by` and each objective its best cell; top: the least by the first objective; front: cells
    that no other matches in all objectives and beats in one; failures: cells by their first reason, and by their only.
    crossovers: those that the sweep asks for (sim.sweeps.crossover); sensitivities: where asked for, elasticities of
    the best cells by the first objective (sim.sweeps.sensitivity); verified: where asked for, cells of the front as
    simulated (sim.verbs.sweep_verify). stored: configurations that a folder had from before; seconds are of the others.
    """

    plan: Plan
    part: Part
    best: Result
    top: Result
    front: Result
    failures: Result
    seconds: float
    compile_s: float
    stored: int = 0
    crossovers: Result | None = None
    sensitivities: Result | None = None
    verified: Result | None = None


def sweep(
    source: str | os.PathLike[str] | Mapping[str, Any] | Spec,
    *,
    out: str | os.PathLike[str] | None = None,
    keep: Keep = "front",
    cluster: int | str | None = None,
    verify: bool = False,
    sensitivities: bool = False,
    by: Sequence[str] | str | None = None,
    top: int | None = None,
    profile: profiles.Source = None,
    progress: Tell | None = None,
) -> Sweep:
    """Evaluates every combination of the axes of a sweep: its file, its tables as a mapping, or a Spec.

    out: a folder for the results; the same call goes on where one was stopped. keep: the cells stored there as
    Parquet: "front" (the tables only), "feasible" or "all". cluster: so many worker processes, or the address of a
    scheduler. verify: cells of the front are simulated request by request, too; sensitivities: adds elasticities.
    by, top and profile (a file, "none" or a Profile) stand in place of what the file says.
    Every figure is that of `sim.estimate` with the same arguments, to float32's rounding.

    Raises RoofcastError with all that is wrong with the axes, or with the folder.
    """
    _check_keep(keep, out)
    if cluster is not None:
        check_cluster(cluster)
    keep_compiled()
    spec = answering(source if isinstance(source, Spec) else load_sweep(source), by, top, profile)
    planned = plan(spec, progress)
    planned = planned.whole() if keep == "all" else planned
    file = None if isinstance(source, Mapping | Spec) else source
    with contextlib.ExitStack() as stack:
        store = None if out is None else stack.enter_context(Store(out, manifest(planned, keep=keep, file=file)))
        todo, compile_s = left(planned, store), 0.0
        if cluster is None:
            evaluate = evaluation(planned, keep)
            compile_s = first_and_again(lambda: evaluate(todo[0], None))[0] if todo else 0.0
            at = in_process(evaluate, AT_ONCE if store is None else 1)  # with a folder a kill costs one block, not two
        else:
            at = stack.enter_context(workers(cluster, planned, functools.partial(evaluation, keep=keep)))
        start = time.perf_counter()
        part = run(planned, at, store, progress)
        seconds = time.perf_counter() - start
        stored = planned.n_cells - sum(cells_of(planned, i) for i in todo)
        found = replace(answers(planned, part, seconds, compile_s), stored=stored)
        if out is not None:
            write_tables(found, out)
    return further(found, sensitivities, verify, progress)


def _check_keep(keep: Keep, out: str | os.PathLike[str] | None) -> None:
    if keep not in KEEP:
        raise RoofcastError(sentence(f"expected {', '.join(KEEP)}, found {shown(keep)}", "keep"))
    if keep != "front" and out is None:
        raise RoofcastError(sentence(f"{keep} cells are stored in a folder", "keep", "give out as well"))


def further(found: Sweep, sensitivities: bool, verify: bool, progress: Tell | None) -> Sweep:
    """The sweep with what was asked for beyond its tables."""
    spec, part = found.plan.spec, found.part
    crossings = [crossover(found.plan, *asked) for asked in spec.crossover]
    best = part.best_index[0][part.best_index[0] >= 0][:MOST_SENSITIVE]
    return replace(
        found,
        crossovers=_stacked(spec, crossings) if crossings else None,
        sensitivities=elasticities(found.plan, best) if sensitivities else None,
        verified=verify_front(found.front, spec, progress) if verify and found.front.rows() else None,
    )


def _stacked(spec: Spec, crossings: list[Result]) -> Result:
    """All crossovers in one table, each row with what it is along, between and of."""
    names = ("along", "between", "objective")
    rows = [
        dict(zip(names, asked, strict=True)) | row
        for asked, found in zip(spec.crossover, crossings, strict=True)
        for row in found.rows()
    ]
    units = dict.fromkeys(names, "") | crossings[0].units
    columns = {name: np.asarray([np.nan if row[name] is None else row[name] for row in rows]) for name in units}
    return Result(columns, units, tuple(dict.fromkeys(told for one in crossings for told in one.provenance)))


def evaluation(planned: Plan, keep: Keep) -> Evaluate:
    """Computes blocks, and their cells where they are kept."""
    sweeper = Sweeper(planned)
    if keep == "front":
        return lambda i, hint: (sweeper.evaluate(i, hint), None)
    return lambda i, hint: (sweeper.evaluate(i, hint), to_parquet(*kept_cells(sweeper, i, keep == "all")))


def answers(planned: Plan, part: Part, seconds: float, compile_s: float) -> Sweep:
    """The tables of a finished sweep; their figures are computed anew, cell by cell, as `sim.estimate` does."""
    spec = planned.spec
    indices = [part.best_index[d][part.best_index[d] >= 0] for d in range(len(spec.minimize))]
    best = table(planned, np.concatenate(indices))
    goals = np.repeat(np.asarray(spec.minimize), [len(i) for i in indices])
    return Sweep(
        plan=planned,
        part=part,
        best=Result({"objective": goals, **best.columns}, {"objective": "", **best.units}, best.provenance),
        top=table(planned, part.top_index),
        front=table(planned, front_order(part)),
        failures=failures(planned, part),
        seconds=seconds,
        compile_s=compile_s,
    )


def front_order(part: Part) -> np.ndarray:
    """Cells of the front by the first objective."""
    return part.front_index[np.lexsort((part.front_index, part.front[:, 0]))]


def failures(planned: Plan, part: Part) -> Result:
    """Cells refused, by their first reason, and by their only one."""
    columns = {
        "reason": np.asarray(reason_names(planned)),
        "cells": part.first,
        "share": part.first / max(part.n_cells, 1),
        "alone": part.alone,
    }
    return Result(columns, {"reason": "", "cells": "1", "share": "1", "alone": "1"})


def table(planned: Plan, index: np.ndarray) -> Result:
    """Axes and figures of cells, one row each; empty columns where there are none."""
    spec, at = planned.spec, planned.coordinates(index)
    units = dict.fromkeys(NAME_AXES, "")
    figures = {name: unit for name, unit in UNITS.items() if name not in ("fits", "why")}
    columns: dict[str, np.ndarray] = {name: np.empty(len(index), object) for name in units | figures}
    own = [name for name in OWN if len(spec.axes[name]) > 1]
    columns |= {name: at[name].astype(float) for name in own}
    notes: dict[str, None] = {}
    for rows, result, chosen in _estimates(planned, index, at):
        notes |= dict.fromkeys(result.provenance)
        for name in figures:
            columns[name][rows] = result[name]
        for name in units:
            columns[name][rows] = chosen[name]
    typed = {name: _typed(name, values, figures) for name, values in columns.items()}
    return Result(typed, units | figures | {name: OWN[name] for name in own}, tuple(notes))


def _typed(name: str, values: np.ndarray, figures: Mapping[str, str]) -> np.ndarray:
    if name in OWN:
        return values
    if name in COUNTS:
        return values.astype(np.int64)
    return values.astype(str) if name not in figures or name == "bound" else values.astype(float)


def _estimates(
    planned: Plan, index: np.ndarray, at: Mapping[str, np.ndarray]
) -> Iterator[tuple[np.ndarray, Result, dict[str, str]]]:
    """(which of the cells, their estimate, their names) deployment by deployment."""
    spec = planned.spec
    row = np.unravel_index(index, planned.shape)[0]
    given_price = ~np.isnan(at["usd_per_gpu_hour"])
    for number, priced in np.unique(np.stack([row, given_price], axis=1), axis=0):
        here = np.flatnonzero((row == number) & (given_price == priced))
        own = {name: getattr(spec, name)[i] for name, i in zip(ROW_AXES, planned.rows.at[number], strict=True)}
        lengths = {name: at[f"{name}_tokens"][here] for name in ("prompt", "output", "context")}
        given = {name: own[name] for name in ARGUMENTS if own[name] is not None}
        given |= {"price": at["usd_per_gpu_hour"][here]} if priced else {}
        request = build(
            own["model"], own["hardware"], engine=own["engine"], weights=own["weights"], kv=own["kv"], pay=spec.pay,
            profile=spec.profile, concurrency=at["concurrency"][here], **lengths, **given,
        )  # fmt: skip
        factor = at["usd_factor"][here].astype(np.float32)
        points = replace(request.points, usd_per_device_s=request.points.usd_per_device_s * factor)
        names = {"model": request.model.id, "weights": own["weights"], "kv": request.kv,
                 "hardware": own["hardware"], "engine": request.engine.id}  # fmt: skip
        yield here, answered(replace(request, points=points)), names


def write_tables(found: Sweep, out: str | os.PathLike[str]) -> None:
    """The tables as Parquet files beside the blocks."""
    for name in ("best", "top", "front", "failures"):
        result = getattr(found, name)
        write_whole(os.path.join(out, f"{name}.parquet"), to_parquet(result.columns, result.units))
