"""`sim.calibrate`: fits a profile to measurements, and judges it on those that it was not fitted to."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

import sim
from sim import profiles
from sim.calibration import folds as split
from sim.calibration.fit import ADAM_STEPS, LBFGS_STEPS, Fit, fit, log_errors, row_weights
from sim.calibration.heldout import HeldOut, covered, held_out, intervals
from sim.calibration.known import packed, without_known
from sim.calibration.parameters import Parameters, parameters
from sim.calibration.table import Table, tabulate
from sim.calibration.written import (
    FROM_SCRATCH,
    LEAST_ROWS_OF_INTERVAL,
    Pin,
    evidence_over,
    intervals_over,
    pins,
    settled,
    shifts_over,
)  # fmt: skip
from sim.errors import RoofcastError, clipped, did_you_mean, expect_text, sentence, shown
from sim.files import Paths, input_files
from sim.measure import Defaults, Measurement, Reading, Unused, read
from sim.measure.rows import commonest
from sim.numbers import check_scalars
from sim.profiles.rows import Data, HeldOutError, Profile
from sim.request import named
from sim.scores import Score, score
from sim.verbs.stated import NAMES, check_progress, look_ups

FITTED = ("tpot_s", "ttft_s", "decode_step_s", "prefill_s", "output_tokens_per_s")
LEVEL = 0.8  # of the coverage
FIT_STEPS = ADAM_STEPS + LBFGS_STEPS
Progress = Callable[[str, int, int, float], None]  # what is fitted, steps done, steps in all, loss


@dataclass(frozen=True)
class Errors:
    """Errors of one quantity on held-out rows: with the profile that the fit started from, and after it."""

    quantity: str
    before: Score
    after: Score


@dataclass(frozen=True)
class Work:
    """What a calibration computed with: for tests and reports."""

    table: Table
    parameters: Parameters
    weights: np.ndarray  # (M,)
    fit: Fit
    before: np.ndarray  # (M,) log errors of the base profile
    held: HeldOut | None


@dataclass(frozen=True)
class Calibration:
    """A fitted profile, and what is to be known of it.

    errors: by quantity, on held-out rows; empty where there are too few rows to hold any out.
    pins: parameters from the surest for its prior on; unused: rows that took no part; problems: mistakes in the files.
    """

    profile: Profile
    errors: tuple[Errors, ...]
    pins: tuple[Pin, ...]
    unused: tuple[Unused, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    work: Work


def calibrate(
    paths: Paths,
    *,
    profile: profiles.Source = None,
    name: str | None = None,
    folds: int = split.FOLDS,
    created: str | None = None,
    progress: Progress | None = None,
    **defaults: Any,
) -> Calibration:
    """Fits the efficiencies and fixed times of the step-time model to the measurements of some files.

    profile: what to start from: the file of a profile, None for the shipped one, "none" for the catalogue's priors.
    Where all rows are of one kind of device, only what is that device's own is adapted, and the rest stays.
    name: of the new profile; created: its date (default: today); folds: how many times a share of the rows is held
    out, by configuration, or by row where there are too few of those.
    defaults: what the files do not say: model, hardware, engine, weights, kv, tp, pp, ep, dp, replicas, concurrency,
    prompt, output.

    A figure that the profile was fitted to already is not used again.

    Raises RoofcastError where no row can be used.
    """
    files = input_files(paths)
    _check(folds, defaults)
    check_progress(tell := progress or (lambda *_: None))
    today = expect_text(created or datetime.date.today().isoformat(), "a date")
    called = clipped(expect_text(name or f"calibrated-{today}", "a profile"), most=100)
    base = named(lambda: profiles.named(profile), *look_ups(defaults))[0] or FROM_SCRATCH
    reading = read(files, Defaults(**defaults))
    rows, idle = _new(reading, base, files)
    table, lost = tabulate(rows, "none")
    unused = (*reading.unused, *idle, *lost)
    work, notes = _worked(table, base, folds, tell)
    errors = _errors(work)
    new = Profile(
        name=called,
        created=today,
        roofcast=sim.__version__,
        base="" if base is FROM_SCRATCH else base.name,
        data=(*base.data, *_data(files, unused, table.rows)),
        error=tuple(_as_row(of, notes[-1] if work.held else "") for of in errors),
        prior_sd=base.prior_sd,
        interval=_intervals(base, work),
        evidence=evidence_over(base, table),
        shift=shifts_over(base, work.parameters, *settled(work.parameters, work.fit)),
    )
    found, told = tuple(pins(work.parameters, work.fit)), (*notes, *reading.notes, *_partly(reading))
    return Calibration(new, errors, found, unused, tuple(reading.problems), told, work)


def _check(folds: int, defaults: dict[str, Any]) -> None:
    problems = []
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= 1000:
        problems.append(sentence(f"expected a whole number from 2 to 1000, found {shown(folds)}", "folds"))
    known = [field.name for field in fields(Defaults)]
    for name in defaults:
        if name not in known:
            problems.append(sentence(f"no argument is called {clipped(name)}", "calibrate", did_you_mean(name, known)))
    if problems:
        raise RoofcastError(*problems)
    check_scalars({key: value for key, value in defaults.items() if key not in NAMES})


def _new(reading: Reading, base: Profile, files: Sequence[Path]) -> tuple[list[Measurement], list[Unused]]:
    """(Figures that are fitted and not in the base profile already, rows that have none); RoofcastError without any."""
    fitted, idle = _fitted(reading)
    rows, known = without_known(fitted, base)
    if not rows:
        what, hint = "no row can be used", commonest([*reading.unused, *idle])
        if known:
            what = f"every row that can be used is in the profile {base.name} already"
            hint = "name others, or start from the catalogue's priors: --profile none"
        where = ", ".join(clipped(str(file)) for file in files)
        raise RoofcastError(*reading.problems[:10], sentence(what, where, hint))
    return rows, [*idle, *known]


def _fitted(reading: Reading) -> tuple[list[Measurement], list[Unused]]:
    """(Figures that are fitted, rows that have none)."""
    rows = [row for row in reading.measurements if row.quantity in FITTED]
    lines = {(row.file, row.line) for row in rows}
    idle = {(m.file, m.line): m for m in reading.measurements if (m.file, m.line) not in lines}
    why = "judged only, not fitted"
    return rows, [Unused(m.file, m.line, m.columns, why, m.quantity) for m in idle.values()]


def _partly(reading: Reading) -> list[str]:
    """A note on the figures that take no part though others of their rows do."""
    fitted = {(m.file, m.line) for m in reading.measurements if m.quantity in FITTED}
    judged = [m for m in reading.measurements if m.quantity not in FITTED and (m.file, m.line) in fitted]
    why = Counter([*(f"{m.measured_column}: judged only" for m in judged), *(u.reason for u in reading.rejected)])
    counted = ", ".join(f"{reason} ({n:,})" for reason, n in why.most_common())
    return [f"figures of fitted rows that took no part: {counted}"] if why else []


def _worked(table: Table, base: Profile, n_folds: int, progress: Progress) -> tuple[Work, tuple[str, ...]]:
    """(The fit and its judgement on held-out rows, notes: how it was done)."""
    devices = {at.device.id for at in table.contexts}
    own = base is not FROM_SCRATCH and len(devices) == 1
    params = parameters(table.contexts, base, own)
    weights = np.ones(len(table.rows), np.float32) if own else row_weights(table)
    fold, note = _folds(table, n_folds)
    n_fits = 1 + (0 if fold is None else len(np.unique(fold)))

    def stage(what: str, k: int) -> Callable[[int, int, float], None]:
        return lambda step, _, loss: progress(what, k * FIT_STEPS + step, n_fits * FIT_STEPS, loss)

    found, _ = settled(params, fit(table, params.pooling, weights, stage("all rows", 0)))
    before = log_errors(table, params.pooling, np.zeros_like(found.z))
    held = None
    if fold is not None:
        each = lambda k: stage(f"without fold {k + 1}", k + 1)  # noqa: E731
        held = held_out(table, params.pooling, weights, fold, each)
    progress("all rows", n_fits * FIT_STEPS, n_fits * FIT_STEPS, float(found.losses[-1]))
    start = f"started from the profile {base.name}" if base is not FROM_SCRATCH else "started from the catalogue"
    only = f"; all rows are of {devices.pop()}, so only its own shifts were adapted" if own else ""
    return Work(table, params, weights, found, before, held), (start + only, note)


def _folds(table: Table, n_folds: int) -> tuple[np.ndarray | None, str]:
    """((M,) folds, or None where there are too few rows; a note that says which)."""
    groups = {row.group() for row in table.rows}
    lines = {(row.file, row.line) for row in table.rows}
    if len(groups) >= n_folds:
        return split.by_configuration(table.rows, n_folds), f"{n_folds} folds by configuration, of {len(groups)}"
    if len(lines) >= n_folds:
        why = f"{len(groups)} configuration{'s' if len(groups) > 1 else ''}, too few to hold any out"
        return split.by_row(table.rows, n_folds), f"{n_folds} folds by row: {why}"
    return None, f"no errors on held-out rows: {len(lines)} rows are fewer than {n_folds} folds"


def _errors(work: Work) -> tuple[Errors, ...]:
    """Before and after on held-out rows; the share inside the interval where the rows are enough for a table of it."""
    if work.held is None:
        return ()
    inside = covered(work.table, work.held, LEVEL)
    quantity, measured = np.asarray([row.quantity for row in work.table.rows]), work.table.arrays.measured
    sign = as_stated(work.table.rows)
    found = []
    for name in FITTED:
        of = quantity == name
        if of.any():
            within = inside[of] if of.sum() >= LEAST_ROWS_OF_INTERVAL else None
            before, after = sign * work.before, sign * work.held.log_error
            found.append(Errors(name, score(before[of], measured[of]), score(after[of], measured[of], within)))
    return tuple(found)


def as_stated(rows: Sequence[Measurement]) -> np.ndarray:
    """(M,) sign by which log errors of seconds become those of what the file states: −1 where it states a rate."""
    return np.asarray([-1.0 if row.inverse else 1.0 for row in rows])


def _intervals(base: Profile, work: Work) -> dict[str, Any]:
    if work.held is None:
        return dict(base.interval)
    rows = Counter(row.quantity for row in work.table.rows)
    return intervals_over(base, intervals(work.table, work.held), dict(rows))


def _as_row(of: Errors, how: str) -> HeldOutError:
    names = ("median_frac", "mean_frac", "bias_frac", "p90_frac")
    sides = {"before": of.before, "after": of.after}
    figures = {f"{side}_{name}": getattr(found, name) for side, found in sides.items() for name in names}
    coverage = {} if np.isnan(of.after.coverage_frac) else {"coverage_80_frac": of.after.coverage_frac}
    return HeldOutError(quantity=of.quantity, rows=of.after.rows, split=how, **figures, **coverage)


def _data(files: Sequence[Path], unused: Sequence[Unused], fitted: Sequence[Measurement]) -> list[Data]:
    """A row of provenance for each file that has any rows."""
    found = []
    for file in files:
        used = [row for row in fitted if row.file == str(file)]
        lines = {row.line for row in used}
        others = {row.line for row in unused if row.file == str(file)} - lines
        by_quantity = dict(sorted(Counter(row.quantity for row in used).items()))
        n_rows, n_used, prints = len(lines | others), len(lines), packed(used)
        if n_rows:
            found.append(Data(file=file.name, rows=n_rows, used=n_used, quantities=by_quantity, fingerprints=prints))
    return found
