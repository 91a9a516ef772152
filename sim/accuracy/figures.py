"""The figures of the accuracy document, as plain values: errors on rows that no fit has seen."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim import catalog
from sim.accuracy.heads import HEADS, is_silicon, source
from sim.accuracy.ranks import layout_ranks, repeatability
from sim.breakdown import BY, ORDERS, PHASES
from sim.calibration.fit import fit, log_errors
from sim.calibration.folds import SEED
from sim.calibration.heldout import covered
from sim.calibration.naive import naive_prompt_s, naive_token_s
from sim.errors import RoofcastError, sentence
from sim.measure import Measurement
from sim.params import count
from sim.scores import score
from sim.verbs.calibrate import FIT_STEPS, FITTED, LEVEL, Calibration, Progress, Work, as_stated

TABLES = ("engine", "hardware", "model", "kind", "batch", "depth")
LEAST_ROWS = 10  # of a group with a line of its own
OTHERS = "others"
ORDER = ("silicon", "serving", "local")
DIGITS = 4
LINE = ("group", "rows", "median", "mean", "bias", "90th percentile", "inside 80 %", "before", "naive")
TOLD_FOLD = 0  # whose own head figures are kept, to be checked by refitting it


@dataclass(frozen=True)
class Judged:
    """Every row with its log errors, of the figure as its file states it; NaN where there is none."""

    rows: Sequence[Measurement]
    before: np.ndarray
    after: np.ndarray
    naive: np.ndarray
    inside: np.ndarray

    def line(self, group: str, chosen: Sequence[int]) -> list[str | float]:
        """The line of a table, as LINE says: the errors of some rows, at least one."""
        of = np.asarray(chosen)
        measured = np.asarray([row.value for row in self.rows])[of]
        after = score(self.after[of], measured, self.inside[of])
        before, naive = (float(np.median(np.abs(np.expm1(errors[of])))) for errors in (self.before, self.naive))
        found = (after.median_frac, after.mean_frac, after.bias_frac, after.p90_frac, after.coverage_frac)
        return [group, after.rows, *found, before, naive]


def figures(found: Calibration, progress: Progress) -> dict[str, Any]:
    """Everything that the document says, from a calibration that began at the catalogue's priors."""
    work = found.work
    if work.held is None or found.profile.base:
        what = "errors are reported of a fit from the catalogue's priors, with rows held out"
        raise RoofcastError(sentence(what, "report", "--profile none, and more rows"))
    judged = judge(work)
    alone = left_out_by(work, progress)
    rows = work.table.rows
    body = {
        "files": [data.model_dump(exclude={"fingerprints"}) for data in found.profile.data],
        "columns": LINE,
        "split": {"how": found.profile.error[0].split, "seed": SEED, "level": LEVEL},
        "heads": head_figures(judged, np.ones(len(rows), bool)),
        "told_fold": {"fold": TOLD_FOLD, "heads": head_figures(judged, work.held.fold == TOLD_FOLD)},
        "left_out": {by: _left_out(rows, labels, errors) for by, (labels, errors) in alone.items()},
        "ranks": {
            name: layout_ranks(rows, errors)
            for name, errors in (("before", work.before), ("folds", work.held.log_error), ("model", alone["model"][1]))
        },
        "coverage": _coverage(judged),
        "floor": {quantity: repeatability(rows, quantity) for quantity in ("tpot_s", "ttft_s")},
        "tables": _tables(judged),
        "excluded": _excluded(found),
    }
    return json.loads(json.dumps(_rounded(body)))


def figures_text(body: dict[str, Any]) -> str:
    """The figures as JSON: a list of plain values on one line."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub(r'([\]}],)(?=[\[{"])', r"\1\n", text) + "\n"


def judge(work: Work) -> Judged:
    """Errors of the calibration on the rows that each fold held out."""
    assert work.held is not None
    sign = as_stated(work.table.rows)
    naive = [naive_s(row) / row.value for row in work.table.rows]
    return Judged(
        work.table.rows, sign * work.before, sign * work.held.log_error, sign * np.log(naive),
        covered(work.table, work.held, LEVEL),
    )  # fmt: skip


def naive_s(row: Measurement) -> float:
    """What the naive roofline says of a row; NaN of a throughput."""
    if row.quantity.endswith("tokens_per_s"):
        return float("nan")
    if row.quantity in PHASES:
        tokens = row.prompt * (row.concurrency if row.quantity == "prefill_s" else 1)
        return naive_prompt_s(row.model, row.machine, row.tp, tokens)
    return naive_token_s(row.model, row.machine, row.weights, row.tp)


def head_figures(judged: Judged, chosen: np.ndarray) -> list[dict[str, Any]]:
    """Each head figure over the chosen rows."""
    lines = []
    for head in HEADS:
        of = chosen & np.asarray([head.of(row) for row in judged.rows])
        line: dict[str, Any] = {"name": head.name, "aim": head.aim_frac, "rows": int(of.sum())}
        if of.any():
            middle = np.mean if head.mean else np.median
            sides = {"measured": judged.after, "before": judged.before, "naive": judged.naive}
            line |= {side: float(middle(np.abs(np.expm1(errors[of])))) for side, errors in sides.items()}
        lines.append(line)
    return lines


def left_out_by(work: Work, progress: Progress) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By model and by device: (labels (M,), log errors (M,) by fits without the label's rows; NaN where none ran)."""
    rows = work.table.rows
    judged = np.asarray([is_silicon(row, "tpot_s") for row in rows])
    labels = {
        "model": np.asarray(_shapes([row.model for row in rows])),
        "device": np.asarray([catalog.machine(row.machine).device.id for row in rows]),
    }
    turns = [(by, label) for by in labels for label in np.unique(labels[by][judged])]
    errors = {by: np.full(len(rows), np.nan) for by in labels}
    for k, (by, label) in enumerate(turns):
        own = labels[by] == label
        errors[by][own] = _without(work, own, _stage(progress, f"without {label}", k, len(turns)))[own]
    return {by: (labels[by], errors[by]) for by in labels}


