"""How far a long computation is, on stderr: a bar on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sim.report.table import console

Tell = Callable[[str, int, int, float], None]  # what is fitted, steps done, steps in all, loss


@contextmanager
def fitting() -> Iterator[Tell]:
    """Tells of fits within: stage, step and loss."""
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task("reading", total=None, loss="")

            def draw(what: str, done: int, of: int, loss: float) -> None:
                bar.update(task, description=what, completed=done, total=of, loss=f"loss {loss:,.4g}")

            yield draw
    else:
        yield _Lines().tell


def _bar() -> Progress:
    columns = (TextColumn("{task.description:<18}"), BarColumn(), TextColumn("step {task.completed}"))
    return Progress(*columns, TextColumn("{task.fields[loss]}"), TimeElapsedColumn(), console=console(sys.stderr))


class _Lines:
    """A line at the end of each stage."""

    def __init__(self) -> None:
        self.last: tuple[str, int, int, float] | None = None

    def tell(self, what: str, done: int, of: int, loss: float) -> None:
        """Note a step, and print the stage that it ends."""
        if self.last and (what != self.last[0] or done == of):
            stage, step, steps, reached = self.last
            print(f"fitted {stage}: step {step} of {steps}, loss {reached:,.4g}", file=sys.stderr)
        self.last = None if done == of else (what, done, of, loss)
