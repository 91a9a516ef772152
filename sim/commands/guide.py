"""`roofcast guide`: the sizing guide recomputed, with a verdict on each claim."""

from __future__ import annotations

import argparse
from pathlib import Path

from sim.commands.deployment import add_profile
from sim.commands.output import add_format, emit, print_notes
from sim.commands.parsing import Parser
from sim.errors import RoofcastError, sentence
from sim.files import check_writable


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    add_profile(parser)
    add_format(parser)
    parser.add_argument("--write", metavar="FILE.md", help="also write all verdicts as Markdown")
    parser.add_argument("--check", metavar="FILE.md", help="exit with 1 if FILE.md is not what --write would write")
    parser.add_argument("--matrix", metavar="FILE.md", help="instead, search its decision matrix and write that")
    parser.epilog = "example: roofcast guide --write docs/guide-check.md"


def execute(args: argparse.Namespace) -> int:
    """Print the verdicts; 1 if the file of `--check` says otherwise."""
    if args.matrix is not None:
        return _matrix(args.matrix, args.profile)
    written = None if args.check is None else _read(args.check)
    if args.write is not None:
        check_writable(args.write)
    from sim import guide
    from sim.report.verdict import guide_view

    result = guide.check(args.profile)
    emit(args, result, lambda: guide_view(result))
    if args.write is not None:
        _write(args.write, guide.markdown(result))
        print_notes([f"wrote {args.write}"])
    if written is None or written == guide.markdown(result):
        return 0
    print_notes([f"{args.check} is not what is computed now: run roofcast guide --write {args.check}"])
    return 1


def _matrix(path: str, profile: str | None) -> int:
    check_writable(path)
    from sim import guide

    _write(path, guide.matrix_markdown(profile))
    print_notes([f"wrote {path}"])
    return 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RoofcastError(sentence(f"cannot be read: {reason}", path or "''")) from None


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RoofcastError(sentence(f"cannot be written: {error.strerror}", path)) from None