def _stage(progress: Progress, what: str, k: int, n_fits: int) -> Callable[[int, int, float], None]:
    return lambda step, _, loss: progress(what, k * FIT_STEPS + step, n_fits * FIT_STEPS, loss)


def _without(work: Work, own: np.ndarray, progress: Callable[[int, int, float], None]) -> np.ndarray:
    pooling = work.parameters.pooling
    weights = np.where(own, 0.0, work.weights).astype(np.float32)
    return log_errors(work.table, pooling, fit(work.table, pooling, weights, progress).z)


def _shapes(models: Sequence[str]) -> list[str]:
    """Each model's name, with those that have its very shape: a model is left out with its other trainings."""
    by_shape: dict[str, list[str]] = defaultdict(list)
    for model in sorted(set(models)):
        by_shape[repr(count(catalog.model(model)))].append(model)
    name = {model: ", ".join(alike) for alike in by_shape.values() for model in alike}
    return [name[model] for model in models]


def _left_out(rows: Sequence[Measurement], labels: np.ndarray, errors: np.ndarray) -> list[dict[str, Any]]:
    """Of serving TPOT, a line for all and one for each label."""
    known = np.isfinite(errors) & np.asarray([is_silicon(row, "tpot_s") for row in rows])
    measured = np.asarray([row.value for row in rows])
    lines = []
    for label in ["", *np.unique(labels[known]).tolist()]:
        of = known & (labels == label) if label else known
        if of.any():
            found = score(errors[of], measured[of])
            lines.append({"left_out": label, "rows": found.rows, "median": found.median_frac, "mean": found.mean_frac,
                          "bias": found.bias_frac})  # fmt: skip
    return lines


def _coverage(judged: Judged) -> list[list[Any]]:
    """(Quantity, rows, share inside); the first of all of them."""
    quantities = Counter(row.quantity for row in judged.rows)
    of = np.asarray([row.quantity for row in judged.rows])
    parts = [["all", len(judged.rows), float(judged.inside.mean())]]
    return parts + [[name, n, float(judged.inside[of == name].mean())] for name, n in quantities.most_common()]


def _tables(judged: Judged) -> dict[str, dict[str, dict[str, list]]]:
    """Source -> quantity -> table -> lines; groups of few rows are one line."""
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(judged.rows):
        members[source(row), row.quantity].append(index)
    found: dict[str, dict[str, dict[str, list]]] = defaultdict(dict)
    for (name, quantity), indices in sorted(members.items(), key=lambda item: _place(*item[0])):
        found[name][quantity] = {"all": [judged.line("all", indices)]}
        found[name][quantity] |= {by: _lines(judged, indices, by) for by in TABLES}
    return dict(found)


def _place(name: str, quantity: str) -> tuple[int, str, int]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name, FITTED.index(quantity))


def _lines(judged: Judged, indices: list[int], by: str) -> list[list[str | float]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        groups[BY[by](judged.rows[index])].append(index)
    bands = ORDERS.get(by, [])
    large = {name: own for name, own in groups.items() if bands or len(own) >= LEAST_ROWS}
    few = [index for name, own in groups.items() if name not in large for index in own]
    place = {name: bands.index(name) if name in bands else len(bands) for name in large}
    ordered = sorted(large, key=lambda name: (place[name], -len(large[name]), name))
    if few:
        large[OTHERS] = few
        ordered.append(OTHERS)
    return [judged.line(name, large[name]) for name in ordered]


def _excluded(found: Calibration) -> dict[str, dict[str, int]]:
    """File -> reason -> rows."""
    by_file: dict[str, Counter[str]] = defaultdict(Counter)
    for row in found.unused:
        by_file[row.file.replace("\\", "/").rpartition("/")[2]][row.reason] += 1
    return {file: dict(reasons.most_common()) for file, reasons in by_file.items()}


def _rounded(of: Any) -> Any:
    if isinstance(of, float):
        return round(of, DIGITS) if np.isfinite(of) else None
    if isinstance(of, dict):
        return {name: _rounded(value) for name, value in of.items()}
    return [_rounded(value) for value in of] if isinstance(of, list | tuple) else of
