"""Whether a queue grows for as long as requests arrive.

The second half of the arrivals is cut into windows, and d is the requests that arrived in a window less those that were
started in it, which is by how much the queue grew. Of a queue that keeps up d has mean 0, whatever its swings, and
since a long queue is worked off the windows lean against each other, so that their mean is nearer to 0 than their
scatter says. An overloaded queue drifts: its windows are as good as independent. It is called unstable where the mean
of d is above 0 by the one-sided t-test at 5 % (over all windows of all replications), which thus errs to the side of
"stable": of 60 Poisson runs of 1,000 requests (Llama 3.1 8B, on an RTX 4090 and on an H100 with 16 places) at most 2 %
were called unstable up to 0.95 of capacity, and 3 % at capacity itself; 28 and 48 % were at 1.1, 68 and 90 % at 1.2
times it, and of three runs together 60 to 90 % and all. A run with fewer than
LEAST_ARRIVALS in its second half is not judged, nor is a closed loop, whose queue is bounded by its users.

The same test of all requests in flight tells a batch that still fills, with which steps still slow down.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from sim.serving.runs import Run

WINDOWS = 20
LEAST_ARRIVALS = 2 * WINDOWS
LEVEL = 0.95


def queue_growth(runs: Sequence[Run]) -> float:
    """Requests/s by which the queue grows through the second half of the arrivals; 0 where it does not, or may not."""
    return _growth([(run, run.scheduled_s) for run in runs])


def in_flight_growth(runs: Sequence[Run]) -> float:
    """The same of all requests that are not done yet, those that run included: by how much the batch still fills."""
    return _growth([(run, run.finish_s) for run in runs])


def _growth(leaving: Sequence[tuple[Run, np.ndarray]]) -> float:
    """Requests/s by which there are more that have arrived and not left yet. leaving: runs, and (N,) when each left."""
    rates = [growth for run, left_s in leaving if (growth := _in_windows(run, left_s)) is not None]
    if not rates:
        return 0.0
    all_windows = np.concatenate(rates)
    mean, n = float(all_windows.mean()), len(all_windows)
    error = float(all_windows.std(ddof=1)) / np.sqrt(n)
    return mean if mean > 0 and mean > float(stdtrit(n - 1, LEVEL)) * error else 0.0


def _in_windows(run: Run, left_s: np.ndarray) -> np.ndarray | None:
    """(WINDOWS,) requests/s by which there were more in each window."""
    arrived = run.arrival_s[~run.refused]
    if run.requests.users or len(arrived) < 2:
        return None
    edges = np.linspace((arrived[0] + arrived[-1]) / 2, arrived[-1], WINDOWS + 1)
    if edges[-1] <= edges[0] or np.count_nonzero(arrived > edges[0]) < LEAST_ARRIVALS:
        return None
    left = left_s[~np.isnan(left_s)]
    # The last arrival is the end of the last window: it could hardly have been started within it.
    grown = np.histogram(arrived[:-1], edges)[0] - np.histogram(left, edges)[0]
    return grown / (edges[1] - edges[0])
