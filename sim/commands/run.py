"""`roofcast run`: every deployment of a scenario file, compared; one with traffic is simulated."""

from __future__ import annotations

import argparse

from sim.commands.deployment import add_profile
from sim.commands.output import (
    add_format,
    add_plot,
    check_pictures,
    document,
    documents,
    print_json,
    print_notes,
    print_view,
    write_levels,
)
from sim.commands.parsing import Parser, call_arguments


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
        body = documents(answer.scenario.name, answer.summary, answer.results)
        more = answer.recommendation
        print_json(body | ({"recommendation": document(more)} if more else {}))
    elif args.format == "csv":
        write_levels(answer.results)
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
