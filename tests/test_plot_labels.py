"""Pictures write what users call things as it is: dollar signs in it are no formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from sim.report.roofline import roofline_plot
from sim.report.sweep_plot import sweep_plot
from tests.sweep_fakes import sweep_answer, sweep_spec
from tests.test_report import PEAKS, operations_result
from tests.test_simulate import DEPLOYMENT, ONE, scenario

Run = Callable[..., tuple[int, str, str]]
NAMES = ["broken $x^$", "$5$ or $10$", "$$", "a\\$b$"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    figures: list[Figure] = []
    written = Figure.savefig

    def keep(figure: Figure, *args: Any, **named: Any) -> None:
        figures.append(figure)
        written(figure, *args, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def texts(figure: Figure) -> list[str]:
    """What is written, all of it as it is."""
    found = [text for text in figure.findobj(Text) if text.get_visible()]
    assert not any(text.get_parse_math() and "$" in text.get_text() for text in found)
    assert not any("mathdefault" in text.get_text() for text in found)
    return [text.get_text() for text in found]


@pytest.mark.parametrize("command", ["run", "simulate", "capacity"])
def test_names_are_literal(run: Run, tmp_path: Path, drawn: list[Figure], command: str) -> None:
    deployments = [{**DEPLOYMENT, "label": name} for name in NAMES]
    tables: dict[str, Any] = {"workload": {"prompt_tokens": 200, "output_tokens": 20}, "objectives": {"ttft_p99_s": 9}}
    path = scenario(tmp_path / "x.toml", ONE, *deployments, **tables)
    path.write_text(path.read_text().replace("A test", "Cost $x^$"))
    code, _, err = run(command, str(path), "--plot", str(tmp_path / "x.svg"))
    assert code == 0, err
    (figure,) = drawn
    written = texts(figure)
    assert "Cost $x^$" in written
    assert all(any(name in text for text in written) for name in NAMES)


def test_titles_are_literal(tmp_path: Path, drawn: list[Figure]) -> None:
    roofline_plot(operations_result(), PEAKS, 3.35e12, "Cost $x^$", tmp_path / "a.svg")
    sweep_plot(sweep_answer(sweep_spec(name="Cost $x^$")), tmp_path / "b.svg")
    assert [("Cost $x^$" in texts(figure)) for figure in drawn] == [True, True]
