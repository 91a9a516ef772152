"""The files that are asked for: those to read, and whether one to write can be, before anything is computed for it."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from sim.errors import RoofcastError, clipped, sentence, shown

UNFINISHED: set[Path] = set()  # files that are being written; they are put in their place when they are whole
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def input_files(paths: Paths) -> list[Path]:
    """Each file once; RoofcastError for anything that is no name of a file, or a list of them."""
    listed = paths if isinstance(paths, Iterable) and not isinstance(paths, str | os.PathLike) else [paths]
    listed = list(listed)
    wrong = [path for path in listed if not isinstance(path, str | os.PathLike) or not str(path)]
    if wrong or not listed:
        found = shown(wrong[0]) if wrong else "none"
        raise RoofcastError(sentence(f"expected the names of files with measurements, found {found}", "paths"))
    return list(dict.fromkeys(Path(path) for path in listed))


def near_file(path: Path, pattern: str = "*") -> str:
    """A hint that names the files beside a missing one that are called nearly so, or an empty string.

    Endings are not compared: they are alike anyway, and would make unrelated names look near.
    """
    beside = list(path.parent.glob(pattern)) if path.parent.is_dir() else []
    stem = path.stem.lower()[:100]
    near = {other.stem.lower() for other in beside}
    near = set(difflib.get_close_matches(stem, near, n=3))
    names = sorted(other.name for other in beside if other.stem.lower() in near)[:3]
    return f"did you mean {' or '.join(names)}?" if names else ""


def open_input(path: str | os.PathLike[str]) -> BinaryIO:
    """The bytes of a file; a named pipe that nobody writes to is empty, where opening it would wait for ever."""

    def opener(name: str, flags: int) -> int:
        file = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(file, True)
        return file

    return open(path, "rb", opener=opener)


def check_writable(path: str | os.PathLike[str]) -> Path:
    """The path, if a file can be written there; else RoofcastError."""
    where, file = clipped(str(path)), Path(path)
    if not str(path) or "\0" in str(path):
        raise RoofcastError(sentence(f"expected the name of a file to write, found {shown(str(path))}"))
    try:
        if file.is_dir():
            raise RoofcastError(sentence("is a directory, expected a file to write", where, "name a file in it"))
        if Path(os.path.realpath(file)).is_fifo():  # one without a reader would be waited for, after all the work
            raise RoofcastError(sentence("is a named pipe, expected a file to write", where, "name another file"))
        if not file.parent.is_dir():
            raise RoofcastError(sentence(f"there is no folder {file.parent}", where, f"mkdir -p {file.parent}"))
    except OSError as error:
        raise RoofcastError(sentence(f"cannot be written: {error.strerror}", where)) from None
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise RoofcastError(sentence("cannot be written: permission denied", where, "name another file"))
    try:
        if _is_replaced(real := Path(os.path.realpath(file))):
            tempfile.TemporaryFile(dir=real.parent).close()  # folders of the system refuse only when it is tried
    except OSError as error:
        raise RoofcastError(sentence(f"cannot be written: {error.strerror}", where, "name another file")) from None
    return file


def _is_replaced(file: Path) -> bool:
    """Whether a file is written through one beside it, and not as the device that it is."""
    return not file.exists() or (file.is_file() and os.access(file.parent, os.W_OK))


def write_whole(path: str | os.PathLike[str], content: str | bytes, *, sync: bool = False) -> None:
    """Write the file whole or not at all, through one beside it; devices are written as they are.

    sync: it is on the disk before it has its name, so that not even a power cut leaves a part of it.
    """
    data = content.encode() if isinstance(content, str) else content
    file = Path(os.path.realpath(check_writable(path)))
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    UNFINISHED.add(unfinished)
    try:
        if _is_replaced(file):
            with open(unfinished, "wb") as out:
                out.write(data)
                if sync:
                    out.flush()
                    os.fsync(out.fileno())
            os.replace(unfinished, file)
        else:
            file.write_bytes(data)
    except OSError as error:
        raise RoofcastError(sentence(f"cannot be written: {error.strerror}", clipped(str(path)))) from None
    finally:
        unfinished.unlink(missing_ok=True)
        UNFINISHED.discard(unfinished)
