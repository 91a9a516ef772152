"""The text of a file: unpacked, decoded, and as whole as it can be had, with a sentence about what is wrong."""

from __future__ import annotations

import codecs
import re
import zlib
from pathlib import Path

from sim.errors import clipped, sentence
from sim.files import open_input
from sim.measure.rows import LONGEST_PATH, place

GZIP = b"\x1f\x8b"
WIDE = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_JUNK = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def read_text(path: Path) -> tuple[str, list[str]]:
    """(text, problems): of a gzip file that is cut off, as much as can be unpacked; "" where nothing can be read."""
    where = clipped(str(path), most=LONGEST_PATH)
    try:
        with open_input(path) as file:
            data = file.read()
    except OSError as error:
        return "", [sentence(f"cannot be read: {error.strerror}", where, "name a file of measurements")]
    except ValueError as error:
        return "", [sentence(f"cannot be read: {error}", where)]
    problems = []
    if data[:2] == GZIP:
        data, whole = _unpack(data)
        if not whole:
            rows = len(data.splitlines())
            what = f"the gzip file is damaged or cut off in line {max(rows, 1)}"
            problems.append(sentence(what, place(str(path), max(rows, 1)), "fetch it again; what precedes is used"))
            data = data[: data.rfind(b"\n") + 1]
    text = _decode(data)
    if text is None:
        return "", [sentence("is not text", where, "expected CSV, JSON, JSONL, Markdown or a benchmark's output")]
    if not text.strip() and not problems:
        problems.append(sentence("is empty", place(str(path), 1), "name a file with measurements"))
    return text, problems


def lines_of(text: str) -> list[str]:
    """The lines as an editor counts them, whatever ends them."""
    return re.split(r"\r\n|\n|\r", text)


def _unpack(data: bytes) -> tuple[bytes, bool]:
    """(what could be unpacked, whether that is all), over every member of the file."""
    found = b""
    while data[:2] == GZIP:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            for start in range(0, len(data), 65536):
                found += unpacker.decompress(data[start : start + 65536])
                if unpacker.eof:
                    data = unpacker.unused_data + data[start + 65536 :]
                    break
            else:
                return found, False
        except zlib.error:
            return found, False
    return found, True


def _decode(data: bytes) -> str | None:
    encoding = next((name for mark, name in WIDE.items() if data.startswith(mark)), "utf-8-sig")
    text = data.decode(encoding, errors="replace")
    strange = len(_JUNK.findall(text)) + text.count("�")
    return None if strange > len(text) // 100 + 3 else text
