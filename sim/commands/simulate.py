"""`roofcast simulate`: a scenario file with traffic, simulated request by request."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sim.commands.deployment import add_draws, add_profile
from sim.commands.output import (
    add_format,
    check_pictures,
    documents,
    in_brief,
    print_json,
    print_notes,
    print_view,
    write_levels,
)
from sim.commands.parsing import Parser, call_arguments
from sim.errors import RoofcastError, clipped, sentence
from sim.files import check_writable

if TYPE_CHECKING:
    from sim.verbs.simulate import Simulation

_KEYWORDS = {name: name for name in ("seed", "replications", "profile")}
_TABLES = (".csv", ".parquet")


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "scenario", metavar="SCENARIO.toml", help="with a section [traffic], as in the folder scenarios"
    )
    add_draws(parser)
    add_profile(parser)
    group = parser.add_argument_group("output")
    add_format(group)
    group.add_argument("--requests", metavar="FILE", help="every request of every run, as .csv or .parquet")
    group.add_argument("--plot", metavar="FILE", help="timeline, and latency against load, as .png or .svg")
    parser.epilog = "example: roofcast simulate scenarios/load-on-one-h100.toml --plot load.png --requests requests.csv"


def execute(args: argparse.Namespace) -> int:
    """Simulate and print; 1 if no deployment keeps to the objectives at any level."""
    check_pictures(args.plot)
    if args.requests is not None:
        _check_table(args.requests)
    import sim
    from sim.report.progress import progress_bar

    with progress_bar() as tell:
        answer = sim.simulate(args.scenario, progress=tell, **call_arguments(args, _KEYWORDS))
    return show(args, answer)


def show(args: argparse.Namespace, answer: Simulation) -> int:
    """Print a simulation as `--format` says, and write the files that are asked for."""
    if args.format == "json":
        print_json(documents(answer.scenario.name, answer.summary, answer.results))
    elif args.format == "csv":
        write_levels(answer.results)
    else:
        from sim.report.simulation import simulation_view

        print_view(simulation_view(answer.scenario.name, answer.results, answer.summary))
    if args.format != "json":
        print_notes(in_brief(answer.summary.provenance))
    requests = getattr(args, "requests", None)  # `run` has no such option
    if requests:
        from sim.report.requests import write_requests

        write_requests(answer.runs, requests, answer.summary.details["load"])
    if args.plot:
        from sim.report.load import load_plot

        load_plot(answer.results, answer.summary, answer.runs, args.plot, answer.scenario)
    print_notes([f"wrote {path}" for path in (requests, args.plot) if path])
    return 0 if (answer.summary["max_load"] > 0).any() else 1


def _check_table(path: str) -> None:
    """Refuse, before anything is computed, a table that could not be written afterwards."""
    if Path(path).suffix.lower() not in _TABLES:
        what = "expected a .csv or .parquet file"
        raise RoofcastError(sentence(what, clipped(path) or "''", "end the name in .csv or .parquet"))
    check_writable(path)
