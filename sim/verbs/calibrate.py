"""`sim.calibrate`: fits a profile to measurements, and judges it on those that it was not fitted to."""

from __future__ import annotations

import datetime
import os
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
from sim.measure import Defaults, Measurement, Reading, Unused, read
from sim.numbers import check_scalars
from sim.profiles.rows import Data, HeldOutError, Profile
from sim.scores import Score, score

FITTED = ("tpot_s", "ttft_s", "decode_step_s", "prefill_s", "output_tokens_per_s")
NAMES = ("model", "hardware", "engine", "weights", "kv")
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
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
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

    Raises RoofcastError where no row can be used, or a file is in the profile already.
    """
    files = list(dict.fromkeys(Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)))
    _check(files, folds, defaults)
    today = created or datetime.date.today().isoformat()
    called = clipped(expect_text(name or f"calibrated-{today}", "a profile"), most=100)
    base = profiles.named(profile) or FROM_SCRATCH
    hashes = _hashes(files, base)
    reading = read(files, Defaults(**defaults))
    rows, idle = _fitted(reading)
    if not rows:
        nothing = sentence("no row can be used", ", ".join(clipped(str(file)) for file in files))
        raise RoofcastError(*reading.problems[:10], nothing)
    table, lost = tabulate(rows, "none")
    unused = (*reading.unused, *idle, *lost)
    work, notes = _worked(table, base, folds, progress or (lambda *_: None))
    fold_notes = notes[-1] if work.held else ""
    errors = _errors(work)
    new = Profile(
        name=called,
        created=today,
        roofcast=sim.__version__,
        base="" if base is FROM_SCRATCH else base.name,
        data=(*base.data, *_data(hashes, reading, unused, table)),
        error=tuple(_as_row(of, fold_notes) for of in errors),
        prior_sd=base.prior_sd,
        interval=_intervals(base, work),
        evidence=evidence_over(base, table),
        shift=shifts_over(base, work.parameters, *settled(work.parameters, work.fit)),
    )
    found = tuple(pins(work.parameters, work.fit))
    return Calibration(new, errors, found, unused, tuple(reading.problems), notes, work)


def _check(files: Sequence[Path], folds: int, defaults: dict[str, Any]) -> None:
    problems = []
    if not files:
        problems.append(sentence("name at least one file of measurements", "calibrate"))
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= 1000:
        problems.append(sentence(f"expected a whole number from 2 to 1000, found {shown(folds)}", "folds"))
    known = [field.name for field in fields(Defaults)]
    for name in defaults:
        if name not in known:
            problems.append(sentence(f"no argument is called {clipped(name)}", "calibrate", did_you_mean(name, known)))
    if problems:
        raise RoofcastError(*problems)
    check_scalars({key: value for key, value in defaults.items() if key not in NAMES})


def _hashes(files: Sequence[Path], base: Profile) -> dict[Path, str]:
    """SHA-256 of each file that can be read; RoofcastError where the base profile was fitted to one of them."""
    known = {data.sha256: data.file for data in base.data if data.sha256}
    found, problems = {}, []
    for file in files:
        if (digest := profiles.digest(file)) is None:
            continue  # the reader says what is wrong
        found[file] = digest
        if digest in known:
            what = f"the profile {base.name} was fitted to this file already"
            hint = "leave it out, or start from the catalogue's priors: --profile none"
            problems.append(sentence(what, clipped(str(file)), hint))
    if problems:
        raise RoofcastError(*problems)
    return found


def _fitted(reading: Reading) -> tuple[list[Measurement], list[Unused]]:
    """(Figures that are fitted, rows that have none)."""
    rows = [row for row in reading.measurements if row.quantity in FITTED]
    lines = {(row.file, row.line) for row in rows}
    idle = {(m.file, m.line): m for m in reading.measurements if (m.file, m.line) not in lines}
    why = "judged only, not fitted"
    return rows, [Unused(m.file, m.line, m.columns, why, m.quantity) for m in idle.values()]


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


def _data(hashes: dict[Path, str], reading: Reading, unused: Sequence[Unused], table: Table) -> list[Data]:
    """A row of provenance for each file."""
    rows = []
    for file, digest in hashes.items():
        used = [row for row in table.rows if row.file == str(file)]
        lines = {row.line for row in used}
        others = {row.line for row in unused if row.file == str(file)} - lines
        by_quantity = dict(sorted(Counter(row.quantity for row in used).items()))
        n_rows, n_used = len(lines | others), len(lines)
        rows.append(Data(file=file.name, sha256=digest, rows=n_rows, used=n_used, quantities=by_quantity))
    return rows
