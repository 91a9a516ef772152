"""Measurements out of benchmark files: published tables, and what llama.cpp, vLLM, SGLang, MLX and others write.

`read` finds out each file's format by its content. Nothing vanishes: every row is a measurement, or unused for a
reason; and whatever is wrong with a file is a sentence with file and line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sim import catalog
from sim.measure.checks import without_impossible
from sim.measure.rows import Defaults, Measurement, Reading, Unused
from sim.measure.sniff import read_document
from sim.measure.text import read_text

__all__ = ["SHIPPED", "Defaults", "Measurement", "Reading", "Unused", "read"]

SHIPPED = Path(catalog.__file__).parent / "measurements.csv"  # the project's own table; docs/measurements.md


def read(paths: Sequence[Path], defaults: Defaults | None = None) -> Reading:
    """Every measurement of the files, in their order; `defaults` are what the command line states of them."""
    reading = Reading()
    for path in paths:
        reading.files.append(str(path))
        text, problems = read_text(path)
        reading.problems.extend(problems)
        if text.strip():
            found = read_document(text, str(path), defaults or Defaults())
            reading.measurements.extend(found.measurements)
            reading.unused.extend(found.unused)
            reading.problems.extend(found.problems)
            reading.notes.extend(found.notes)
    return without_impossible(reading)
