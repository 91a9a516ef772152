"""`sim.minimize`: the least hardware with which a model is served as fast, or as cheaply, as is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from sim import design, errors, profiles, units
from sim.design import AT_LEAST, FIGURES, FREE, GROWTH, Design
from sim.errors import RoofcastError, did_you_mean, expect_names, sentence, shown
from sim.numbers import as_array, check_scalars
from sim.request import Request, build
from sim.results import Result
from sim.verbs.estimate import answered, title

BOUNDS = (0.01, 100.0)
INFINITE = 1e6  # as a factor: what is so fast takes no time
MOST_FACTOR = 1e5
SPECS = {"bandwidth": "bandwidth_gb_per_s", "compute": "fp16_tflops", "link": "link_gb_per_s", "memory": "memory_gb"}
UNITS = {"bandwidth": "GB/s", "compute": "TFLOP/s", "link": "GB/s", "memory": "GB"}
TIMED = ("ttft_s", "tpot_s", "e2e_s", *AT_LEAST)
FIXED = ("n_devices", "usd")
Factors = Mapping[str, float]


def minimize(
    free: str | Sequence[str],
    *,
    model: str,
    hardware: str,
    subject: Mapping[str, float],
    objective: str = GROWTH,
    weights_of: Factors | None = None,
    growth: Factors | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    engine: str | None = None,
    weights: str = "native",
    kv: str | None = None,
    pay: str | None = None,
    gpus: int | None = None, tp: int | None = None, pp: int | None = None, ep: int | None = None,
    dp: int | None = None, replicas: int | None = None,
    concurrency: int = 1, prompt: int = 512, output: int = 128, context: int | None = None,
    price: float | None = None, max_num_batched_tokens: int | None = None, max_num_seqs: int | None = None,
    gpu_memory_utilization: float | None = None, profile: profiles.Source = None,
) -> Result:  # fmt: skip
    """What bandwidth would a model need for 50 tokens/s per user? The least factors of a device's parameters that do.

    free: of FREE: memory bandwidth, compute (all peak rates), link (bytes/s between devices), memory (bytes); the rest
    stays as the catalogue has it, idle and peak power too. In the answer all users of `concurrency` run at once,
    none waits. subject: limits by name, "at least" of user_tokens_per_s and output_tokens_per_s, "at most" of ttft_s,
    tpot_s, e2e_s, usd_per_hour, usd_per_mtok, joules_per_token and power_w.
    objective: "growth", Σ w·log(factor) with w of weights_of (default 1), or a figure of an "at most". growth: by which
    exponent the price of a device grows with a factor (default 0). bounds: of the factors, 0.01 to 100. The other
    arguments are those of `sim.estimate`.

    One row: `reached`; each factor, and what it makes of the catalogue's figure (compute: of fp16); then the figures of
    `sim.estimate` there, of which `bound` says what binds. details["answer"] is a sentence, also where it cannot be
    reached; then the figures are those of an infinite factor, or of the bounds where they are what stops it. One free
    parameter is searched in its bounds, several by gradients; memory, which acts in steps, by a grid, then a line.

    Raises RoofcastError for what is wrong with the arguments, and for limits that contradict each other.
    """
    wanted = _checked(free, subject, objective, weights_of or {}, growth or {}, bounds or {})
    numbers = {
        "gpus": gpus, "tp": tp, "pp": pp, "ep": ep, "dp": dp, "replicas": replicas, "concurrency": concurrency,
        "prompt": prompt, "output": output, "context": context, "price": price,
        "max_num_batched_tokens": max_num_batched_tokens, "max_num_seqs": max_num_seqs,
        "gpu_memory_utilization": gpu_memory_utilization,
    }  # fmt: skip
    check_scalars(numbers)
    request = build(model, hardware, engine=engine, weights=weights, kv=kv, pay=pay, profile=profile, **numbers)
    point = jax.tree.map(lambda column: column[0], request.points)
    if np.isnan(point.usd_per_device_s) and any(name.startswith("usd") for name in (*subject, objective)):
        raise RoofcastError(sentence(f"no price is known for {hardware}", "price", "give USD per device-hour"))
    limits = {name: float(limit) for name, limit in subject.items()}
    asked = Design(request.setup, point, limits=limits, objective=objective, **wanted)
    return _told(request, asked, *design.solve(asked))


def _checked(
    free: Any, subject: Any, objective: str, weights_of: Factors, growth: Factors, bounds: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields of the Design; RoofcastError with everything that is wrong."""
    names = tuple(dict.fromkeys(expect_names(free, "parameters") or ()))
    problems = [_unknown("free", name, FREE) for name in names] or [sentence("expected a parameter", "free")]
    subject = subject if isinstance(subject, Mapping) else {"": subject}
    problems += [_limit(name, limit, names) for name, limit in subject.items()]
    if not subject and objective == GROWTH:
        problems.append(sentence("there is nothing to reach", "subject", 'give limits, as {"user_tokens_per_s": 50}'))
    problems.append(_unknown("objective", objective, (GROWTH, *(name for name in FIGURES if name not in AT_LEAST))))
    for where, table in (("weights_of", weights_of), ("growth", growth), ("bounds", bounds)):
        problems += [_unknown(where, name, names) for name in table]
    exponents = {f"weights_of.{n}": v for n, v in weights_of.items()} | {f"growth.{n}": v for n, v in growth.items()}
    problems += [sentence(f"expected a number of at least 0, found {shown(value)}", where)
                 for where, value in exponents.items() if not 0 <= _number(value) < np.inf]  # fmt: skip
    ranges = {name: _range(bounds.get(name, BOUNDS)) for name in names}
    wrong = [name for name, ends in ranges.items() if ends is None]
    told = f"expected two increasing factors, above 0 and up to {MOST_FACTOR:g}"
    problems += [sentence(f"{told}, found {shown(bounds[name])}", f"bounds.{name}") for name in wrong]
    if any(problems):
        raise RoofcastError(*dict.fromkeys(filter(None, problems)))
    low, high = np.log(np.asarray([ranges.get(name, (1.0, 1.0)) for name in FREE], np.float64)).T
    weighted = np.asarray([weights_of.get(name, 1.0) if name in names else 0.0 for name in FREE])
    grown = np.asarray([growth.get(name, 0.0) for name in FREE])
    return {"weights": weighted, "growth": grown, "low": low, "high": high}


