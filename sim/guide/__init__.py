"""The sizing guide as data and computation: every figure it claims, recomputed, with a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.results import Result


def check(profile: str | None = None) -> Result:
    """Every claim of the sizing guide with the computed figure, the verdict, and the condition or what it would take.

    Columns: id, line (of the guide), section, claim, claimed, computed, verdict, condition.
    profile: as in sim.estimate.
    """
    from sim.guide.compute import every_claim

    return every_claim(profile)


def markdown(result: Result) -> str:
    """The result of `sim.guide.check` as the document docs/guide-check.md."""
    from sim.guide.report import markdown as render

    return render(result)


def matrix_markdown(profile: str | None = None) -> str:
    """The guide's decision matrix, each situation swept, as the document docs/decision-matrix.md."""
    from sim.guide.matrix_report import matrix_markdown as render

    return render(profile)
