"""`sim.recommend`: the cheapest deployments that carry a workload within its limits, and why others were rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sim import errors, units
from sim.candidates import Candidates, Limits, gather
from sim.errors import RoofcastError, expect_names, sentence
from sim.intervals import check_level, end, note
from sim.numbers import check_scalars
from sim.point import Score, score_many
from sim.profiles import Source, named, provenance
from sim.results import Result
from sim.verbs.estimate import estimate

UNITS = {
    "rank": "1", "model": "", "hardware": "", "engine": "", "weights": "", "kv": "", "n_gpus": "1", "tp": "1",
    "pp": "1", "ep": "1", "replicas": "1", "ttft_s": "s", "tpot_s": "s", "user_tokens_per_s": "tokens/s",
    "output_tokens_per_s": "tokens/s", "usd_per_hour": "USD/h", "usd_per_mtok": "USD/Mtok", "purchase_usd": "USD",
    "power_w": "W", "joules_per_token": "J/token",
}  # fmt: skip
BOUNDED = ("ttft_s", "tpot_s", "user_tokens_per_s", "output_tokens_per_s")


def recommend(
    *,
    users: int,
    prompt: int = 1024,
    output: int = 256,
    context: int | None = None,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    usd_per_hour: float | None = None,
    usd: float | None = None,
    hardware: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    engines: Sequence[str] | None = None,
    kv: str | None = None,
    precision_floor: str = "int4",
    per_model: int | None = None,
    top: int = 10,
    profile: Source = None,
    interval: float | None = None,
) -> Result:
    """Deployments for `users` concurrent users, ranked by cost per hour, cheapest first.

    Limits: TTFT and TPOT in seconds, rent or running cost in USD per hour, purchase in USD. hardware: the machines on
    hand, as whole machines ("2x rtx-4090"); by default any number of the catalogue's devices with a price. models:
    default, the ones the catalogue marks as current. precision_floor: the format below whose quality none is taken.
    per_model: deployments kept of each model (default: 1 when several models compete, else all). profile: as in
    sim.estimate; interval: likewise, adds the ends of the columns BOUNDED, which neither limits nor ranks.
    details["rejected"] counts each rejected configuration under the first reason; details["considered"] is their sum
    with the accepted.
    """
    given = {"users": users, "prompt": prompt, "output": output, "context": context, "ttft_s": ttft_s,
             "tpot_s": tpot_s, "usd_per_hour": usd_per_hour, "usd": usd}  # fmt: skip
    check(given | {"top": top, "per_model": per_model})
    given["context"] = prompt + output if context is None else context
    limits, calibrated = Limits(**given), named(profile)
    level = None if interval is None else check_level(interval, calibrated)
    found = gather(
        limits, expect_names(hardware, "machines"), expect_names(models, "models"), expect_names(engines, "engines"),
        kv, precision_floor, calibrated,
    )  # fmt: skip
    scores = score_many(found.models, found.devices, found.engines, found.which, found.points)
    reasons = np.asarray(rejections(found, scores, limits))
    accepted = np.flatnonzero(reasons == "")
    keep = per_model or (1 if len({r.id for r in found.rows}) > 1 else len(found.which))
    order = best_first(found, scores, accepted, keep)[:top]
    rejected = Counter(found.refused) + Counter(reasons[reasons != ""].tolist())
    details = {"rejected": dict(rejected.most_common()), "considered": len(reasons) + sum(found.refused.values())}
    result = Result(columns(found, scores, order), dict(UNITS), notes(found, limits), details)
    return result if level is None else with_intervals(result, found, order, limits, level)


def check(given: dict[str, Any]) -> None:
    """Raises RoofcastError for every number that makes no sense."""
    missing = [name for name in ("users", "prompt", "output", "top") if given[name] is None]
    if missing:
        raise RoofcastError(*(sentence("expected a whole number, found None", name) for name in missing))
    check_scalars(given)
    need = given["prompt"] + given["output"]
    if given["context"] is not None and given["context"] < need:
        what = f"{given['context']} tokens cannot hold prompt + output = {need}"
        raise RoofcastError(sentence(what, "context", f"take context of at least {need}"))


def rejections(found: Candidates, scores: Score, limits: Limits) -> list[str]:
    """The first reason against each configuration, or an empty string."""
    tests = (
        ("the weights do not fit", scores.why & errors.WEIGHTS_DO_NOT_FIT > 0),
        ("not one sequence of this context fits beside the weights", scores.why & errors.KV_DOES_NOT_FIT > 0),
        ("the context is beyond the model's own limit", scores.why & errors.CONTEXT_TOO_LONG > 0),
        ("TTFT above the limit", _above(scores.ttft_s, limits.ttft_s)),
        ("TPOT above the limit", _above(scores.tpot_s, limits.tpot_s if limits.output > 1 else None)),
        ("no price is known", _above(np.where(np.isnan(scores.usd_per_hour), np.inf, 0), limits.usd_per_hour)),
        ("above the hourly budget", _above(scores.usd_per_hour, limits.usd_per_hour)),
        ("no price is known", _above(np.where(np.isnan(found.purchase_usd), np.inf, 0), limits.usd)),
        ("above the purchase budget", _above(found.purchase_usd, limits.usd)),
    )
    first = np.full(len(scores.why), "", object)
    for reason, hit in reversed(tests):
        first[hit] = reason
    return first.tolist()


def _above(values: np.ndarray, limit: float | None) -> np.ndarray:
    """Where a limit, if there is one, is not kept to; what is not known does not keep to it."""
    return np.zeros(len(values), bool) if limit is None else ~(values <= limit)


def best_first(found: Candidates, scores: Score, accepted: np.ndarray, keep: int) -> list[int]:
    """Accepted configurations by cost, then by speed: at most `keep` of a model, one of a model, machine and format."""
    order = accepted[np.lexsort((scores.tpot_s[accepted], scores.usd_per_hour[accepted]))]
    taken: Counter = Counter()
    seen = set()
    chosen = []
    for i in order.tolist():
        row = found.rows[i]
        kind = (row.id, found.hardware[i], found.weights[i], found.engine_ids[i])
        if kind in seen or taken[row.id] >= keep:
            continue
        seen.add(kind)
        taken[row.id] += 1
        chosen.append(i)
    return chosen


def columns(found: Candidates, scores: Score, order: list[int]) -> dict[str, np.ndarray]:
    """The table of the chosen configurations."""
    points = found.points
    rate = scores.output_tokens_per_s[order]
    gap_s = scores.tpot_s[order] if found.workload.output > 1 else np.full(len(order), np.nan)
    return {
        "rank": np.arange(1, len(order) + 1),
        "model": _texts(found.rows[i].id for i in order),
        "hardware": _texts(found.hardware[i] for i in order),
        "engine": _texts(found.engine_ids[i] for i in order),
        "weights": _texts(found.weights[i] for i in order),
        "kv": _texts(found.kv for _ in order),
        "n_gpus": scores.n_devices[order].astype(int),
        **{name: getattr(points, name)[order].astype(int) for name in ("tp", "pp", "ep", "replicas")},
        "ttft_s": scores.ttft_s[order],
        "tpot_s": gap_s,
        "user_tokens_per_s": 1.0 / gap_s,
        "output_tokens_per_s": rate,
        "usd_per_hour": scores.usd_per_hour[order],
        "usd_per_mtok": scores.usd_per_output_token[order] * units.MILLION,
        "purchase_usd": found.purchase_usd[order],
        "power_w": scores.power_w[order],
        "joules_per_token": scores.power_w[order] / rate,
    }


def with_intervals(result: Result, found: Candidates, order: list[int], limits: Limits, level: float) -> Result:
    """The result with the low and high ends of BOUNDED, which are those of `sim.estimate` for each configuration."""
    n_gpus = result["n_gpus"]
    ends = {end(name, which): UNITS[name] for name in BOUNDED for which in ("low", "high")}
    each = [
        estimate(
            found.rows[i].id, found.machines[i], engine=found.engine_ids[i], weights=found.weights[i], kv=found.kv,
            gpus=n_gpus[n], **{name: result[name][n] for name in ("tp", "pp", "ep", "replicas")},
            concurrency=limits.users, prompt=limits.prompt, output=limits.output, context=limits.context,
            profile=found.profile, interval=level,
        )
        for n, i in enumerate(order)
    ]  # fmt: skip
    more = {name: np.asarray([float(one[name]) for one in each]) for name in ends}
    told = (*result.provenance, note(level))
    return Result(result.columns | more, result.units | ends, told, result.details | {"interval": level})


def _texts(values) -> np.ndarray:
    return np.asarray(list(values), dtype=str)


def notes(found: Candidates, limits: Limits) -> tuple[str, ...]:
    """What the ranking rests on."""
    lengths = f"{limits.prompt} prompt, {limits.output} output, {limits.context} context tokens"
    return (
        f"workload: {limits.users} users; {lengths}",
        f"precision: {found.floor} or better; KV cache {found.kv} bit",
        provenance(found.profile),
        *found.notes,
        "cost: data-center parts rented, others bought and run for four years; the computers around cards not counted",
    )