def _unknown(where: str, name: str, known: Sequence[str]) -> str:
    """What is wrong with a name, or an empty string."""
    if name in known:
        return ""
    hint = did_you_mean(str(name), known) or f"known are {', '.join(known)}"
    return sentence(f"nothing is called {shown(name)} here", where, hint)


def _limit(name: str, limit: Any, free: Sequence[str]) -> str:
    if name in FIXED:
        return sentence(f"no {' or '.join(free)} moves it", f"subject.{name}", "give gpus, or leave it out")
    if name not in FIGURES:
        return _unknown("subject", name, FIGURES)
    fine = 0 < _number(limit) < np.inf
    return "" if fine else sentence(f"expected a number above 0, found {shown(limit)}", f"subject.{name}")


def _number(value: Any) -> float:
    """The number, or NaN."""
    array = as_array(value)
    return float(array) if array is not None and array.ndim == 0 else float("nan")


def _range(ends: Any) -> tuple[float, float] | None:
    low, high = map(_number, ends) if isinstance(ends, Sequence) and len(ends) == 2 else (0.0, 0.0)
    return (low, high) if 0 < low < high <= MOST_FACTOR else None


def _told(request: Request, asked: Design, x: np.ndarray | None, excess: np.ndarray) -> Result:
    """The result where x keeps to all limits; else why not."""
    aim = " and ".join(map(_phrase, asked.limits.items()))
    if x is not None:
        found = _at(request, asked, x)
        specs = " and ".join(_spec(request, name, f) for name, f in _free(asked, np.exp(x)))
        binding = _binding(found, "prefill" if tuple(asked.limits) == ("ttft_s",) else "decode")
        return _result(request, asked, x, found, True, f"{aim or asked.objective}: {specs}; {binding}")
    alone = np.any(excess <= 0, axis=0)
    if alone.all() and np.any(np.all(np.delete(excess, 1, axis=1) <= 0, axis=1)):
        return _crowded(request, asked, excess)
    if alone.all():
        ends = zip(_free(asked, np.exp(asked.low)), np.exp(asked.high)[asked.free], strict=True)
        where = " and ".join(f"{name} of {low:g} to {high:g} times the catalogue's" for (name, low), high in ends)
        raise RoofcastError(sentence(f"{aim} contradict each other at {where}", "subject"))
    return _missed(request, asked, int(np.argmin(alone)), excess)


def _crowded(request: Request, asked: Design, excess: np.ndarray) -> Result:
    """That the limits are kept only where some users wait, with the point that misses them least while all run."""
    over = np.where(excess[:, 1:2] <= 0, excess[:, design.FIRST :], np.inf)
    near = int(np.argmin(np.max(over, axis=1)))
    x, name = design.grid(asked)[near], FIGURES[int(np.argmax(over[near]))]
    found = _at(request, asked, x)
    most = " and ".join(f"{f:.3g} times the {free}" for free, f in _free(asked, np.exp(x)))
    users = f"while all {int(found['concurrency']):,} users run at once"
    aim = _phrase((name, asked.limits[name]))
    told = f"{aim} cannot be reached {users}: with {most} it is {float(found[name]):.4g}"
    return _result(request, asked, x, found, False, told)


