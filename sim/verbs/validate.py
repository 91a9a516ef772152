"""`sim.validate`: forecasts beside measurements, and how far they are off."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sim import measure, profiles
from sim.breakdown import check_by, error_tables, stated_quantity, stated_value
from sim.calibration.known import in_sample
from sim.calibration.predict import log_variance, predict
from sim.calibration.table import NoForecast, Table, tabulate
from sim.errors import RoofcastError, sentence
from sim.files import Paths, input_files
from sim.intervals import as_level, note
from sim.measure import Defaults, Measurement, Reading, Unused
from sim.measure.rows import commonest
from sim.numbers import check_scalars
from sim.request import named
from sim.results import Result
from sim.verbs.stated import check_progress, look_ups

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much
Row = dict[str, Any]

MOST_PROBLEMS = 10
UNITS = {
    "file": "", "line": "1", "model": "", "machine": "", "engine": "", "weights": "", "kv": "", "tp": "1", "pp": "1",
    "ep": "1", "dp": "1", "replicas": "1", "concurrency": "1", "prompt_tokens": "tokens", "output_tokens": "tokens",
    "depth_tokens": "tokens", "quantity": "", "stat": "", "column": "", "unit": "", "measured": "as in unit",
    "predicted": "as in unit", "low": "as in unit", "high": "as in unit", "error_frac": "1", "used": "",
    "reason": "", "detail": "",
}  # fmt: skip
SAME = ("file", "line", "model", "machine", "engine", "weights", "kv", "tp", "pp", "ep", "dp", "replicas",
        "concurrency", "stat")  # fmt: skip
FIGURES = ("measured", "predicted", "low", "high", "error_frac")
NAN = float("nan")
NO_FIGURES: Row = dict.fromkeys(FIGURES, NAN) | {"point": (NAN, NAN)}


def validate(
    paths: Paths | None = None, *, profile: profiles.Source = None, interval: float | None = 0.8,
    by: Sequence[str] | str | None = None, model: str | None = None, hardware: str | None = None,
    engine: str | None = None, weights: str | None = None, kv: str | None = None, tp: int | None = None,
    pp: int | None = None, ep: int | None = None, dp: int | None = None, replicas: int | None = None,
    concurrency: int | None = None, prompt: float | None = None, output: float | None = None,
    progress: Progress = lambda *_: None,
) -> Result:  # fmt: skip
    """Forecasts every measurement of benchmark files, and scores the forecasts.

    paths: files of any format that `sim.measure` reads; without them, the table of measurements that Roofcast ships.
    profile, interval: as in `sim.estimate`. model ... output: what files do not state themselves.

    A row for each measured figure, and for each row of a file that cannot be used (`used` is False, and `reason` and
    `detail` say why). measured, predicted, low and high are in the unit of the file's own `column`, which `unit` names
    ("ms" of a `quantity` tpot_s whose file has milliseconds); error_frac is predicted / measured − 1.
    low and high are NaN where the profile has no intervals, as without a profile.

    details["scores"]: error tables, a Result with the columns of sim.scores.Score for each table (`by`: all, quantity,
    engine, kind (dense or MoE), batch, depth (mean tokens cached), hardware, model), group and quantity;
    details["in_sample"]: a sentence for each file with rows that the profile was fitted to: their errors are too small.
    details["problems"]: sentences about mistakes in the files; details["columns"]: of each row its own columns;
    details["unused"]: reason -> how many rows; details["points"]: (rows, 2) measured and predicted in s or tokens/s.

    Raises RoofcastError where the arguments are wrong, and NothingUsed, which is one, where no row can be used.
    """
    tables, level = check_by(by), None if interval is None else as_level(interval)
    names: Row = {"model": model, "hardware": hardware, "engine": engine, "weights": weights, "kv": kv}
    counts: Row = {"tp": tp, "pp": pp, "ep": ep, "dp": dp, "replicas": replicas, "concurrency": concurrency,
              "prompt": prompt, "output": output}  # fmt: skip
    check_scalars(counts)
    check_progress(progress)
    calibrated, *_ = named(lambda: profiles.named(profile), *look_ups(names))
    reading = measure.read([measure.SHIPPED] if paths is None else input_files(paths), Defaults(**names, **counts))
    table, lost = _tabulated(reading, calibrated, progress)
    forecast = predict(table)
    factor = _factor(table, calibrated, level, progress)
    factors = np.full(len(forecast), NAN) if factor is None else factor
    pairs = zip(forecast.tolist(), factors.tolist(), strict=True)
    rows = _rows(reading, lost, {id(row): pair for row, pair in zip(table.rows, pairs, strict=True)})
    error = np.abs(np.log(forecast) - np.log([row.value for row in table.rows]))
    scores = error_tables(table.rows, forecast, None if factor is None else error <= np.log(factor), tables)
    fitted = in_sample(table.rows, calibrated) if calibrated else ()
    notes = (*fitted, *_used_of(rows), *reading.notes, *_provenance(calibrated, level, factor))
    judged = {"scores": replace(scores, provenance=notes), "in_sample": fitted}
    return _result(rows, reading, notes, judged | {"interval": None if factor is None else level})


class NothingUsed(RoofcastError):
    """No row can be used: `result` is that of `sim.validate` without scores, every row with its reason."""

    def __init__(self, reading: Reading, lost: Sequence[Unused]):
        why = commonest([*reading.unused, *lost])
        super().__init__(*reading.problems[:MOST_PROBLEMS], sentence("no row can be used", "measurements", why))
        rows = _rows(reading, {(row.file, row.line): row for row in lost}, {})
        self.result = _result(rows, reading, (*_used_of(rows), *reading.notes), {})


def _result(
    rows: Sequence[tuple[Row, dict[str, str]]], reading: Reading, notes: tuple[str, ...], details: dict[str, Any]
) -> Result:
    more = {
        "problems": reading.problems,
        "columns": [own for _, own in rows],
        "points": np.asarray([row["point"] for row, _ in rows]),
        "unused": dict(Counter(row["reason"] for row, _ in rows if not row["used"]).most_common()),
    }
    columns = {name: _column([row[name] for row, _ in rows]) for name in UNITS}
    return Result(columns, UNITS, notes, details | more)


def _tabulated(
    reading: Reading, calibrated: profiles.Profile | None, progress: Progress
) -> tuple[Table, dict[tuple[str, int], Unused]]:
    """The table, and by file and line why a row is not in it."""
    tell = functools.partial(progress, "deployments")
    try:
        table, lost = tabulate(reading.measurements, calibrated or profiles.PRIORS, tell)
    except NoForecast as error:
        raise NothingUsed(reading, error.unused) from None
    return table, {(row.file, row.line): row for row in lost}


def _factor(
    table: Table, calibrated: profiles.Profile | None, level: float | None, progress: Progress
) -> np.ndarray | None:
    """(M,) forecast over low end, which is high end over forecast; None where there are no intervals."""
    if level is None or calibrated is None or not calibrated.interval:
        return None
    ends = {name: profiles.width(calibrated, name, level) for name in {row.quantity for row in table.rows}}
    noise, half = np.asarray([ends[row.quantity] for row in table.rows]).T
    variance = log_variance(table, calibrated, lambda done, of: progress("intervals", done, of))
    return np.exp(half * np.sqrt(noise**2 + variance))


def _rows(
    reading: Reading, lost: Mapping[tuple[str, int], Unused], found: Mapping[int, tuple[float, float]]
) -> list[tuple[Row, dict[str, str]]]:
    """(row of the result, its own columns) of every figure, and of every row without one, as the files have them.

    found: (forecast, forecast over low end) by the id of the measurement.
    """
    rows = [
        (_used(row, *found[id(row)]) if id(row) in found else _left_out(row, lost[row.file, row.line]), row.columns)
        for row in reading.measurements
    ]
    blank = dict.fromkeys(UNITS)
    for row in (*reading.unused, *reading.rejected):
        told = {"file": row.file, "line": row.line, "used": False, "reason": row.reason, "detail": row.detail}
        texts = {name: "" for name, unit in UNITS.items() if not unit}
        rows.append((blank | texts | NO_FIGURES | told, row.columns))
    order = {file: n for n, file in enumerate(reading.files)}
    return sorted(rows, key=lambda pair: (order[pair[0]["file"]], pair[0]["line"]))


def _used(row: Measurement, forecast: float, factor: float) -> Row:
    ends = sorted(row.in_file_unit(value) for value in (forecast / factor, forecast * factor))
    measured, predicted = row.in_file_unit(row.value), row.in_file_unit(forecast)
    values = (measured, predicted, *ends, predicted / measured - 1)
    point = stated_value(row, row.value), stated_value(row, forecast)
    told = {"point": point, "used": True, "reason": "", "detail": ""}
    return _identity(row) | dict(zip(FIGURES, values, strict=True)) | told


def _left_out(row: Measurement, why: Unused) -> Row:
    figures = NO_FIGURES | {"measured": row.in_file_unit(row.value)}
    return _identity(row) | figures | {"used": False, "reason": why.reason, "detail": why.detail}


def _identity(row: Measurement) -> Row:
    lengths = {"prompt_tokens": row.prompt, "output_tokens": row.output, "depth_tokens": row.depth}
    stated = {"quantity": stated_quantity(row), "column": row.measured_column, "unit": row.unit}
    return {name: getattr(row, name) for name in SAME} | lengths | stated


def _column(values: list[Any]) -> np.ndarray:
    """An array; of objects where rows that could not be read leave gaps between numbers."""
    return np.asarray(values, object if None in values else None)


def _used_of(rows: Sequence[tuple[Row, Any]]) -> list[str]:
    """A note on each file."""
    notes = []
    for file in dict.fromkeys(row["file"] for row, _ in rows):
        used = [row["used"] for row, _ in rows if row["file"] == file]
        notes.append(f"{file}: {sum(used):,} figures used, {len(used) - sum(used):,} rows or figures not")
    return notes


def _provenance(calibrated: profiles.Profile | None, level: float | None, factor: Any) -> tuple[str, ...]:
    notes = [profiles.provenance(calibrated)]
    if factor is not None and level is not None:
        notes.append(note(level))
    elif level is not None:
        notes.append("interval: none, since there is no profile with intervals: low, high and coverage are absent")
    return tuple(notes)
