"""`roofcast calibrate`: a profile fitted to measurements, judged on rows held out."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sim.commands.deployment import add_profile
from sim.commands.output import print_json, print_notes, print_problems, print_view
from sim.commands.parsing import Parser, call_arguments, count, one_of
from sim.errors import RoofcastError, clipped, sentence
from sim.files import check_writable, write_whole

if TYPE_CHECKING:
    from sim.verbs.calibrate import Calibration

_COUNTS = ("tp", "pp", "ep", "dp", "replicas", "concurrency", "prompt", "output")
_KEYWORDS = {name: name for name in ("profile", "folds", "model", "hardware", "engine", "weights", "kv", *_COUNTS)}


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("files", metavar="FILE...", nargs="+", help="measurements: tables, or what a benchmark wrote")
    add_profile(parser)
    parser.add_argument("--out", metavar="PROFILE.toml", help="the profile to write")
    parser.add_argument("--name", metavar="NAME", help="of the profile (default: that of its file)")
    parser.add_argument("--folds", type=count(2), metavar="N", help="shares of the rows held out in turn (default: 5)")
    parser.add_argument("--format", type=one_of("table", "json"), default="table", metavar="FORMAT",
                        help="of stdout: table (default) or json")  # fmt: skip
    group = parser.add_argument_group("accuracy document; takes some minutes, starts best from --profile none")
    group.add_argument("--report", metavar="FILE.md", help="write the errors by engine, device, model and load")
    group.add_argument("--figures", metavar="FILE.json", help="and the figures in it")
    _add_stated(parser)
    parser.epilog = "example: roofcast calibrate mine.csv --out mine.toml, then estimate ... --profile mine.toml"


def _add_stated(parser: Parser) -> None:
    """Declare what the command line states of files that do not say it themselves."""
    group = parser.add_argument_group("what the files do not say")
    group.add_argument("--model", metavar="NAME", help="as in roofcast models")
    group.add_argument("--hardware", metavar="NAME", help="as in roofcast hardware, or 8x-h100")
    group.add_argument("--engine", metavar="NAME", help="as in roofcast engines")
    group.add_argument("--weights", metavar="FORMAT", help="bf16, fp8, int4, q4_k_m, ...")
    group.add_argument("--kv", metavar="FORMAT", help="KV cache at 16, 8 or 4 bit")
    for name in _COUNTS:
        group.add_argument(f"--{name}", type=count(), metavar="N")


def execute(args: argparse.Namespace) -> int:
    """Fit, print and write; 1 if rows had mistakes and were left out."""
    _check_outputs(args)
    from sim.report.calibration import calibration_document, calibration_view, unused_note
    from sim.report.fitting import fitting
    from sim.verbs.calibrate import calibrate

    name = args.name or (Path(args.out).name.removesuffix(".toml") if args.out else None)
    with fitting() as tell:
        found = calibrate(args.files, name=name, progress=tell, **call_arguments(args, _KEYWORDS))
        if args.report:
            _report(args, found, tell)
    if args.out:
        from sim.profiles.write import write

        write(found.profile, args.out)
    if args.format == "json":
        print_json(calibration_document(found))
    else:
        print_view(calibration_view(found))
    written = [f"wrote {path}" for path in (args.out, args.report, args.figures) if path]
    print_notes([*found.notes, *unused_note(found), *written])
    print_problems(found.problems)
    return 1 if found.problems else 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse, before anything is computed, files that cannot be written or that are read."""
    if not args.out and not args.report:
        raise RoofcastError(sentence("the file of the profile is missing", "calibrate --out", "--out profile.toml"))
    if args.figures and not args.report:
        raise RoofcastError(sentence("figures are those of a report", "calibrate --figures", "add --report FILE.md"))
    if args.report and args.profile != "none":
        what = "the report judges a fit from the catalogue's priors"
        raise RoofcastError(sentence(what, "calibrate --report", "add --profile none"))
    given = {"--out": args.out, "--report": args.report, "--figures": args.figures}
    outputs = {option: path for option, path in given.items() if path is not None}
    read = [*args.files, *([args.profile] if args.profile not in (None, "none") else [])]
    seen = {os.path.realpath(path): path for path in read}
    for option, path in outputs.items():
        file = check_writable(path)
        taken = seen.setdefault(os.path.realpath(file), option)
        if taken != option:
            what = "is read" if taken in read else f"is the file of {taken}, too"
            raise RoofcastError(sentence(f"{clipped(path)} {what}", f"calibrate {option}", "name another file"))


def _report(args: argparse.Namespace, found: Calibration, tell: Callable[[str, int, int, float], None]) -> None:
    from sim import accuracy

    figures = accuracy.figures(found, tell)
    write_whole(args.report, accuracy.document(figures))
    if args.figures:
        write_whole(args.figures, accuracy.figures_text(figures))
