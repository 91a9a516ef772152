"""The event simulator against queueing theory: tables and lengths that make a replica a known queue.

Every step takes SLOT_S, whatever it holds, and a prompt is one chunk: a request of k output tokens is served for k
steps, the first of which is its prompt. With one sequence at a time the replica is M/G/1 with a service time of
k·SLOT_S exactly; with c it is a slotted queue of c servers, whose chain is solved here: M/M/c but for the slots.

A mean is compared by its 99.7 % interval, three standard errors over replications that start empty and leave out
their first requests; the interval is held to be narrow, so that a wrong queue is outside it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from kernels.step_table import StepTable
from sim.serving.lanes import Lane, Outcome, Rules, serve
from tests.oracle.replica import LinearCost
from tests.serving_tables import linear_table

SLOT_S = 0.01
N_LANES, N_REQUESTS, N_WARM = 48, 6000, 600
PROMPT = 1024  # of contexts so long that the table's knots are far apart, and strides long
SIGMAS, NARROW = 3.0, 0.1  # half a width of the interval; at most so much of the mean
Sample = tuple[float, float]  # mean and half the width of its interval


@pytest.fixture(scope="module")
def table() -> StepTable:
    """Every step takes SLOT_S."""
    return linear_table(LinearCost(SLOT_S, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))


def replications(
    table: StepTable, requests_per_s: float, mean_tokens: int, geometric: bool, servers: int
) -> list[Outcome]:
    """Outcomes of Poisson arrivals with seeds 0 to N_LANES - 1; outputs are of one length, or geometric."""
    lanes = []
    for seed in range(N_LANES):
        rng = np.random.default_rng(seed)
        arrival = np.cumsum(rng.exponential(1.0 / requests_per_s, N_REQUESTS))
        output = rng.geometric(1.0 / mean_tokens, N_REQUESTS) if geometric else np.full(N_REQUESTS, mean_tokens)
        rules = Rules(block_tokens=16, n_blocks=10**6, max_batched_tokens=10**6, max_sequences=servers)
        lanes.append(Lane(table, rules, arrival, np.full(N_REQUESTS, PROMPT), output))
    return serve(lanes)


def interval(values: list[float]) -> Sample:
    """Of one mean for each replication."""
    return float(np.mean(values)), SIGMAS * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def waits(outcomes: list[Outcome]) -> Sample:
    """Mean seconds from arrival to the first step."""
    return interval([float((o.scheduled_s - o.arrival_s)[N_WARM:].mean()) for o in outcomes])


def holds(sample: Sample, expected: float, slack: float = 0.0) -> None:
    """The interval is narrow and contains the expected value, but for a known relative slack."""
    mean, half = sample
    assert half < NARROW * mean
    assert abs(mean - expected) < half + slack * expected, f"{mean} ± {half} is not {expected}"


def queued_s(rate: float, service_s: float, square_s2: float) -> float:
    """Pollaczek and Khinchine: λ·E[S²] / (2·(1 − ρ))."""
    return rate * square_s2 / (2.0 * (1.0 - rate * service_s))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_constant_service_is_m_d_1(table: StepTable, load: float) -> None:
    service_s = 20 * SLOT_S
    outcomes = replications(table, load / service_s, 20, geometric=False, servers=1)
    holds(waits(outcomes), queued_s(load / service_s, service_s, service_s**2))
    for outcome in outcomes:
        np.testing.assert_allclose(outcome.finish_s - outcome.scheduled_s, service_s, rtol=1e-9)
    holds(interval([o.totals["busy_s"] / o.clock_s for o in outcomes]), load)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_exponential_service_is_m_m_1(table: StepTable, load: float) -> None:
    """Geometric lengths of mean m have E[S²] = (2 − 1/m)·(m·SLOT_S)², which is 1/2m less than an exponential's."""
    m = 64
    service_s, rate = m * SLOT_S, load / (m * SLOT_S)
    outcomes = replications(table, rate, m, geometric=True, servers=1)
    holds(waits(outcomes), queued_s(rate, service_s, (2.0 - 1.0 / m) * service_s**2))
    holds(waits(outcomes), load * service_s / (1.0 - load), slack=0.5 / m)
    median_s = interval([float(np.median((o.finish_s - o.arrival_s)[N_WARM:])) for o in outcomes])
    holds(median_s, math.log(2.0) * service_s / (1.0 - load), slack=1.0 / m)  # the whole stay is exponential too


