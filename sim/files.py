"""Whether a file that is asked for can be written, found out before anything is computed for it."""

from __future__ import annotations

import os
from pathlib import Path

from sim.errors import RoofcastError, clipped, sentence, shown


def check_writable(path: str | os.PathLike[str]) -> Path:
    """The path, if a file can be written there; else RoofcastError."""
    where, file = clipped(str(path)), Path(path)
    if not str(path) or "\0" in str(path):
        raise RoofcastError(sentence(f"expected the name of a file to write, found {shown(str(path))}"))
    try:
        if file.is_dir():
            raise RoofcastError(sentence("is a directory, expected a file to write", where, "name a file in it"))
        if not file.parent.is_dir():
            raise RoofcastError(sentence(f"there is no folder {file.parent}", where, f"mkdir -p {file.parent}"))
    except OSError as error:
        raise RoofcastError(sentence(f"cannot be written: {error.strerror}", where)) from None
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise RoofcastError(sentence("cannot be written: permission denied", where, "name another file"))
    return file


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write the file whole or not at all, through one beside it; devices are written as they are."""
    file = Path(os.path.realpath(check_writable(path)))
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        if file.exists() and not (file.is_file() and os.access(file.parent, os.W_OK)):
            file.write_text(text, encoding="utf-8")
        else:
            unfinished.write_text(text, encoding="utf-8")
            os.replace(unfinished, file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise RoofcastError(sentence(f"cannot be written: {error.strerror}", clipped(str(path)))) from None
