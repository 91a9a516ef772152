"""A progress bar on stderr, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sim.report.number import prefixed
from sim.report.table import console


class Speed(ProgressColumn):
    """How much of a task is done a second: `31.2 M configurations/s`."""

    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate over the last seconds, or nothing before there is one."""
        return Text(f"{prefixed(task.speed, self._unit, lowest=0)}/s" if task.speed else "")


@contextmanager
def progress_bar(unit: str = "") -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function of (what, done, of) that draws a bar for each `what`; all are wiped at the end.

    With the name of what is counted, the bar has its rate and the time left.
    """
    shown = sys.stderr is not None and sys.stderr.isatty()
    how_far = (TaskProgressColumn(), Speed(unit), TimeRemainingColumn()) if unit else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *how_far, TimeElapsedColumn())
    with Progress(*columns, console=console(sys.stderr), transient=True, disable=not shown) as bar:
        tasks: dict[str, TaskID] = {}

        def note(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of)
            bar.update(tasks[what], completed=done)

        yield note
