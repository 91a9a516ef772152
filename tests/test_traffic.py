"""Traffic: what is read of its tables, and the laws that drawn requests obey."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sim.errors import RoofcastError
from sim.fields import Table
from sim.toml_errors import read_toml
from sim.traffic import TABLES, Lengths, Requests, Traffic, draw

SAMPLES = Path(__file__).parent / "traffic_samples"
OPEN: dict[str, dict[str, Any]] = {
    "poisson": {},
    "gamma": {"arrivals": "gamma", "cv": 2.5},
    "even gamma": {"arrivals": "gamma", "cv": 0.3},
    "deterministic": {"arrivals": "deterministic"},
    "bursts of a size": {"arrivals": "bursts", "burst_size": 7},
    "bursts on and off": {"arrivals": "bursts", "on_s": 20, "off_s": 60, "off_frac": 0.1},
    "daily": {"arrivals": "daily", "start_hour": 6.5},
    "daily by the hour": {"arrivals": "daily", "hourly": [0, 0, 1, 5] * 6, "start_hour": 1},
}
every_open = pytest.mark.parametrize("keys", OPEN.values(), ids=OPEN)


def drawn(level: float | None = None, replication: int = 0, **keys: Any) -> Requests:
    """Requests of a traffic with these keys, by default of 100 and 20 tokens."""
    return draw(Traffic(**keys), level, replication, prompt_tokens=100, output_tokens=20)


def lengths(n: int = 40_000, seed: int = 1, **keys: Any) -> np.ndarray:
    """Prompt lengths drawn by a table of lengths."""
    return drawn(requests_per_s=1, n_requests=n, seed=seed, prompt=Lengths(**keys)).prompt_tokens


class File(Table):
    """A file that holds traffic and nothing else."""

    traffic: Traffic


def refused(tmp_path: Path, text: str) -> list[str]:
    """The problems of a file, without its name."""
    path = tmp_path / "x.toml"
    path.write_text(text)
    raw, problems = read_toml(path, {"": File, **TABLES})
    with pytest.raises(RoofcastError) as raised:
        try:
            File.model_validate(raw)
        except ValidationError as error:
            for problem in error.errors():
                problems.add_invalid(problem)
        problems.raise_if_any()
    return [problem.removeprefix(f"{path}: ") for problem in raised.value.problems]


@every_open
def test_the_mean_rate_is_as_asked(keys):
    rate = 5.0
    period_s = 86_400 if "daily" in str(keys) else 80
    whole = 2 if period_s > 80 else 2000
    counts = [
        len(drawn(requests_per_s=rate, duration_s=period_s * whole, seed=seed, **keys).arrival_s) for seed in range(4)
    ]
    mean = rate * period_s * whole
    spread = keys.get("cv", 1.0) * np.sqrt(mean / len(counts))
    assert abs(np.mean(counts) - mean) < 4 * spread + 8


@every_open
def test_arrivals_are_in_order(keys):
    found = drawn(requests_per_s=3, n_requests=5000, **keys)
    assert found.arrival_s.dtype == np.float64 and found.arrival_s[0] >= 0 and len(found) == 5000
    assert (np.diff(found.arrival_s) >= 0).all() and np.isfinite(found.arrival_s).all()
    assert found.prompt_tokens.dtype == found.output_tokens.dtype == np.int32
    assert (found.users, found.hashes, found.system_prompt_tokens) == (0, None, 0)


@pytest.mark.parametrize("cv", [0.2, 1.0, 3.0])
def test_gaps_have_the_cv_asked(cv):
    gaps = np.diff(drawn(requests_per_s=2, arrivals="gamma", cv=cv, n_requests=100_000).arrival_s)
    assert np.mean(gaps) == pytest.approx(0.5, rel=5 * cv / 300)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(cv, rel=0.05)


def test_poisson_gaps_are_exponential():
    gaps = np.sort(np.diff(drawn(requests_per_s=2, n_requests=40_000).arrival_s))
    steps = np.arange(1, len(gaps) + 1) / len(gaps)
    assert np.max(np.abs(steps - (1 - np.exp(-2 * gaps)))) < 1.63 / np.sqrt(len(gaps))  # Kolmogorov, 1 %


def test_even_arrivals_and_bursts():
    even = drawn(requests_per_s=4, arrivals="deterministic", duration_s=2)
    assert even.arrival_s.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    bursts = drawn(requests_per_s=4, arrivals="bursts", burst_size=3, n_requests=7)
    assert bursts.arrival_s.tolist() == [0, 0, 0, 0.75, 0.75, 0.75, 1.5]


def test_nothing_arrives_while_off():
    found = drawn(requests_per_s=10, arrivals="bursts", on_s=3, off_s=7, duration_s=1000).arrival_s
    assert (found % 10 <= 3).all() and len(found) > 9000


def test_a_day_follows_its_hours():
    hours = [1.0] * 9 + [3.0] * 9 + [0.0] * 6
    found = drawn(requests_per_s=2, arrivals="daily", hourly=hours, start_hour=6).arrival_s
    clock = (found / 3600 + 6) % 24
    assert found[-1] <= 86_400 and len(found) == pytest.approx(172_800, rel=0.02)
    counts = np.histogram(clock, [0, 9, 18, 24])[0]
    assert counts[2] == 0 and counts[1] / counts[0] == pytest.approx(3, rel=0.03)


def test_the_default_day_is_highest_in_the_afternoon():
    found = drawn(requests_per_s=1, arrivals="daily").arrival_s
    counts = np.histogram(found / 3600, np.arange(25))[0]
    assert counts[14:16].sum() / counts[2:4].sum() == pytest.approx(3, rel=0.1)


@every_open
def test_the_same_seed_gives_the_same_bytes(keys):
    spread = {"prompt": Lengths(mean_tokens=500, cv=1.2), "output": Lengths(min_tokens=1, max_tokens=99)}
    one, same, other = (drawn(requests_per_s=3, seed=s, n_requests=500, **spread, **keys) for s in (5, 5, 6))
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert getattr(one, name).tobytes() == getattr(same, name).tobytes()
    assert one.provenance == same.provenance
    assert not np.array_equal(one.prompt_tokens, other.prompt_tokens)


def test_replications_differ_and_do_not_depend_on_their_number():
    few, many = (
        [drawn(None, r, requests_per_s=3, replications=n, n_requests=9).arrival_s for r in range(2)] for n in (2, 50)
    )
    assert not np.array_equal(few[0], few[1]) and np.array_equal(few, many)
    root = np.random.SeedSequence(0).spawn(2)[1].spawn(3)[0]
    gaps = np.random.Generator(np.random.PCG64(root)).standard_exponential(9)
    assert np.array_equal(few[1], np.cumsum(gaps) / 3)


@pytest.mark.parametrize("name", ["poisson", "gamma", "even gamma", "deterministic", "bursts of a size"])
def test_levels_are_one_process_on_other_clocks(name):
    keys = {"requests_per_s": [1, 2, 7.5], "prompt": Lengths(mean_tokens=300, cv=1), **OPEN[name]}
    base, double, fast = (drawn(level, n_requests=3000, **keys) for level in (1, 2, 7.5))
    assert np.array_equal(base.arrival_s, 2 * double.arrival_s)
    np.testing.assert_allclose(base.arrival_s, 7.5 * fast.arrival_s, rtol=1e-14)
    assert np.array_equal(base.prompt_tokens, fast.prompt_tokens)


@every_open
def test_a_higher_level_is_never_later(keys):
    low, high = (drawn(level, requests_per_s=[2, 3], n_requests=3000, **keys).arrival_s for level in (2, 3))
    assert (high <= low).all() and high[-1] < low[-1]


@every_open
def test_a_longer_run_begins_with_a_shorter_one(keys):
    spread = {"prompt": Lengths(median_tokens=500, p95_tokens=3000), "output": Lengths(min_tokens=1, max_tokens=99)}
    duration_s = 3700 if "hourly" in keys else 100
    whole, part, timed = (
        drawn(requests_per_s=700, **run, **spread, **keys)
        for run in ({"n_requests": 140_000}, {"n_requests": 70_000}, {"duration_s": duration_s, "n_requests": 140_000})
    )
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(whole, name)[:70_000], getattr(part, name))
        assert np.array_equal(getattr(whole, name)[: len(timed)], getattr(timed, name))
    assert timed.arrival_s[-1] <= duration_s
    assert len(timed) == len(whole) or whole.arrival_s[len(timed)] > duration_s


def test_what_is_left_out_has_a_default():
    assert len(drawn(requests_per_s=1)) == 1000
    assert Traffic(users=4).arrivals == "closed" and Traffic(path="a.csv").arrivals == "trace"
    closed = drawn(users=[4, 200])
    assert len(closed) == 4000 and (closed.users, closed.think_s) == (4, 0.0) and not closed.arrival_s.any()
    assert drawn(200, users=[4, 200], think_s="2s", n_requests=300).users == 200


def test_lengths_have_the_moments_asked():
    by_mean = lengths(mean_tokens=800, cv=1.5)
    assert np.mean(by_mean) == pytest.approx(800, rel=5 * 1.5 / 200)
    assert np.std(by_mean) / np.mean(by_mean) == pytest.approx(1.5, rel=0.15)
    by_quantiles = lengths(median_tokens=300, p95_tokens=2000)
    assert np.quantile(by_quantiles, [0.5, 0.95]) == pytest.approx([300, 2000], rel=0.05)
    assert np.median(lengths(mu=5.0, sigma=0.5)) == pytest.approx(np.exp(5), rel=0.02)
    uniform = lengths(min_tokens=10, max_tokens=13)
    assert np.bincount(uniform)[10:] == pytest.approx(np.full(4, 10_000), rel=0.05) and uniform.min() == 10
    assert set(lengths(tokens=77, n=10)) == {77}


def test_limits_of_lengths_and_of_requests():
    within = lengths(mean_tokens=500, cv=2, min_tokens=50, max_tokens=900)
    assert (within.min(), within.max()) == (50, 900)
    assert lengths(mu=20, sigma=20).max() == 10_000_000 and lengths(mu=-20, sigma=1).max() == 1
    found = drawn(requests_per_s=1, prompt=Lengths(mean_tokens=500, cv=2), max_prompt_tokens=400, max_output_tokens=8)
    free = drawn(requests_per_s=1, prompt=Lengths(mean_tokens=500, cv=2))
    assert np.array_equal(found.prompt_tokens, np.minimum(free.prompt_tokens, 400)) and set(found.output_tokens) == {8}
    assert f"{np.count_nonzero(free.prompt_tokens > 400)} prompts cut to 400 tokens" in found.provenance


def test_a_system_prompt_is_part_of_every_prompt():
    spread = Lengths(min_tokens=1, max_tokens=1000)
    found = drawn(requests_per_s=1, prompt=spread, system_prompt_tokens=300)
    free = drawn(requests_per_s=1, prompt=spread)
    assert np.array_equal(found.prompt_tokens, np.maximum(free.prompt_tokens, 301))
    assert found.system_prompt_tokens == 300 and "prompts lengthened to 301 tokens" in found.provenance


def test_lengths_drawn_from_a_trace_stay_together():
    side = Lengths(path="sharegpt.csv")
    both = draw(Traffic(requests_per_s=1, prompt=side, output=side), folder=SAMPLES)
    pairs = set(zip(both.prompt_tokens.tolist(), both.output_tokens.tolist(), strict=True))
    assert pairs == {(310, 42), (28, 512), (640, 7)}
    other = draw(Traffic(requests_per_s=1, prompt=side, output=Lengths(path="plain.csv")), folder=SAMPLES)
    assert len(set(zip(other.prompt_tokens.tolist(), other.output_tokens.tolist(), strict=True))) == 9
    crossed = Lengths(path="plain.csv", column="output_tokens", max_tokens=25)
    assert set(draw(Traffic(requests_per_s=1, prompt=crossed), output_tokens=1, folder=SAMPLES).prompt_tokens) == {10, 20, 25}  # fmt: skip  # noqa: E501


@given(
    cv=st.floats(0.01, 100), rate=st.floats(1e-3, 1e6), n=st.integers(1, 300), seed=st.integers(0, 2**63 - 1),
    keys=st.sampled_from(list(OPEN.values())), mean=st.floats(1, 1e7),
)  # fmt: skip
def test_whatever_is_accepted_can_be_drawn(cv, rate, n, seed, keys, mean):
    keys = {**keys, "cv": cv} if "cv" in keys else keys
    found = drawn(requests_per_s=rate, n_requests=n, seed=seed, prompt=Lengths(mean_tokens=mean, cv=cv), **keys)
    assert len(found) == n and (np.diff(found.arrival_s) >= 0).all() and np.isfinite(found.arrival_s).all()
    assert found.prompt_tokens.min() >= 1 and found.prompt_tokens.max() <= 10_000_000


REFUSED = {
    "users = 8\nthink_cv = 1.0": ["traffic.think_cv: spreads think_s, which is 0"],
    "users = 8\nn_requests = 50\nwarmup_requests = 50": ["traffic.warmup_requests: 50 leaves nothing of n_requests"],
    "requests_per_s = 8\nramp_up_s = 5": ['traffic.ramp_up_s: belongs to arrivals = "closed"'],
    "": ["traffic.requests_per_s: required key is missing"],
    "requests_per_s = 0": ["traffic.requests_per_s: expected at least 1e-06, got 0"],
    "requests_per_s = [0]": ["traffic.requests_per_s[1]: expected at least 1e-06, got 0"],
    "requests_per_s = 1e-300": ["traffic.requests_per_s: expected at least 1e-06, got 1e-300"],
    'requests_per_s = "4"': ['traffic.requests_per_s: expected a number, got "4"'],
    "users = 2.0": ["traffic.users: expected a whole number, got 2.0"],
    'arrivals = "gamma"\nrequests_per_s = 1\ncv = 5e-324': ["traffic.cv: expected at least 1e-06, got 5e-324"],
    "users = 2\nthink_s = 1\nthink_cv = 1e-200": ["traffic.think_cv: expected 0, or at least 1e-06, got 1e-200"],
    "users = 0": ["traffic.users: expected more than 0, got 0"],
    'requests_per_s = 1\nduration_s = "soon"': ['traffic.duration_s: expected seconds, such as 2, "200ms"'],
    "requests_per_s = [4, 2]": ["traffic.requests_per_s: levels must increase"],
    "request_per_s = 4": ["traffic.request_per_s: unknown key (line 2); hint: did you mean requests_per_s"],
    "requests_per_s = 4\ncv = 2": ['traffic.cv: belongs to arrivals = "gamma", and these are "poisson"'],
    "requests_per_s = 4\nusers = 8": ["traffic.requests_per_s: the rate of a closed loop follows from users"],
    'path = "a.csv"\nrequests_per_s = 4\nn_requests = 9\nusers = 2\narrivals = "trace"': [
        "traffic.users: belongs", "traffic.requests_per_s: a trace has its own", "traffic.n_requests: a trace is cut",
    ],
    'arrivals = "gamma"\nrequests_per_s = 1': ["traffic.cv: required key is missing"],
    'arrivals = "bursts"\nrequests_per_s = 1': ["traffic.burst_size: required key is missing (or on_s and off_s"],
    'arrivals = "bursts"\nrequests_per_s = 1\non_s = 4': ["traffic.off_s: required key is missing"],
    'arrivals = "bursts"\nrequests_per_s = 1\nburst_size = 4\non_s = 1': ["traffic.on_s: give either burst_size"],
    'arrivals = "daily"\nrequests_per_s = 1\nhourly = [1, 2]': ["traffic.hourly: expected 24 multipliers"],
    f'arrivals = "daily"\nrequests_per_s = 1\nhourly = {[0] * 24}': ["traffic.hourly: all hours are 0"],
    "users = 8\nduration_s = 60": ["traffic.duration_s: a closed loop ends after n_requests"],
    "users = [8, 16]\nn_requests = 9": ["traffic.n_requests: 9 is below the 16 users"],
    'requests_per_s = 1000\nduration_s = 1e6': ["traffic.requests_per_s: 1e+06 s of it are about 1e+09 requests"],
    "requests_per_s = 1\nsystem_prompt_tokens = 9\nmax_prompt_tokens = 9": ["traffic.system_prompt_tokens: 9 leaves"],
    "requests_per_s = 1\n[traffic.prompt]": ["traffic.prompt.tokens: required key is missing; lengths are told by"],
    "requests_per_s = 1\n[traffic.prompt]\nmean_tokens = 5": ["traffic.prompt.cv: required key is missing beside mean"],
    "requests_per_s = 1\n[traffic.prompt]\nmin_tokens = 5": ["traffic.prompt.max_tokens: required key is missing"],
    "requests_per_s = 1\n[traffic.prompt]\ntokens = 5\nmu = 1\nsigma = 1": ["traffic.prompt.mu: give either tokens or"],
    "requests_per_s = 1\n[traffic.output]\nmin_tokens = 9\nmax_tokens = 5": ["traffic.output.max_tokens: 5 is below"],
    "requests_per_s = 1\n[traffic.output]\nmedian_tokens = 9\np95_tokens = 9": ["traffic.output.p95_tokens: 9 is not"],
    "requests_per_s = 1\n[traffic.output]\ntokens = 5\n[traffic.prompt]\ntoken = 5\ntokens = 1": [
        "traffic.prompt.token: unknown key (line 6); hint: did you mean tokens"
    ],
    'path = "a.csv"\nprompt.tokens = 4': ["traffic.prompt: a trace has its own lengths"],
    'path = "a.csv"\nformat = "azure"': ["traffic.format: "],
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_contradictions_are_sentences_with_their_place(tmp_path, text):
    found = refused(tmp_path, f"[traffic]\n{text}\n")
    assert len(found) == len(REFUSED[text])
    for said in REFUSED[text]:
        [problem] = [problem for problem in found if problem.startswith(said)]
        assert re.search(r"\(line \d+\)", problem) and "\n" not in problem


def test_draws_that_cannot_be_made():
    traffic = Traffic(requests_per_s=[1, 2], duration_s=1e-6)
    for call, said in (
        (lambda: draw(traffic, 3, prompt_tokens=1, output_tokens=1), "3 is none of the traffic's levels"),
        (lambda: draw(traffic, 1, 1, prompt_tokens=1, output_tokens=1), "1 is not below the 1 replications"),
        (lambda: draw(traffic, prompt_tokens=1, output_tokens=1), "nothing arrives within 1e-06 s"),
        (lambda: draw(Traffic(requests_per_s=1), prompt_tokens=1), "traffic.output: required table is missing"),
    ):
        with pytest.raises(RoofcastError, match=re.escape(said)):
            call()
