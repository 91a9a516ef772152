"""The folder of a sweep: a manifest, and for each finished block a part and, where they are kept, its cells."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sim.errors import RoofcastError, clipped, sentence
from sim.files import write_whole
from sim.sweeps.manifest import differences, identity
from sim.sweeps.parts import Part

MANIFEST = "manifest.json"
PARTS, CELLS = "parts", "cells"
UNFINISHED = r"\.[\w-]+\.(json|npz|parquet)\.\d+"  # of a run that was killed
AGAIN = "the same command goes on from there"


class Store:
    """An open folder. Every file is whole: it gets its name when it is on the disk.

    A block is done when its part is there, and its cells where they are kept, which are written before it. A part says
    of which block of which sweep it is, how large its cells are, and the checksum of all. One process at a time has the
    folder.

    Raises RoofcastError where the folder cannot be written, belongs to another sweep or another run, or holds
    something else; nothing in it is changed then.
    """

    def __init__(self, folder: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
        self.folder, self.n_blocks = Path(folder), int(manifest["n_blocks"])
        self._identity, self._keeps = identity(manifest), manifest["keep"] != "front"
        self._made(self.folder)
        self._lock = os.open(self.folder, os.O_RDONLY)
        try:
            self._claim()
            self._check(manifest)
            kept = [self.folder / CELLS] if self._keeps else []
            for folder in (self.folder, self.folder / PARTS, *kept):
                self._made(folder)
                for left in (path for path in folder.iterdir() if re.fullmatch(UNFINISHED, path.name)):
                    left.unlink(missing_ok=True)
        except BaseException:
            self.close()
            raise
        names = (re.fullmatch(r"block-(\d+)\.npz", path.name) for path in (self.folder / PARTS).iterdir())
        found = (i for i in (int(name[1]) for name in names if name) if i < self.n_blocks)
        self.done = {i for i in found if not self._keeps or self._cells(i).exists()}

    def read(self, i_block: int) -> Part:
        """The part of a block that is done; RoofcastError where it, or its cells, are not what was written."""
        path = self._part(i_block)
        try:
            part, sealed, cells = _opened(path.read_bytes())
            if sealed != self._seal(i_block, part, cells):
                raise ValueError("it is not what was written for this block")
            if self._keeps:
                path = self._cells(i_block)
                if path.stat().st_size != cells:
                    raise ValueError("its length is not what was written")
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            hint = "remove it, and the same command computes the block again"
            where = f"{clipped(str(self.folder))}/{path.relative_to(self.folder)}"
            raise RoofcastError(sentence(f"cannot be read ({error})", where, hint)) from None
        return part

    def write(self, i_block: int, part: Part, cells: bytes | None = None) -> None:
        """Stores a block; cells: a Parquet file. RoofcastError where it cannot be written, as when the disk is full."""
        try:
            if cells is not None:
                write_whole(self._cells(i_block), cells, sync=True)
            size = len(cells or b"")
            sealed = packed(part, sealed=self._seal(i_block, part, size), cells_bytes=np.int64(size))
            write_whole(self._part(i_block), sealed, sync=True)
        except RoofcastError as error:
            raise RoofcastError(f"{error.problems[0].split('; hint:')[0]}; {self.told()}") from None
        self.done.add(i_block)

    def told(self) -> str:
        """What there is, and how to go on."""
        return f"{len(self.done):,} of {self.n_blocks:,} blocks are in {clipped(str(self.folder))}: {AGAIN}"

    def close(self) -> None:
        """Others may have the folder."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _part(self, i_block: int) -> Path:
        return self.folder / PARTS / f"block-{i_block:06d}.npz"

    def _cells(self, i_block: int) -> Path:
        return self.folder / CELLS / f"block-{i_block:06d}.parquet"

    def _seal(self, i_block: int, part: Part, cells_bytes: int) -> bytes:
        """Checksum of the sweep, the block, the arrays with their shapes, and how many bytes its cells take."""
        block = json.dumps([i_block, cells_bytes]).encode()
        return hashlib.sha256(self._identity + block + packed(part)).hexdigest().encode()

    def _made(self, folder: Path) -> None:
        try:
            folder.mkdir(exist_ok=True)
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or error
            hint = f"mkdir -p {folder.parent}" if isinstance(error, FileNotFoundError) else "name another folder"
            raise RoofcastError(sentence(f"no folder can be made: {what}", clipped(str(folder)), hint)) from None

    def _claim(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "wait for it, or name another folder"
            where = clipped(str(self.folder))
            raise RoofcastError(sentence("another run is writing to this folder", where, hint)) from None
        except OSError:
            return  # a file system without locks

    def _check(self, here: Mapping[str, Any]) -> None:
        path, where = self.folder / MANIFEST, clipped(str(self.folder))
        if not path.exists():
            if any(not re.fullmatch(UNFINISHED, name) for name in os.listdir(self.folder)):
                what = "the folder is not empty and holds no sweep"
                raise RoofcastError(sentence(what, where, "nothing was changed; name another folder"))
            write_whole(path, json.dumps(here, indent=2) + "\n", sync=True)
            return
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(there, Mapping):
                raise ValueError("it is no table of names and values")
            found = differences(there, here)
        except (OSError, ValueError) as error:
            what = f"{MANIFEST} cannot be read ({error})"
            raise RoofcastError(sentence(what, where, "name another folder")) from None
        if found:
            what = f"the folder holds another sweep ({'; '.join(found)})"
            raise RoofcastError(sentence(what, where, "nothing was changed; name another folder"))


def packed(part: Part, **more: np.ndarray | np.generic | bytes) -> bytes:
    """The arrays of a part, and more, as an .npz file; equal ones give equal bytes."""
    out = io.BytesIO()
    np.savez(out, **{name: np.asarray(value) for name, value in (vars(part) | more).items()})
    return out.getvalue()


def unpacked(content: bytes) -> Part:
    """The part of `packed`, bit for bit. Raises EOFError, ValueError, KeyError or BadZipFile where it is none."""
    return _opened(content)[0]


def _opened(content: bytes) -> tuple[Part, bytes, int]:
    """(part, its seal, bytes of its cells), the last two where `packed` was given them."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in Part.__dataclass_fields__}
        seal, cells_bytes = bytes(arrays.get("sealed", b"")), int(arrays.get("cells_bytes", 0))
    return Part(**{**found, "n_cells": int(found["n_cells"])}), seal, cells_bytes
