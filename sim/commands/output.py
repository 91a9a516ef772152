"""Where a command's answer goes: data to stdout in the format asked for, notes on it to stderr, pictures to files."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sim.commands.parsing import one_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.results import Result

MOST_PROBLEMS = 10


def add_format(parser: argparse._ActionsContainer) -> None:
    """Declare `--format`."""
    parser.add_argument(
        "--format",
        type=one_of("table", "json", "csv"),
        default="table",
        metavar="FORMAT",
        help="of stdout: table (default), json or csv",
    )


def add_plot(parser: argparse._ActionsContainer) -> None:
    """Declare `--plot`."""
    parser.add_argument("--plot", metavar="FILE", help="tokens/s and $/Mtok against concurrency, as .png or .svg")


def check_pictures(*paths: str | None) -> None:
    """Refuse, before anything is computed, a picture that could not be written afterwards."""
    asked = [path for path in paths if path is not None]
    if asked:
        from sim.report.figure import check_file

        for path in asked:
            check_file(path)


def emit(
    args: argparse.Namespace, result: Result, view: Callable[[], RenderableType],
    head: Mapping[str, Any] | None = None, **more: Any,
) -> None:  # fmt: skip
    """Print a result as `--format` says; `head` are keys before those of the JSON, `more` after them."""
    if args.format == "json":
        print_json({**(head or {}), **document(result), **more})
        return
    if args.format == "csv":
        sys.stdout.write(result.to_csv())
    else:
        print_view(view())
    print_notes(in_brief(result.provenance))


def in_brief(provenance: Iterable[str]) -> list[str]:
    """Provenance for a person: the sentences on efficiencies counted by how they are known, the others as they are."""
    told = list(provenance)
    known = Counter(line.removeprefix("efficiency (").split(",")[0] for line in told if line.startswith("efficiency ("))
    others = [line for line in told if not line.startswith("efficiency (")]
    if known:
        count = ", ".join(f"{n} {how}" for how, n in known.items())
        others.append(f"efficiencies and fixed times: {count} (--format json names each source)")
    return others


def document(result: Result) -> dict[str, Any]:
    """Rows, units and provenance as plain values."""
    body: dict[str, Any] = json.loads(result.to_json())
    return body


def documents(scenario: str, summary: Result, results: Mapping[str, Result], name: str = "results") -> dict[str, Any]:
    """A comparison of deployments as plain values: its summary, and under `name` the levels of each."""
    levels = {label: document(result) for label, result in results.items()}
    return {"scenario": scenario, "summary": document(summary), name: levels}


def write_levels(results: Mapping[str, Result]) -> None:
    """CSV to stdout: all levels of all deployments in one table, the deployment's label first."""
    rows = [{"label": label, **row} for label, result in results.items() for row in result.rows()]
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(sys.stdout, fieldnames=list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def print_json(body: Any) -> None:
    """Strict JSON to stdout."""
    print(json.dumps(body, indent=2, allow_nan=False, ensure_ascii=False))


def print_view(view: RenderableType) -> None:
    """A table to stdout, without the blanks that pad its lines."""
    from sim.report.table import console

    target = console(sys.stdout)
    with target.capture() as drawn:
        target.print(view)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def print_problems(problems: Iterable[str]) -> None:
    """Mistakes in files to stderr: ten of each kind, which is told by its hint, and how many more there are."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(re.sub(r"\d+", "", problem.rpartition("; hint: ")[2]), []).append(problem)
    for alike in kinds.values():
        for problem in alike[:MOST_PROBLEMS]:
            print(f"roofcast: {problem}", file=sys.stderr)
        if len(alike) > MOST_PROBLEMS:
            more = f"and {len(alike) - MOST_PROBLEMS:,} more like it: --format json lists all"
            print(f"roofcast: {more}", file=sys.stderr)


def print_notes(notes: Iterable[str]) -> None:
    """One line per note to stderr."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