def _free(asked: Design, values: np.ndarray) -> list[tuple[str, float]]:
    """(name, value) of what is free."""
    return [(name, value) for name, value, free in zip(FREE, values.tolist(), asked.free, strict=True) if free]


def _missed(request: Request, asked: Design, j: int, excess: np.ndarray) -> Result:
    """That a limit (or, as j = 0, that anything fits; as j = 1, that all users run) is out of reach, and why."""
    endless = np.where(asked.free, np.log(INFINITE), 0.0)
    there = asked.judge(np.resize(endless, (design.N_POINTS, len(endless))))[1][0]
    bounded = there[j] <= 0 or np.min(excess[:, j]) < there[j]
    x = endless if not bounded else design.grid(asked)[np.argmin(excess[:, j])] if j else asked.high
    found = _at(request, asked, x)
    most = " and ".join(f"{f:g} times the {name}" for name, f in _free(asked, np.exp(x)))
    free = " and ".join(name for name, _ in _free(asked, x))
    if j == 0:
        why = errors.why_reasons(int(found["why"]))[0]
        told = f"cannot be reached: even with {most if bounded else f'infinite {free}'} {why}"
    elif j == 1:
        told = f"cannot be reached: even with {most if bounded else f'infinite {free}'} {_waiting(found)}"
    else:
        name = FIGURES[j - design.FIRST]
        limit = asked.limits[name]
        what = f"{_phrase((name, limit))} cannot be reached"
        told = f"{what} within the bounds: with {most} it is {float(found[name]):.4g}"
        if not bounded:
            told = f"{what}: even infinite {free} gives {float(found[name]):.4g}"
            if name in TIMED:
                told += f", because {_binding(found, 'prefill' if name == 'ttft_s' else 'decode')}"
    return _result(request, asked, x if bounded else np.where(asked.free, np.inf, x), found, False, told)


def _waiting(found: Result) -> str:
    """How many of the users run at once, and what holds the others back."""
    runs, users = float(found["running_sequences"]), int(found["concurrency"])
    full = float(found["max_sequences"]) < users
    why = "the cache has room for no more" if full else "max_num_seqs or max_num_batched_tokens lets no more run"
    return f"{runs:.4g} of {users:,} users run at once, and the others wait: {why}"


def _at(request: Request, asked: Design, x: np.ndarray) -> Result:
    """As `sim.estimate` has it, with these factors."""
    setup, point = asked.moved(x)
    return answered(replace(request, setup=setup, points=jax.tree.map(lambda value: np.reshape(value, 1), point)))


def _result(request: Request, asked: Design, x: np.ndarray, found: Result, reached: bool, told: str) -> Result:
    columns, of = {"reached": np.asarray(reached)}, {"reached": "1"}
    for name, factor in _free(asked, np.exp(x)):
        columns |= {f"{name}_factor": np.asarray(factor), SPECS[name]: np.asarray(_base(request, name) * factor)}
        of |= {f"{name}_factor": "1", SPECS[name]: UNITS[name]}
    told = f"{title(request)}: {told}"
    details = {**found.details, "answer": told}
    return Result(columns | found.columns, of | found.units, (told, *found.provenance), details)


def _base(request: Request, name: str) -> float:
    """What the catalogue says of one device, in UNITS."""
    device = request.setup.device
    return {
        "bandwidth": float(device.bandwidth_bytes_per_s) / units.GB,
        "compute": float(device.attention_flops_per_s) / units.TERA,
        "link": float(device.link_bytes_per_s) / units.GB,
        "memory": request.machine.device.memory_bytes / units.GB,
    }[name]


def _spec(request: Request, name: str, factor: float) -> str:
    base = _base(request, name)
    what = f"{name} (fp16)" if name == "compute" else name
    return f"{what} of {_shown(base * factor)} {UNITS[name]}, {factor:.3g} times {_shown(base)}"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _phrase(limit: tuple[str, float]) -> str:
    name, value = limit
    return f"{name} of at {'least' if name in AT_LEAST else 'most'} {value:g}"


def _binding(found: Result, phase: str) -> str:
    """Which operation takes the longest of a step, and what share of it."""
    rows = [row for row in found.details["operations"].rows() if row["phase"] == phase]
    longest = max(rows, key=lambda row: row["seconds"])
    share = longest["seconds"] / sum(row["seconds"] for row in rows)
    verb = "take" if longest["operation"].endswith("s") else "takes"
    return f"{longest['operation']} {verb} {share:.0%} of a {phase} step ({longest['bound']})"
