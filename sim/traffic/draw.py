"""From a description of traffic to its requests: the same seed gives the same bytes."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np

from sim.errors import RoofcastError, sentence, shown
from sim.traffic.arrivals import arrival_s
from sim.traffic.formats import NAMES, FormatName, Role
from sim.traffic.lengths import described, draw_lengths
from sim.traffic.requests import Hashes, Requests
from sim.traffic.tables import Lengths, Traffic
from sim.traffic.trace import REQUEST, Trace, read_trace

ROLES: dict[str, Role] = {"prompt_tokens": "prompt", "output_tokens": "output"}
WARMUP_ROUNDS = 2  # requests of each user that figures of a closed loop leave out
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray, Hashes | None, str]


def draw(
    traffic: Traffic,
    level: float | None = None,
    replication: int = 0,
    *,
    prompt_tokens: int | None = None,
    output_tokens: int | None = None,
    folder: Path | None = None,
) -> Requests:
    """The requests of one run of the traffic.

    level: one of `traffic.levels`, by default the first; replication: 0 to traffic.replications - 1.
    prompt_tokens, output_tokens: fixed lengths, where the traffic gives none. folder: where relative paths begin.

    Arrivals, prompts and outputs have generators of their own, spawned of the seed for each replication. All levels
    use the same ones (common random numbers): request i has the same lengths at every level, and arrives as `arrivals`
    says. Prompts and outputs drawn from the same trace are drawn together, so that long ones stay with long ones.
    RoofcastError where a trace cannot be read, or nothing arrives.
    """
    at = traffic.levels[0] if level is None else level
    if at not in traffic.levels:
        raise RoofcastError(sentence(f"{shown(level)} is none of the traffic's levels", "level"))
    home = Path() if folder is None else folder
    if traffic.arrivals == "trace":
        drawn = _recorded(traffic, at, home)
    else:
        fixed = {"prompt": prompt_tokens, "output": output_tokens}
        drawn = _drawn(traffic, at, replication, fixed, home)
    return _with_users(traffic, int(at), replication, _limited(traffic, int(at) if traffic.users else 0, *drawn))


def _recorded(traffic: Traffic, time_scale: float, folder: Path) -> Drawn:
    path, sort = str(traffic.path), bool(traffic.sort)
    trace = _read(folder / path, REQUEST, traffic.format, traffic.skip or 0, traffic.first, sort)
    assert trace.prompt_tokens is not None and trace.output_tokens is not None
    if trace.hashes is not None and traffic.system_prompt_tokens:
        hint = "remove system_prompt_tokens: the trace's hash_ids say what its prompts share"
        raise RoofcastError(sentence("belongs to prompts of which nothing else is known", "system_prompt_tokens", hint))
    at_s = trace.arrival_s / time_scale
    n = len(at_s) if traffic.duration_s is None else int(np.searchsorted(at_s, traffic.duration_s, side="right"))
    prompt, output = trace.prompt_tokens[:n], trace.output_tokens[:n]
    hashes = None if trace.hashes is None else trace.hashes.take(np.arange(n), prompt)
    taken = f"from request {(traffic.skip or 0) + 1:,} of {path} ({NAMES[trace.format]})"
    left = f", {trace.n_failed:,} failed ones left out" if trace.n_failed else ""
    clock = f", {time_scale:g} times as fast" if time_scale != 1 else ""
    return at_s[:n], prompt, output, hashes, taken + ", sorted by arrival" * sort + left + clock


def _drawn(traffic: Traffic, level: float, replication: int, fixed: dict[str, int | None], folder: Path) -> Drawn:
    if not 0 <= replication < traffic.replications:
        what = f"{shown(replication)} is not below the {traffic.replications} replications of the traffic"
        raise RoofcastError(sentence(what, "replication"))
    # The key that SeedSequence.spawn gives its child of this number.
    seeds = np.random.SeedSequence(traffic.seed, spawn_key=(replication,)).spawn(3)
    at, *of_lengths = (np.random.Generator(np.random.PCG64(seed)) for seed in seeds)
    n = traffic.most_requests
    arrivals = np.zeros(n or 0) if traffic.users else arrival_s(traffic, level, at)
    if not len(arrivals):
        what = f"nothing arrives within {traffic.horizon_s:g} s at {level:g} requests/s"
        raise RoofcastError(sentence(what, "traffic.duration_s", "give it longer, or n_requests in its place"))
    tables = [_lengths_of(traffic, side, fixed[side]) for side in ROLES.values()]
    recorded = [_rows_of(table, column, folder) for table, column in zip(tables, ROLES, strict=True)]
    if tables[0].path is not None and tables[0].path == tables[1].path:
        of_lengths[1] = np.random.Generator(np.random.PCG64(seeds[1]))
    prompt, output = (
        draw_lengths(table, len(arrivals), generator, rows)
        for table, generator, rows in zip(tables, of_lengths, recorded, strict=True)
    )
    told = [f"{side} {described(table)}" for side, table in zip(ROLES.values(), tables, strict=True)]
    told += [f"seed {traffic.seed}, replication {replication + 1} of {traffic.replications}"]
    return arrivals, prompt, output, None, ", ".join([_kind(traffic, level), *told])


def _think_cv(traffic: Traffic) -> float:
    """Exponential unless given, as TPC-C asks of its terminals (revision 5.11, clause 5.2.5.4): people who all think
    equally long would meet again and again.
    """
    return 1.0 if traffic.think_cv is None else traffic.think_cv


def _with_users(traffic: Traffic, users: int, replication: int, requests: Requests) -> Requests:
    """The requests with their warm-up, and in a closed loop with when users begin, and how long they think."""
    n = len(requests)
    warmup = traffic.warmup_requests
    if warmup is None:
        warmup = min(WARMUP_ROUNDS * users, n // 2) if traffic.users else 0
    if warmup >= n:
        hint = "take fewer, or more requests"
        raise RoofcastError(sentence(f"{warmup} leaves none of {n} requests", "traffic.warmup_requests", hint))
    said = requests.provenance + (f", of which the first {warmup:,} warm up" if warmup else "")
    found = replace(requests, warmup=warmup, provenance=said)
    ramp_up_s = requests.think_s if traffic.ramp_up_s is None else traffic.ramp_up_s
    if not traffic.users or not (ramp_up_s or traffic.thinks_at_random):
        return found
    thought_s = np.full(n, requests.think_s)
    if traffic.thinks_at_random:
        seed = np.random.SeedSequence(traffic.seed, spawn_key=(replication, len(ROLES) + 1))
        shape = _think_cv(traffic) ** -2
        thought_s *= np.random.Generator(np.random.PCG64(seed)).standard_gamma(shape, n) / shape
    return replace(found, ready_s=np.arange(users) * (ramp_up_s / users), thought_s=thought_s)


def _kind(traffic: Traffic, level: float) -> str:
    if traffic.users:
        ramp_up_s = (traffic.think_s or 0.0) if traffic.ramp_up_s is None else traffic.ramp_up_s
        began = f", who begin within {ramp_up_s:g} s" if ramp_up_s else ""
        varied = f" on average (cv {_think_cv(traffic):g})" if traffic.thinks_at_random else ""
        return f"{level:g} users in a closed loop{began}, thinking {traffic.think_s or 0:g} s{varied}"
    shape = f" (cv {traffic.cv:g})" if traffic.cv else f" of {traffic.burst_size:,}" if traffic.burst_size else ""
    day = f" on average over a day, from hour {traffic.start_hour or 0:g}" if traffic.arrivals == "daily" else ""
    return f"{traffic.arrivals} arrivals{shape} at {level:g} requests/s{day}"


def _lengths_of(traffic: Traffic, side: Role, fixed: int | None) -> Lengths:
    given = traffic.prompt if side == "prompt" else traffic.output
    if given is None and fixed is None:
        what = "required table is missing"
        raise RoofcastError(
            sentence(
                what,
                f"traffic.{side}",
                f"write [traffic.{side}] with tokens = 512, or give {side}_tokens in [workload]",
            )
        )
    return Lengths(tokens=fixed) if given is None else given


def _rows_of(lengths: Lengths, column: str, folder: Path) -> np.ndarray | None:
    """(M,) lengths of the trace that a table of lengths names."""
    if lengths.path is None:
        return None
    role = ROLES[lengths.column or column]
    trace = _read(folder / lengths.path, (role,), None, 0, None, True)
    return trace.prompt_tokens if role == "prompt" else trace.output_tokens


def _read(
    path: Path, needed: tuple[Role, ...], expected: FormatName | None, skip: int, first: int | None, sort: bool
) -> Trace:
    """`read_trace`, once for all levels and replications while the file stays the same."""
    try:
        stat = path.stat()
        state = (stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError):
        state = (0, 0)  # reading it says what is wrong
    return _read_once(path, needed, expected, skip, first, sort, state)


@functools.lru_cache(maxsize=2)
def _read_once(
    path: Path,
    needed: tuple[Role, ...],
    expected: FormatName | None,
    skip: int,
    first: int | None,
    sort: bool,
    state: tuple[int, int],
) -> Trace:
    return read_trace(path, needed, expected, skip, first, sort)


def _limited(
    traffic: Traffic,
    users: int,
    at_s: np.ndarray,
    prompt: np.ndarray,
    output: np.ndarray,
    hashes: Hashes | None,
    said: str,
) -> Requests:
    """Within max_prompt_tokens and max_output_tokens, and none that holds nothing but the system prompt."""
    system = traffic.system_prompt_tokens or 0
    sides = (("prompts", traffic.max_prompt_tokens, prompt), ("outputs", traffic.max_output_tokens, output))
    for side, most, tokens in sides:
        if most is not None:
            said += f", {np.count_nonzero(tokens > most):,} {side} cut to {most:,} tokens"
    if system:
        said += f", {np.count_nonzero(prompt <= system):,} prompts lengthened to {system + 1:,} tokens"
    prompt = np.maximum(np.minimum(prompt, traffic.max_prompt_tokens or np.int32(2**31 - 1)), np.int32(system + 1))
    output = np.minimum(output, traffic.max_output_tokens or np.int32(2**31 - 1))
    if hashes is not None and traffic.max_prompt_tokens:
        hashes = hashes.take(np.arange(len(prompt)), prompt)
    return Requests(
        arrival_s=at_s,
        prompt_tokens=prompt.astype(np.int32),
        output_tokens=output.astype(np.int32),
        provenance=f"{len(prompt):,} requests, {said}",
        users=users,
        think_s=float(traffic.think_s or 0.0),
        system_prompt_tokens=system,
        hashes=hashes,
    )
