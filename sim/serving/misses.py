"""What a level of load misses of the objectives, and what makes its figures doubtful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sim.objectives import Objectives
from sim.report.number import show, significant
from sim.serving.runs import Run
from sim.serving.window import arrivals_s

DOLLARS = "$/h"  # what a price is called beside "TTFT p99"
SHORT = 5  # times the E2E p99 that arrivals must last
Row = Mapping[str, Any]


class Miss(NamedTuple):
    """An objective that is missed: what it is called, by what part of its limit (0.02: 2 % above), and a sentence."""

    name: str
    part: float
    sentence: str


def misses(row: Row, objectives: Objectives) -> list[Miss]:
    """All that a level misses; what makes its figures meaningless first.

    The part of an unstable queue is its growth over the rate at which requests are done; of an unfinished run, inf.
    """
    found = _not_served(row)
    if row["n_finished"] > 0:
        for name, limit in (*objectives.percentiles, ("usd_per_hour", objectives.max_usd_per_hour)):
            if limit is not None and not row[name] <= limit:
                called = _called(name)
                told = f"{called} {show(name, row[name])} is above {show(name, limit)}".lstrip()
                found.append(Miss(called or DOLLARS, row[name] / limit - 1, told))
        found += _shares(row, objectives)
    return found


def _not_served(row: Row) -> list[Miss]:
    found = []
    growth, rate = row["queue_growth_requests_per_s"], row["requests_per_s"]
    if growth > 0:
        told = f"{growth:.2g}" if growth < 10 else f"{growth:,.0f}"
        part = growth / rate if rate > 0 else np.inf
        found.append(Miss("stability", part, f"unstable: the queue grows by {told} requests/s"))
    if not row["complete"]:
        done = f"{significant(row['n_finished'])} of {significant(row['n_requests'])} requests"
        told = f"unfinished: the run met its bound with {done} done"
        found.append(Miss("requests that are not served", np.inf, told))
    elif row["n_finished"] == 0:
        told = "no request is served: all are longer than the context or the KV cache"
        found.append(Miss("requests that are not served", np.inf, told))
    return found


def _shares(row: Row, objectives: Objectives) -> list[Miss]:
    """Of the requests, how many are refused, and how many keep to the limits of each."""
    found = []
    share, most = row["refused_frac"], objectives.most_refused_frac
    if share > most:
        told = f"{show('frac', share)} of requests are refused, more than {show('frac', most)}"
        found.append(Miss("refused requests", share / most - 1 if most else np.inf, told))
    share, least = row["goodput_frac"], objectives.least_goodput_frac
    if share < least:
        limits = [f"{metric.upper()} {show('s', limit)}" for metric, limit in objectives.of_a_request.items()]
        kept = " and ".join(limits) or "no limit"
        told = f"{show('frac', share)} of requests keep to {kept}, fewer than {show('frac', least)}"
        found.append(Miss("goodput", 1 - share / least, told))
    return found


def _called(name: str) -> str:
    """ "TTFT p99" of ttft_p99_s."""
    parts = name.split("_")
    return f"{parts[0].upper()} {parts[1]}" if len(parts) == 3 and parts[1][1:].isdigit() else ""


def doubt(row: Row, runs: Sequence[Run]) -> str:
    """Why the figures of a level may be those of a system that is still filling; "" where nothing says so.

    Too short: the arrivals after the warm-up last less than SHORT times the E2E p99, so that few requests met the
    others that they would meet in a run that goes on. Still filling: they last longer, and the requests in flight grow
    through their second half nevertheless. An unstable or unfinished level is called that instead.
    """
    if row["queue_growth_requests_per_s"] > 0 or not row["complete"] or not row["n_finished"]:
        return ""
    lasts, takes = float(np.mean([arrivals_s(run) for run in runs])), row["e2e_p99_s"]
    if not lasts >= SHORT * takes:
        n = row["n_requests"] - row["n_warmup"]
        enough = f": it takes at least {_up(row['n_warmup'] + n * SHORT * takes / lasts)} requests" if lasts > 0 else ""
        return f"too short: arrivals last {show('n', lasts / takes)} times the E2E p99{enough}"
    growth = row["in_flight_growth_requests_per_s"]
    if growth > 0:
        enough = _up(2 * row["n_requests"])
        return f"still filling: requests in flight grow by {growth:.2g}/s: it takes at least {enough} requests"
    return ""


def missed(row: Row) -> str:
    """The verdict of a level without what makes it doubtful."""
    return str(row["verdict"]).removesuffix(f"; {row['doubt']}")


def _up(n: float) -> str:
    """Two digits, not rounded down."""
    step = 10 ** max(int(np.log10(n)) - 1, 0)
    return f"{int(-(-n // step) * step):,}"
