"""The numbers of a call: read from scalars and arrays, checked against their bounds, and broadcast to one shape."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import prod
from numbers import Real
from typing import Any

import numpy as np

from sim.bounds import LARGEST_COUNT, LEAST_S, LEAST_SHARE, LEAST_USD, MOST_CONFIGURATIONS, MOST_DEVICES, MOST_USD
from sim.errors import RoofcastError, sentence, shown

DEVICES = ("gpus", "tp", "pp", "ep", "dp", "replicas")
COUNTS = ("concurrency", "users", "prompt", "output", "context", "max_num_batched_tokens", "max_num_seqs",
          "kv_blocks", "admission_steps", "top", "per_model")  # fmt: skip
WHOLE = (*DEVICES, *COUNTS, "gpu_layers", "mixed_chunk")
BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(COUNTS, (1, LARGEST_COUNT)),
    **dict.fromkeys(DEVICES, (1, MOST_DEVICES)),
    "gpu_layers": (0, LARGEST_COUNT),
    "cpu_moe_frac": (0, 1),
    "mixed_chunk": (0, 1),
    "length_spread": (0, 2),
    "n_requests": (1, float("inf")),
    "gpu_memory_utilization": (LEAST_SHARE, 1),
    **dict.fromkeys(("price", "usd", "usd_per_hour"), (LEAST_USD, MOST_USD)),
    **dict.fromkeys(("ttft_s", "tpot_s"), (LEAST_S, LARGEST_COUNT)),
}


def broadcast(numbers: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """Flat arrays of one common shape; RoofcastError for every number that is none or out of its bounds."""
    arrays = {name: as_array(value) for name, value in numbers.items()}
    problems = [found for name, value in numbers.items() if (found := problem(name, value, arrays[name]))]
    if problems:
        raise RoofcastError(*problems)
    shapes = {name: array.shape for name, array in arrays.items() if array is not None}
    try:
        shape = np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if shape)
        hint = "give them one shape, or shapes that numpy broadcasts, such as (3, 1) and (4,)"
        raise RoofcastError(sentence(f"these shapes do not broadcast: {listed}", hint=hint)) from None
    if prod(shape) > MOST_CONFIGURATIONS:
        what = f"{prod(shape):,} configurations in one call, and at most {MOST_CONFIGURATIONS:,} are computed"
        raise RoofcastError(sentence(what, hint="call once for each part"))
    return {name: np.broadcast_to(array, shape).ravel() for name, array in arrays.items()}, shape  # type: ignore[arg-type]


def check_scalars(numbers: Mapping[str, Any]) -> None:
    """Raises RoofcastError for everything that is not one number within its bounds; None is left to the caller."""
    problems = []
    for name, value in numbers.items():
        array = None if value is None else as_array(value)
        if array is not None and array.ndim:
            problems.append(sentence(f"expected one number, found {shown(value)}", name))
        elif value is not None:
            problems.append(problem(name, value, array))
    if any(problems):
        raise RoofcastError(*filter(None, problems))


def as_array(value: Any) -> np.ndarray | None:
    """The value as float64; None where it is not made of numbers, which text, booleans and dates are not."""
    try:
        raw = np.asarray(value)
        if raw.dtype.kind not in "iufO" or not all(_is_number(entry) for entry in _objects(raw)):
            return None
        return raw.astype(np.float64)
    except OverflowError:
        return np.asarray(np.inf)
    except (TypeError, ValueError):
        return None


def problem(name: str, value: Any, array: np.ndarray | None) -> str:
    """What is wrong with one argument, in a sentence, or an empty string."""
    low, high = BOUNDS[name]
    expected = f"expected {'whole numbers' if name in WHOLE else 'numbers'} from {low:.9g} to {high:.10g}"
    if array is None:
        return sentence(f"{expected}, found {shown(value)}", name)
    if array.size == 0:
        return sentence(f"{expected}, found none", name)
    within = (array >= low) & (array <= high)
    if name in WHOLE:
        within &= array == np.floor(array)
    if within.all():
        return ""
    first = array[~within].flat[0] if array.ndim else value
    return sentence(f"{expected}, found {shown(first)}", name)


def _objects(raw: np.ndarray) -> list[Any]:
    return list(raw.flat) if raw.dtype.kind == "O" else []


def _is_number(entry: Any) -> bool:
    return isinstance(entry, Real | Decimal) and not isinstance(entry, bool | np.bool_)
