"""What the keys of the traffic tables say against each other: key -> sentence, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from sim.bounds import LEAST_CV, MOST_REQUESTS
from sim.units import HOURS_PER_DAY, S_PER_HOUR

Given = Mapping[str, Any]
OWN: dict[str, tuple[str, ...]] = {
    "poisson": ("requests_per_s",),
    "gamma": ("requests_per_s", "cv"),
    "deterministic": ("requests_per_s",),
    "bursts": ("requests_per_s", "burst_size", "on_s", "off_s", "off_frac"),
    "daily": ("requests_per_s", "hourly", "start_hour"),
    "closed": ("users", "think_s", "think_cv", "ramp_up_s"),
    "trace": ("path", "format", "skip", "first", "sort", "time_scale"),
}
NEEDED = {"gamma": ("requests_per_s", "cv"), "closed": ("users",), "trace": ("path",)}
NOT_ANYWHERE = {
    ("closed", "requests_per_s"): "the rate of a closed loop follows from users and think_s: remove it, or users",
    ("closed", "duration_s"): "a closed loop ends after n_requests: give those instead",
    ("trace", "requests_per_s"): "a trace has its own rate: remove it, or change the rate with time_scale",
    ("trace", "n_requests"): "a trace is cut with first: give that instead",
    ("trace", "prompt"): "a trace has its own lengths: remove this table, or cut them with max_prompt_tokens",
    ("trace", "output"): "a trace has its own lengths: remove this table, or cut them with max_output_tokens",
}
LENGTHS = ("prompt", "output")
PAIRS = (("mean_tokens", "cv"), ("median_tokens", "p95_tokens"), ("mu", "sigma"))
WAYS = "tokens, mean_tokens with cv, median_tokens with p95_tokens, mu with sigma, min_tokens with max_tokens, or path"


def traffic_problems(given: Given) -> dict[str, str]:
    """What is wrong with the keys of `[traffic]` that have a value, `arrivals` among them."""
    arrivals = given["arrivals"]
    problems: dict[str, str] = {}
    for key in given:
        homes = [kind for kind, keys in OWN.items() if key in keys]
        if homes and arrivals not in homes:
            listed = " or ".join(f'"{home}"' for home in homes)
            problems[key] = f'belongs to arrivals = {listed}, and these are "{arrivals}": remove it, or change arrivals'
    problems |= {key: what for (kind, key), what in NOT_ANYWHERE.items() if kind == arrivals and key in given}
    for key in NEEDED.get(arrivals, ("requests_per_s",)):
        if key not in given:
            instead = "; users make a closed loop, path a trace" if arrivals == "poisson" else ""
            problems[key] = f'required key is missing beside arrivals = "{arrivals}"{instead}'
    if arrivals == "bursts":
        problems |= _bursts(given)
    return _too_many(given) | _thought(given) | _short(given) | _hours(given) | problems


def lengths_problems(given: Given) -> dict[str, str]:
    """What is wrong with the keys of a table of lengths that have a value."""
    ways = [key for key in ("tokens", "path") if key in given]
    ways += [" with ".join(pair) for pair in PAIRS if set(pair) & set(given)]
    limits = [key for key in ("min_tokens", "max_tokens") if key in given]
    if not ways and len(limits) < 2:
        missing = {"min_tokens", "max_tokens"} - set(limits) if limits else {"tokens"}
        return {missing.pop(): f"required key is missing; lengths are told by {WAYS}"}
    if len(ways) > 1:
        return {ways[1].split()[0]: f"give either {ways[0]} or {ways[1]}, not both"}
    problems = {}
    for first, second in PAIRS:
        if (first in given) != (second in given):
            there, absent = (first, second) if first in given else (second, first)
            problems[absent] = f"required key is missing beside {there}"
    if "tokens" in given and limits:
        problems[limits[0]] = "a fixed length has no limits: remove it, or tokens"
    if "column" in given and "path" not in given:
        problems["column"] = "is a column of a trace: give its path as well, or remove it"
    if len(limits) == 2 and given["min_tokens"] > given["max_tokens"]:
        problems["max_tokens"] = f"{given['max_tokens']} is below min_tokens = {given['min_tokens']}"
    if given.get("p95_tokens", inf) <= given.get("median_tokens", 0):
        problems["p95_tokens"] = f"{given['p95_tokens']:g} is not above median_tokens = {given['median_tokens']:g}"
    return problems


def _bursts(given: Given) -> dict[str, str]:
    phases = [key for key in ("on_s", "off_s", "off_frac") if key in given]
    if "burst_size" in given:
        return {phases[0]: "give either burst_size or on_s and off_s, not both"} if phases else {}
    if not phases:
        return {"burst_size": "required key is missing (or on_s and off_s in its place)"}
    return {
        key: "required key is missing (on_s and off_s go together)" for key in ("on_s", "off_s") if key not in given
    }


def _too_many(given: Given) -> dict[str, str]:
    """More requests than one run holds."""
    day = HOURS_PER_DAY * S_PER_HOUR if given["arrivals"] == "daily" else 0.0
    duration_s = given.get("duration_s", day)
    n = duration_s * max(given.get("requests_per_s", (0.0,)))
    if "n_requests" in given or n <= MOST_REQUESTS:
        return {}
    what = f"{duration_s:g} s of it are about {n:.3g} requests, and at most {MOST_REQUESTS:,} are drawn"
    return {"requests_per_s": f"{what}: give n_requests or a shorter duration_s"}


def _thought(given: Given) -> dict[str, str]:
    """A spread of thoughts that take no time, or a warm-up beside which nothing is left."""
    problems = {}
    if given["arrivals"] == "closed" and "think_cv" in given and not given.get("think_s"):
        problems["think_cv"] = "spreads think_s, which is 0: give that as well, or remove it"
    if 0 < given.get("think_cv", 0) < LEAST_CV:
        problems["think_cv"] = f"expected 0, or at least {LEAST_CV:g}, got {given['think_cv']:g}"
    n, warmup = given.get("n_requests", inf), given.get("warmup_requests", 0)
    if warmup >= n:
        problems["warmup_requests"] = f"{warmup} leaves nothing of n_requests = {n}: take fewer"
    return problems


def _short(given: Given) -> dict[str, str]:
    """Prompts of which nothing is left beside the system prompt."""
    system = given.get("system_prompt_tokens", 0)
    most = {"max_prompt_tokens": given.get("max_prompt_tokens", inf)}
    most |= {"prompt.tokens": given.get("prompt", {}).get("tokens", inf)}
    key, n = min(most.items(), key=lambda pair: pair[1])
    what = f"{system} leaves nothing of {key} = {n}: system_prompt_tokens are part of every prompt"
    return {"system_prompt_tokens": what} if n <= system else {}


def _hours(given: Given) -> dict[str, str]:
    hourly = given.get("hourly", (1,) * HOURS_PER_DAY)
    if len(hourly) != HOURS_PER_DAY:
        return {
            "hourly": f"expected {HOURS_PER_DAY} multipliers, the first for the hour after midnight, got {len(hourly)}"
        }
    return {} if any(hourly) else {"hourly": "all hours are 0, and nothing would ever arrive"}
