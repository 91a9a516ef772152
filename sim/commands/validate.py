"""`roofcast validate`: forecasts beside measurements, and how far they are off."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sim.commands.deployment import add_profile
from sim.commands.output import (
    add_format,
    check_pictures,
    document,
    emit,
    print_notes,
    print_problems,
)
from sim.commands.parsing import Parser, call_arguments, count, names
from sim.files import check_writable, write_whole

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.results import Result
    from sim.verbs.validate import Progress

_DEGREES = ("tp", "pp", "ep", "dp", "replicas", "concurrency", "prompt", "output")
_KEYWORDS = {
    name: name for name in ("profile", "interval", "by", "model", "hardware", "engine", "weights", "kv", *_DEGREES)
}


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    what = "measurements: CSV, JSON or text as benchmarks write it (default: the table that Roofcast ships)"
    parser.add_argument("files", nargs="*", metavar="[FILE...]", help=what)
    add_stated(parser)
    add_profile(parser.add_argument_group("calibration"), interval=True)
    group = parser.add_argument_group("output")
    known = "quantity,engine,kind,batch,depth,hardware,model"
    group.add_argument("--by", type=names, metavar="LIST", help=f"these error tables, all of their lines: {known}")
    group.add_argument("--rows", metavar="FILE.csv", help="every row, with its forecast in the unit of its figure")
    group.add_argument("--plot", metavar="FILE", help="predicted against measured, as .png or .svg")
    add_format(group)
    parser.epilog = "example: roofcast validate bench.json --hardware 2x-rtx-4090 --rows out.csv --plot out.png"


def add_stated(parser: Parser) -> None:
    """Declare what the command line states of files that do not say it themselves."""
    group = parser.add_argument_group("what the files do not say")
    group.add_argument("--model", metavar="NAME", help="as in roofcast models")
    group.add_argument("--hardware", metavar="NAME", help="as in roofcast hardware, or 8x-h100")
    group.add_argument("--engine", metavar="NAME", help="as in roofcast engines")
    group.add_argument("--weights", metavar="FORMAT", help="bf16, fp8, int4, q4_k_m, ...")
    group.add_argument("--kv", metavar="FORMAT", help="KV cache at 16, 8 or 4 bit")
    helps = ("tensor parallel", "pipeline parallel", "expert parallel", "attention data parallel", "independent copies",
             "requests in flight", "prompt tokens of a request", "output tokens of a request")  # fmt: skip
    for name, told in zip(_DEGREES, helps, strict=True):
        group.add_argument(f"--{name}", type=count(), metavar="N", help=told)


def execute(args: argparse.Namespace) -> int:
    """Print the error tables; 1 if the files have mistakes."""
    check_pictures(args.plot)
    if args.rows is not None:
        check_writable(args.rows)
    from sim.report.progress import progress_bar

    with progress_bar() as progress:
        result = _validated(args, progress)
    scores, problems = result.details["scores"], result.details["problems"]
    more = {} if args.format != "json" else {
        "unused": result.details["unused"], "problems": problems, "figures": document(result)["rows"],
    }  # fmt: skip
    head = {"in_sample": result.details["in_sample"]}
    emit(args, scores, lambda: _view(args, result), head, **more)
    _write(args, result)
    print_problems(problems)
    return 1 if problems else 0


def _validated(args: argparse.Namespace, progress: Progress) -> Result:
    """The forecasts; where no row can be used, the file of rows says why before the error does."""
    import sim
    from sim.verbs.validate import NothingUsed

    try:
        return sim.validate(args.files or None, progress=progress, **call_arguments(args, _KEYWORDS))
    except NothingUsed as nothing:
        _write_rows(args, nothing.result)
        raise


def _view(args: argparse.Namespace, result: Result) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from sim.report.scores import forecasts_view, scores_view, unused_view

    title = "Error of forecasts, predicted / measured - 1, of the figures as the files state them"
    view = scores_view(result.details["scores"], title, result.details["interval"], whole=args.by is not None)
    rows = result.rows()
    head = [Text(f"{note}\n") for note in result.details["in_sample"]]
    rest = unused_view(int(result["used"].sum()), result.details["unused"], rows)
    return Group(*head, *forecasts_view(rows, result.details["interval"]), view, rest)


def _write_rows(args: argparse.Namespace, result: Result) -> None:
    if args.rows is not None:
        from sim.report.rows import rows_csv

        write_whole(args.rows, rows_csv(result))
        print_notes([f"wrote {args.rows}"])


def _write(args: argparse.Namespace, result: Result) -> None:
    _write_rows(args, result)
    if args.plot is not None:
        from sim.report.parity import parity_plot

        parity_plot(result, args.plot, "Predicted against measured")
        print_notes([f"wrote {args.plot}"])
