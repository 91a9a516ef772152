"""Lines of a text file, plain or gzip, in blocks, so that a file of any size is read in little memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sim.errors import RoofcastError, clipped, sentence
from sim.files import near_file, open_input
from sim.measure.rows import LONGEST_PATH, place
from sim.measure.text import GZIP

BLOCK_BYTES = 2**20
LONGEST_LINE_BYTES = 2**24
EXPECTED = "expected a trace as CSV or JSONL, plain or gzip"


class _CutError(Exception):
    """A gzip file ends before its end, or is damaged."""


def line_blocks(path: Path) -> Iterator[tuple[list[int], list[str]]]:
    """(numbers from 1, lines) of the lines that are not blank, block by block; else RoofcastError."""
    where = clipped(str(path), most=LONGEST_PATH)
    try:
        with open_input(path) as file:
            yield from _lines(_blocks(file), where)
    except FileNotFoundError:
        raise RoofcastError(sentence("no such file", where, near_file(path))) from None
    except OSError as error:
        raise RoofcastError(sentence(f"cannot be read: {error.strerror}", where, "name a file of requests")) from None
    except ValueError as error:
        if isinstance(error, RoofcastError):
            raise
        raise RoofcastError(sentence(f"cannot be read: {error}", where)) from None


def _lines(blocks: Iterator[bytes], where: str) -> Iterator[tuple[list[int], list[str]]]:
    rest, number = b"", 1
    try:
        for block in blocks:
            rest += block
            end = rest.rfind(b"\n") + 1
            if end:
                yield _text(rest[:end], number, where)
                number += rest.count(b"\n", 0, end)
                rest = rest[end:]
            if len(rest) > LONGEST_LINE_BYTES:
                raise RoofcastError(sentence("this line does not end within 16 MiB", place(where, number), EXPECTED))
    except _CutError:
        hint = "fetch it again, or take only what precedes: first = N"
        raise RoofcastError(
            sentence("the gzip file is cut off or damaged in this line", place(where, number), hint)
        ) from None
    if rest:
        yield _text(rest, number, where)


def _text(block: bytes, number: int, where: str) -> tuple[list[int], list[str]]:
    try:
        text = block.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line = number + block.count(b"\n", 0, error.start)
        raise RoofcastError(sentence("is not UTF-8 text", place(where, line), EXPECTED)) from None
    if "\0" in text:
        line = number + text.count("\n", 0, text.index("\0"))
        raise RoofcastError(sentence("is not text", place(where, line), EXPECTED))
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    numbers = list(range(number, number + len(lines)))
    if any(not line.strip() for line in lines):
        kept = [(n, line) for n, line in zip(numbers, lines, strict=True) if line.strip()]
        return [n for n, _ in kept], [line for _, line in kept]
    return numbers, lines


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """The file's bytes, unpacked where it is gzip of one or more members."""
    block = file.read(BLOCK_BYTES)
    if block[:2] != GZIP:
        while block:
            yield block
            block = file.read(BLOCK_BYTES)
        return
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        while block:
            yield unpacker.decompress(block, BLOCK_BYTES)
            if unpacker.eof:
                block = unpacker.unused_data.lstrip(b"\0") or file.read(BLOCK_BYTES).lstrip(b"\0")
                unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16) if block else unpacker
            else:
                block = unpacker.unconsumed_tail or file.read(BLOCK_BYTES)
        while more := unpacker.decompress(b"", BLOCK_BYTES):
            yield more
    except zlib.error:
        raise _CutError from None
    if not unpacker.eof:
        raise _CutError
