"""`roofcast capacity`: the highest load, or the fewest replicas, with which a scenario keeps to its objectives."""

from __future__ import annotations

import argparse
import sys

from sim.commands.deployment import add_draws, add_profile
from sim.commands.output import add_format, check_pictures, documents, in_brief, print_json, print_notes, print_view
from sim.commands.parsing import Parser, call_arguments

_KEYWORDS = {name: name for name in ("fewest", "seed", "replications", "profile")}


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "scenario", metavar="SCENARIO.toml", help="with sections [traffic] and [objectives], as in the folder scenarios"
    )
    parser.add_argument(
        "--fewest", action="store_true", help="the fewest replicas for the scenario's highest load instead"
    )
    add_draws(parser)
    add_profile(parser)
    group = parser.add_argument_group("output")
    add_format(group)
    group.add_argument("--plot", metavar="FILE", help="latency against load with what was found, as .png or .svg")
    parser.epilog = "example: roofcast capacity scenarios/chat-behind-a-router.toml --plot capacity.png"


def execute(args: argparse.Namespace) -> int:
    """Search and print; 1 if no deployment keeps to the objectives."""
    check_pictures(args.plot)
    import sim
    from sim.report.progress import progress_bar

    with progress_bar() as tell:
        answer = sim.capacity(args.scenario, progress=tell, **call_arguments(args, _KEYWORDS))
    if args.format == "json":
        print_json(documents(answer.scenario.name, answer.summary, answer.results, "tried"))
    elif args.format == "csv":
        sys.stdout.write(answer.summary.to_csv())
    else:
        from sim.report.capacity import capacity_view

        print_view(capacity_view(answer.scenario.name, answer.results, answer.summary, answer.fewest))
    if args.format != "json":
        print_notes(in_brief(answer.summary.provenance))
    if args.plot:
        from sim.report.capacity import capacity_plot

        capacity_plot(answer.results, answer.summary, args.plot, answer.scenario)
        print_notes([f"wrote {args.plot}"])
    return 0 if (answer.summary["replicas" if answer.fewest else "max_load"] > 0).any() else 1
