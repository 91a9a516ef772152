"""Computes every claim of the sizing guide and gives each its verdict."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from sim import catalog, profiles
from sim.guide import fitting, memory, speed
from sim.guide.claims import Claim, sections
from sim.guide.forecast import nearest_model, resting_on, short_name
from sim.guide.patterns import patterns
from sim.guide.verdict import Finding, Verdict
from sim.guide.wording import claimed, statement
from sim.results import Result

COLUMNS = ("id", "line", "section", "claim", "claimed", "computed", "verdict", "condition")
CHECKS: dict[str, Callable[[Claim], Finding]] = {
    "params": memory.params,
    "weights": memory.weights,
    "bytes": memory.bytes_per_param,
    "formula": memory.formula,
    "overhead": memory.overhead,
    "native": memory.native,
    "window": memory.window,
    "exists": memory.exists,
    "product": memory.product,
    "capacity": memory.capacity,
    "fits": fitting.fits,
    "dense": fitting.dense,
    "equivalent": fitting.equivalent,
    "training": fitting.training,
    "speed": speed.speed,
    "ratio": speed.ratio,
    "proportional": speed.proportional,
    "cost": speed.cost,
    "crossover": speed.crossover,
    "serves": speed.serves,
    "price": speed.price,
}
PROVENANCE = (
    "claims: line numbers and figures of the sizing guide, restated; quality of answers is not computed",
    "sizes: parameters counted from each architecture, bits per weight of each format with scales",
    "speeds: a claimed speed within 20 % of the forecast holds",
)


def every_claim(profile: str | None = None) -> Result:
    """Every claim with its figure, verdict and condition, one row a claim; `details["patterns"]` has the curves.

    Computed on the CPU, so that the last digit is the same with and without a GPU.
    """
    calibrated = profiles.named(profile)
    with jax.default_device(jax.devices("cpu")[0]), resting_on(profile):
        rows = [_row(claim, found(claim)) for section in sections() for claim in section.claims]
        curves = patterns()
    notes = (*PROVENANCE, profiles.provenance(calibrated))
    columns = {name: np.asarray(values) for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)}
    return Result(columns, dict.fromkeys(COLUMNS, ""), notes, {"patterns": curves})


def found(claim: Claim) -> Finding:
    """The finding on a claim; where it names something that does not exist, that is said, and what is nearest.

    What is impossible by the guide's own figures stays so.
    """
    finding = CHECKS[claim.kind](claim)
    unreal = not_real(claim)
    if not unreal or finding.verdict is Verdict.NO_PRODUCT:
        return finding
    if finding.verdict is Verdict.IMPOSSIBLE:
        return Finding(finding.computed, finding.verdict, f"{finding.condition}; {unreal}")
    told = f"by the guide's figures it {finding.verdict}" + (f": {finding.condition}" if finding.condition else "")
    return Finding(finding.computed, Verdict.NO_PRODUCT, f"{unreal}; {told}")


def not_real(claim: Claim) -> str:
    """`Gemma 4 9B does not exist, nearest: ...` for each named thing that does not, or nothing."""
    models = [catalog.model(claim.model)] if claim.model else []
    devices = [catalog.machine(claim.hardware).device] if claim.hardware else []
    unreal = [(row.name, nearest_model(row)) for row in models if row.status == "guide"]
    near = catalog.devices()
    unreal += [(row.name, short_name(near[row.nearest or row.id])) for row in devices if row.status == "guide"]
    return "; ".join(f"{name} does not exist, nearest: {nearest}" for name, nearest in unreal)


def _row(claim: Claim, finding: Finding) -> tuple[str | int, ...]:
    words = statement(claim), claimed(claim), finding.computed, str(finding.verdict), finding.condition
    return claim.id, claim.line, claim.section, *words
