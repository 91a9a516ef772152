"""Writes catalog/silicon.toml: `python -m sim.silicon`, with the optional package installed."""

from __future__ import annotations

import sys
from pathlib import Path

from sim.errors import RoofcastError
from sim.files import write_whole
from sim.silicon.fit import Fit, fit
from sim.silicon.tables import DEVICES, ENGINES, read, tables_root, version

PLACE = Path(__file__).parents[1] / "catalog" / "silicon.toml"
HEAD = """\
# Efficiencies fitted to measured GPU kernels, by `python -m sim.silicon`: edit nothing here by hand.
# Rows apply as those of efficiency.toml, and after them where they reach as far.
"""


def row(found: Fit, source: str) -> str:
    """One row of the catalogue."""
    lines = [f'engine = "{found.engine}"', f'device = "{found.device}"']
    lines += [f"{name} = {_value(value)}" for name, value in found.fields.items()]
    error = round(100 * found.median_error())
    lines.append(f'source = "{source}: {found.n_samples} timings of {found.groups()}; median error {error} %"')
    return "\n".join(["[[efficiency]]", *lines, 'confidence = "fitted"'])


def _value(value: float | dict[str, float]) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{kernel} = {number}" for kernel, number in value.items()) + " }"
    return str(value)


def main() -> int:
    """Fits every device of the tables, all engines together and each alone."""
    try:
        root = tables_root()
        rows = []
        for device in DEVICES.values():
            samples = read(root, device)
            for engine in ("*", *ENGINES):
                if engine == "*" or any(s.engine == engine for s in samples):
                    rows.append(row(fit(samples, device, engine), version()))
                    print(rows[-1], flush=True)
    except RoofcastError as error:
        print(f"roofcast: {error}", file=sys.stderr)
        return 2
    write_whole(PLACE, "\n\n".join([HEAD.rstrip(), *rows]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