def erlang_wait_s(servers: int, load: float, service_s: float) -> float:
    """M/M/c: C(c, a) / (c·μ − λ), with Erlang's C of a = c·ρ."""
    offered = servers * load
    last = offered**servers / math.factorial(servers) / (1.0 - load)
    delayed = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    return delayed * service_s / (servers * (1.0 - load))


def slotted_wait_s(servers: int, rate: float, mean_tokens: int, most: int = 600) -> float:
    """The same queue in slots: who comes within one waits for its end; each server ends with it with chance 1/m.

    The chain of the number present when a slot begins; an empty replica is idle until somebody comes, who then begins
    a slot. The mean number in line over time, by Little's law, is the rate times the wait.
    """
    mean = rate * SLOT_S
    arrivals = np.array([math.exp(-mean) * mean**k / math.factorial(k) for k in range(12)])
    chain = np.zeros((most + 1, most + 1))
    chance = 1.0 / mean_tokens
    for n in range(1, most + 1):
        busy = min(n, servers)
        for ends in range(busy + 1):
            p = math.comb(busy, ends) * chance**ends * (1.0 - chance) ** (busy - ends)
            for k, q in enumerate(arrivals):
                chain[n, min(n - ends + k, most)] += p * q
    empty = chain[:, 0].copy()
    chain[:, 1] += empty
    chain[:, 0] = 0.0
    states = np.linalg.lstsq(np.vstack([chain[1:, 1:].T - np.eye(most), np.ones(most)]), np.eye(most + 1)[-1])[0]
    line = states @ np.maximum(np.arange(1, most + 1) - servers, 0) + 0.5 * rate * SLOT_S
    return float(line * SLOT_S / (SLOT_S + states @ empty[1:] / rate) / rate)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.6), (2, 0.7), (4, 0.8), (8, 0.8)])
def test_batch_limit_is_m_m_c(table: StepTable, servers: int, load: float) -> None:
    m = 64
    service_s = m * SLOT_S
    rate = servers * load / service_s
    waited = waits(replications(table, rate, m, geometric=True, servers=servers))
    exact, erlang = slotted_wait_s(servers, rate, m), erlang_wait_s(servers, load, service_s)
    holds(waited, exact if servers > 1 else queued_s(rate, service_s, (2.0 - 1.0 / m) * service_s**2))
    assert abs(exact / erlang - 1.0) < 0.05
    holds(waited, erlang, slack=abs(exact / erlang - 1.0))


@pytest.mark.parametrize("servers", [1, 8])
def test_littles_law(table: StepTable, servers: int) -> None:
    """The sequences that run, summed over time in the loop, are the rate times the time each of them runs."""
    for outcome in replications(table, servers * 0.7 / (20 * SLOT_S), 20, geometric=True, servers=servers):
        assert not outcome.n_preemptions.any()
        ran_s = (outcome.finish_s - outcome.scheduled_s).sum()
        np.testing.assert_allclose(outcome.totals["running_s"], ran_s, rtol=1e-9)
        busy_s = outcome.totals["busy_s"]
        assert outcome.totals["running_s"] <= servers * busy_s <= servers * outcome.clock_s * (1 + 1e-9)


def test_a_closed_loop_without_thought_keeps_the_replica_busy(table: StepTable) -> None:
    """U users on c servers without think time: c requests of k slots at a time, U − c of them in line."""
    users, servers, k, n = 6, 2, 10, 600
    rules = Rules(block_tokens=16, n_blocks=10**4, max_batched_tokens=10**6, max_sequences=servers)
    (outcome,) = serve([Lane(table, rules, np.zeros(n), np.full(n, PROMPT), np.full(n, k), users=users)])
    np.testing.assert_allclose(outcome.clock_s, n / servers * k * SLOT_S, rtol=1e-9)
    np.testing.assert_allclose(outcome.totals["busy_s"], outcome.clock_s, rtol=1e-9)
    stay = (outcome.finish_s - outcome.arrival_s)[users:]
    np.testing.assert_allclose(stay, users / servers * k * SLOT_S, rtol=1e-9)
