"""`roofcast run`: every deployment of a scenario file, compared; one with traffic is simulated."""

from __future__ import annotations

import argparse
import csv
import sys
from typing import TYPE_CHECKING, Any

from sim.commands.deployment import add_profile
from sim.commands.output import add_format, add_plot, check_pictures, document, print_json, print_notes, print_view
from sim.commands.parsing import Parser, call_arguments

if TYPE_CHECKING:
    from sim.verbs.run import ScenarioResult


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("scenario", metavar="SCENARIO.toml", help="as in the folder scenarios")
    add_profile(parser, interval=True)
    add_format(parser)
    add_plot(parser)
    parser.epilog = "example: roofcast run scenarios/small-team-rag.toml --plot rag.png"


def execute(args: argparse.Namespace) -> int:
    """Print the comparison; 1 if no deployment keeps to the objectives."""
    check_pictures(args.plot)
    import sim
    from sim.verbs.simulate import Simulation

    answer = sim.run(args.scenario, **call_arguments(args, {"profile": "profile", "interval": "interval"}))
    if isinstance(answer, Simulation):
        from sim.commands.simulate import show

        return show(args, answer)
    if args.format == "json":
        print_json(_document(answer))
    elif args.format == "csv":
        _write_csv(answer)
    else:
        from sim.report.verdict import recommend_view, scenario_view

        print_view(scenario_view(answer.scenario.name, answer.results, answer.summary))
        if answer.recommendation is not None:
            print_view(recommend_view(answer.recommendation, "Recommended"))
    if args.format != "json":
        print_notes(answer.summary.provenance)
    if args.plot:
        from sim.report.plot import throughput_plot

        throughput_plot(answer.results, args.plot, answer.scenario.name)
        print_notes([f"wrote {args.plot}"])
    return 0 if (answer.summary["max_concurrency"] > 0).any() else 1


def _document(answer: ScenarioResult) -> dict[str, Any]:
    results = {label: document(result) for label, result in answer.results.items()}
    body = {"scenario": answer.scenario.name, "summary": document(answer.summary), "results": results}
    return body | ({"recommendation": document(answer.recommendation)} if answer.recommendation else {})


def _write_csv(answer: ScenarioResult) -> None:
    """All loads of all deployments in one table, the deployment's label first."""
    rows = [{"label": label, **row} for label, result in answer.results.items() for row in result.rows()]
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
