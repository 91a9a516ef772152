"""Roofcast: forecasts what it takes to serve a large language model.

The public surface: `calibrate`, `capacity`, `estimate`, `fits`, `minimize`, `recommend`, `run`, `simulate`,
`simulate_many`, `sweep`, `validate`, and the `Result` and `RoofcastError` they give.
Imported on first use, so that `import sim` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.errors import RoofcastError
    from sim.results import Result
    from sim.verbs.calibrate import calibrate
    from sim.verbs.capacity import capacity
    from sim.verbs.estimate import estimate
    from sim.verbs.fits import fits
    from sim.verbs.minimize import minimize
    from sim.verbs.recommend import recommend
    from sim.verbs.run import run
    from sim.verbs.simulate import simulate, simulate_many
    from sim.verbs.sweep import sweep
    from sim.verbs.validate import validate

__version__ = "0.1.0"
__all__ = [
    "Result", "RoofcastError", "__version__", "calibrate", "capacity", "estimate", "fits", "minimize", "recommend",
    "run", "simulate", "simulate_many", "sweep", "validate",
]  # fmt: skip

_HOMES = {
    "calibrate": "sim.verbs.calibrate",
    "capacity": "sim.verbs.capacity",
    "estimate": "sim.verbs.estimate",
    "fits": "sim.verbs.fits",
    "minimize": "sim.verbs.minimize",
    "recommend": "sim.verbs.recommend",
    "run": "sim.verbs.run",
    "simulate": "sim.verbs.simulate",
    "simulate_many": "sim.verbs.simulate",
    "sweep": "sim.verbs.sweep",
    "validate": "sim.verbs.validate",
    "Result": "sim.results",
    "RoofcastError": "sim.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sim' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
