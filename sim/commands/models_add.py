"""`roofcast models add`: a model of your own, from its Hugging Face config.json."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from sim.commands.output import print_notes
from sim.commands.parsing import Parser
from sim.errors import RoofcastError, clipped, sentence
from sim.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from sim.schema import ModelRow


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", metavar="CONFIG.json", help="config.json of the model's repository")
    parser.add_argument("--name", metavar="NAME", help="what to call it (default: the name of the file or its folder)")
    parser.epilog = "The row goes to $ROOFCAST_HOME/models, or ~/.config/roofcast/models; its id is printed."


def execute(args: argparse.Namespace) -> int:
    """Import the file, store the row in the user's catalogue, and print its id."""
    from sim.importers.huggingface import import_config
    from sim.params import count
    from sim.report.number import show

    if args.name is not None and not re.search("[a-z0-9]", args.name, re.IGNORECASE):
        what = f"expected a name with a letter or a digit, got '{clipped(args.name)}'"
        raise RoofcastError(sentence(what, "models add --name"))
    row = import_config(args.config, name=args.name)
    counts = count(row)
    path = _store(row)
    print(row.id)
    sizes = f"{show('params', counts.total)} parameters, {show('params', counts.active)} active per token"
    print_notes([f"wrote {path}: {sizes}", *([row.note] if row.note else [])])
    return 0


def _store(row: ModelRow) -> Path:
    from sim import catalog
    from sim.catalog.lookup import find
    from sim.importers.hf_toml import to_toml

    path = catalog.user_dir() / "models" / f"{row.id}.toml"
    taken = find(row.id, catalog.models()) or find(row.name, catalog.models())
    if taken is not None:
        what = f'there is a model "{taken.id}" already'
        what += "" if taken.id == row.id else f', which answers to "{clipped(row.name)}"'
        hint = f"give another name with --name, or remove {path}" if path.exists() else "give another name with --name"
        raise RoofcastError(sentence(what, "models add", hint))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RoofcastError(sentence(f"cannot be written: {error.strerror}", str(path))) from None
    write_whole(path, to_toml(row))
    catalog.reload()
    return path
