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
    """How much of a task is done a second: `31.2 M/s`."""

    def render(self, task: Task) -> Text:
        """The rate over the last seconds, or nothing before there is one."""
        return Text(f"{prefixed(task.speed, '', lowest=0).strip()}/s" if task.speed else "", no_wrap=True)


@contextmanager
def progress_bar(rate: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function of (what, done, of) that draws a bar for each `what`; all are wiped at the end.

    rate: how many a second, and the time left, instead of how many.
    """
    shown = sys.stderr is not None and sys.stderr.isatty()
    how_far = (TaskProgressColumn(), Speed(), TimeRemainingColumn()) if rate else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *how_far, TimeElapsedColumn())
    with Progress(*columns, console=console(sys.stderr), transient=True, disable=not shown) as bar:
        tasks: dict[str, TaskID] = {}

        def note(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of, completed=done)
            bar.update(tasks[what], completed=done)

        yield note
