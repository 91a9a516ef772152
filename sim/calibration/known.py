"""Which measured figures a profile was fitted to, so that none is counted twice."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from sim.measure import Measurement, Unused
from sim.profiles.rows import Profile

N_BYTES = 6  # of a fingerprint: 8 characters of Base64
REASON = "in the profile already"
DIGITS = 3  # of lengths and values: the same figure is published as 15.9177 and as 15.9
ROUNDING = 1e-9  # relative: what reads 1.225 in one unit and a hair less in another rounds to the same


def fingerprint(row: Measurement) -> bytes:
    """(6,) of SHA-256 over the configuration, load, quantity and value: alike wherever and however a figure is stated.

    Lengths and the value count to three significant digits, in tokens, s and tokens/s. The cache's format, which many
    sources do not state, is left out. Beside 12,000 figures, one in 20 billion others is taken for one of them.
    """
    ran = (row.model, row.machine, row.engine, row.weights, row.tp, row.pp, row.ep, row.dp, row.replicas)
    load = (row.concurrency, *(_rounded(of) for of in (row.prompt, row.output, row.depth)))
    told = (*ran, *load, row.quantity, _rounded(row.value))
    return hashlib.sha256("|".join(map(str, told)).encode()).digest()[:N_BYTES]


def packed(rows: Iterable[Measurement]) -> str:
    """The fingerprints of rows, each once, sorted, in Base64: as a profile keeps them, 8 characters each."""
    return base64.b64encode(b"".join(sorted({fingerprint(row) for row in rows}))).decode()


def without_known(rows: Sequence[Measurement], profile: Profile) -> tuple[list[Measurement], list[Unused]]:
    """(Figures that the profile was not fitted to, rows of which it was fitted to all)."""
    file_of = {mark: data.file for data in profile.data for mark in _unpacked(data.fingerprints)}
    found = [(row, file_of.get(fingerprint(row))) for row in rows]
    kept = [row for row, file in found if file is None]
    lines = {(row.file, row.line) for row in kept}
    known = {(row.file, row.line): (row, file) for row, file in found if (row.file, row.line) not in lines}
    return kept, [Unused(m.file, m.line, m.columns, REASON, f"as in {file}") for m, file in known.values()]


def _unpacked(text: str) -> list[bytes]:
    joined = base64.b64decode(text)
    return [joined[at : at + N_BYTES] for at in range(0, len(joined), N_BYTES)]


def _rounded(of: float) -> str:
    return f"{of * (1 + ROUNDING):.{DIGITS}g}"
