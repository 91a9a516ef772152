"""Which measured figures a profile was fitted to, so that none is counted twice."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from sim import profiles
from sim.errors import clipped
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
    found = list(zip(rows, _known_from(rows, profile), strict=True))
    kept = [row for row, file in found if file is None]
    lines = {(row.file, row.line) for row in kept}
    known = {(row.file, row.line): (row, file) for row, file in found if (row.file, row.line) not in lines}
    return kept, [Unused(m.file, m.line, m.columns, REASON, f"as in {file}") for m, file in known.values()]


def in_sample(rows: Sequence[Measurement], profile: Profile) -> tuple[str, ...]:
    """A sentence for each file that has rows of which the profile was fitted to a figure."""
    fitted, published = (_known_lines(rows, of) if of else set() for of in (profile, profiles.shipped()))
    told = []
    for file in dict.fromkeys(row.file for row in rows):
        lines = {(row.file, row.line) for row in rows if row.file == file}
        if own := lines & fitted:
            how = "in-sample" if 2 * len(own) > len(lines) else "partly in-sample"
            of = f"{len(own):,} of the {len(lines):,} rows of {clipped(Path(file).name)}"
            unseen = " (docs/accuracy.md)" if own & published else ""
            what = f"{how}: the profile {profile.name} was fitted to {of}"
            told.append(f"{what}: errors are smaller than on rows held out{unseen}")
    return tuple(told)


def _known_lines(rows: Sequence[Measurement], profile: Profile) -> set[tuple[str, int]]:
    found = zip(rows, _known_from(rows, profile), strict=True)
    return {(row.file, row.line) for row, file in found if file is not None}


def _known_from(rows: Iterable[Measurement], profile: Profile) -> list[str | None]:
    """The file in which the profile was fitted to each figure, None where it was not."""
    file_of = {mark: data.file for data in profile.data for mark in _unpacked(data.fingerprints)}
    return [file_of.get(fingerprint(row)) for row in rows]


def _unpacked(text: str) -> list[bytes]:
    joined = base64.b64decode(text)
    return [joined[at : at + N_BYTES] for at in range(0, len(joined), N_BYTES)]


def _rounded(of: float) -> str:
    return f"{of * (1 + ROUNDING):.{DIGITS}g}"
