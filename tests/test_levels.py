"""What a level of load is called: marks of runs that say little, refusals, verdicts, and what figures are over."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sim
from sim.config import load_scenario
from sim.objectives import Objectives
from sim.serving import trials
from sim.serving.levels import summary_of
from sim.serving.stability import in_flight_growth, queue_growth
from sim.serving.window import window_of
from tests.test_simulate import DEPLOYMENT, ONE, Run, scenario

CHAT = {"requests_per_s": 4.0, "prompt": {"tokens": 400}, "output": {"mean_tokens": 100, "cv": 0.5}, "seed": 2}
EASY = {"e2e_p99_s": "1000s"}


def levels(path: Path, traffic: dict[str, Any], objectives: dict[str, Any] = EASY, **more: Any) -> list[dict[str, Any]]:
    """The rows of a deployment."""
    found = sim.simulate(scenario(path / "x.toml", traffic, {**DEPLOYMENT, **more}, objectives=objectives))
    (result,) = found.results.values()
    return [row | {"summary": found.summary["verdict"][0]} for row in result.rows()]


def test_a_run_too_short_for_its_load_is_marked_and_as_many_as_it_says_are_enough(tmp_path: Path) -> None:
    (short,) = levels(tmp_path, {**CHAT, "n_requests": 20})
    assert short["keeps"] and short["verdict"].startswith("keeps to the objectives; too short: arrivals last ")
    assert short["doubt"] in short["verdict"] and short["doubt"] in short["summary"]
    n = int(short["doubt"].split("at least ")[1].split()[0].replace(",", ""))
    assert 20 < n < 200
    (enough,) = levels(tmp_path, {**CHAT, "n_requests": 2 * n})
    assert enough["doubt"] == "" and enough["verdict"] == "keeps to the objectives"


def test_the_demo_is_long_enough_and_fewer_requests_say_that_they_are_not() -> None:
    """FP8 seems to keep to 32 requests/s for the 47 s of 1,500 requests, and does not in the ten minutes of 20,000."""
    demo = load_scenario(Path(__file__).parents[1] / "scenarios" / "load-on-one-h100.toml")
    assert demo.traffic is not None
    few = {"n_requests": 1500, "warmup_requests": None, "requests_per_s": (32.0,)}
    short, enough = (
        sim.simulate(demo.model_copy(update={"traffic": demo.traffic.model_copy(update=changes)})).results["FP8"].rows()
        for changes in (few, {"replications": 1})
    )
    assert short[0]["keeps"] and short[0]["doubt"].startswith("too short: arrivals last 1.56 times the E2E p99")
    assert not enough[-1]["keeps"] and not any(row["doubt"] for row in enough)


def test_capacity_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "ENOUGH_REQUESTS", 100)
    path = scenario(tmp_path / "x.toml", {**CHAT, "n_requests": 100}, DEPLOYMENT, objectives={"tpot_p95_s": "20ms"})
    found = sim.capacity(path)
    (row,), (tried,) = found.summary.rows(), found.results.values()
    best = next(one for one in tried.rows() if one["load"] == row["max_load"])
    assert best["doubt"].startswith("too short: ") and row["verdict"].endswith(best["doubt"])


def test_a_batch_that_still_fills_is_not_a_queue_but_is_marked() -> None:
    rng = np.random.default_rng(0)
    arrival = np.cumsum(rng.exponential(0.1, 2000))
    requests = SimpleNamespace(users=0)
    for growth, steady in ((0.0, True), (3.0, False)):
        finish = np.maximum(arrival + rng.exponential(5.0, 2000), np.arange(2000) / (10 - growth))
        run: Any = SimpleNamespace(
            arrival_s=arrival, scheduled_s=arrival, finish_s=finish, refused=np.zeros(2000, bool), requests=requests
        )
        assert queue_growth([run]) == 0
        assert in_flight_growth([run]) == (0 if steady else pytest.approx(growth, abs=0.8))


def test_refusing_most_is_not_keeping(tmp_path: Path) -> None:
    """What is left is fast; a p99 leaves room for one in a hundred."""
    traffic = {**ONE, "n_requests": 200, "prompt": {"min_tokens": 10, "max_tokens": 400}}
    (row,) = levels(tmp_path, traffic, {"ttft_p99_s": "100s"}, kv_blocks=8)
    assert row["refused_frac"] > 0.5 and row["ttft_p99_s"] < 1 and not row["keeps"]
    assert "of requests are refused, more than 1.00%" in row["verdict"]
    (row,) = levels(tmp_path, traffic, {"ttft_p99_s": "100s"}, kv_blocks=80)
    assert row["refused_frac"] == 0 and row["keeps"]


@pytest.mark.parametrize(
    ("given", "most"),
    [({}, 0.1), ({"ttft_p99_s": 1.0, "tpot_p50_s": 1.0}, 0.01), ({"ttft_s": 1.0, "goodput_frac": 0.8}, 0.2)],
)
def test_how_many_may_be_refused(given: dict[str, float], most: float) -> None:
    assert Objectives(**given).most_refused_frac == most


def test_a_verdict_looks_at_all_levels(tmp_path: Path) -> None:
    path = scenario(tmp_path / "x.toml", {**CHAT, "requests_per_s": [1.0, 2.0, 3.0], "n_requests": 50})
    found = sim.simulate(path)
    ((label, result),) = found.results.items()

    def verdict(*keeps: bool) -> tuple[float, str]:
        columns = dict(result) | {
            "keeps": np.array(keeps),
            "verdict": np.array(["good" if keep else "bad" for keep in keeps]),
            "doubt": np.array([""] * 3),
        }
        scene = load_scenario(path)
        assert scene.traffic is not None
        changed = sim.results.Result(columns, dict(result.units), details=result.details)
        (row,) = summary_of(scene, scene.traffic, {label: changed}).rows()
        return row["max_load"], row["verdict"]

    assert verdict(True, True, True) == (3.0, "yes, at every level up to 3 requests/s")
    assert verdict(True, False, True) == (1.0, "up to 1 request/s; at 2 requests/s: bad; keeps again at 3 requests/s")
    assert verdict(False, True, True) == (0.0, "no, at 1 request/s: bad; keeps again at 2 requests/s")


def test_rates_are_those_while_requests_arrive(tmp_path: Path) -> None:
    """The last request is the longest by far: over the whole run the rate would be a fraction of that which arrives."""
    (tmp_path / "t.csv").write_text(
        "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i / 10},100,10\n" for i in range(400)) + "40,100,4000\n"
    )
    (row,) = levels(tmp_path, {"path": "t.csv"})
    assert row["requests_per_s"] == pytest.approx(10, rel=0.02) and row["duration_s"] == 40
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + "5,100,10\n" * 20)
    (row,) = levels(tmp_path, {"path": "t.csv"})  # a batch at once: until its last token
    assert row["requests_per_s"] == pytest.approx(20 / row["e2e_p99_s"], rel=0.01)


def test_the_shared_prefix_is_in_the_cache(tmp_path: Path) -> None:
    traffic = {**ONE, "system_prompt_tokens": 160, "requests_per_s": 0.5}
    (row,) = levels(tmp_path, traffic, kv_blocks=101)
    assert 0.1 < row["kv_mean_frac"] < 0.12 and row["kv_mean_frac"] <= row["kv_max_frac"]


def test_idle_replicas_are_replicas(tmp_path: Path) -> None:
    """One user on four replicas: a quarter of what one alone has busy, and in its cache."""
    traffic = {"users": 1, "n_requests": 30, "prompt": {"tokens": 200}, "output": {"tokens": 20}}
    (one,), (four,) = levels(tmp_path, traffic), levels(tmp_path, traffic, replicas=4)
    for name in ("busy_frac", "kv_mean_frac", "kv_max_frac", "mfu_frac", "mbu_frac"):
        assert four[name] == pytest.approx(one[name] / 4), name


def test_each_rank_of_attention_dp_has_the_stated_blocks(tmp_path: Path) -> None:
    deployment = {"model": "deepseek-v3", "hardware": "h200", "engine": "vllm", "dp": 8, "ep": 8, "gpus": 8}
    found = sim.simulate(scenario(tmp_path / "x.toml", ONE, {**deployment, "kv_blocks": 101}))
    (runs,) = found.runs.values()
    assert runs[0].served.rules.n_blocks == 800


def test_replications_of_what_is_not_random_are_one(tmp_path: Path, run: Run) -> None:
    path = scenario(tmp_path / "x.toml", {**ONE, "arrivals": "deterministic", "replications": 5})
    found = sim.simulate(path)
    assert [len(runs) for runs in found.runs.values()] == [1]
    assert any("all 5 replications are the same" in note for note in found.summary.provenance)
    code, _, err = run("simulate", str(path))
    assert code == 0 and "all 5 replications are the same" in err
    two = sim.simulate(scenario(tmp_path / "x.toml", {**ONE, "replications": 2})).summary.provenance
    assert any("take at least 3" in note and "12.7" in note for note in two)


def test_the_window_begins_after_the_warm_up(tmp_path: Path) -> None:
    path = scenario(tmp_path / "x.toml", {**CHAT, "n_requests": 200, "warmup_requests": 50})
    ((run_,),) = sim.simulate(path).runs.values()
    window = window_of(run_)
    assert window.start_s == run_.arrival_s[50] and window.end_s == run_.arrival_s[-1]


def test_no_figure_jumps_where_fewer_than_half_are_done_in_time(tmp_path: Path) -> None:
    """From 1.6 to 4 times of what is borne the window goes from the last arrival towards the last token."""
    lengths = {"prompt": {"mean_tokens": 800, "cv": 1.0, "max_tokens": 6000},
               "output": {"mean_tokens": 250, "cv": 0.8, "max_tokens": 1500}}  # fmt: skip
    levels = np.geomspace(40, 100, 40).tolist()
    path = scenario(
        tmp_path / "a.toml", {"requests_per_s": levels, "n_requests": 2000, "seed": 1, **lengths},
        {**DEPLOYMENT, "hardware": "h100", "weights": "fp8", "label": "a"},
        workload={"context_tokens": 8192}, objectives={"ttft_s": "2s"},
    )  # fmt: skip
    result = sim.simulate(path).results["a"]
    for name, most in (("goodput_requests_per_s", 0.2), ("usd_per_mtok", 0.05), ("duration_s", 0.1)):
        assert np.abs(np.diff(np.log(result[name]))).max() < most, name
