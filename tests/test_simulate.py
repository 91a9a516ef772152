"""`sim.simulate` and `roofcast simulate`: laws of the figures, forms of the output, and sentences for bad input."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

import sim
from sim.config import load_scenario
from sim.errors import RoofcastError
from sim.objectives import Objectives
from sim.serving.metrics import UNITS, histogram_percentiles
from sim.serving.misses import misses
from sim.serving.replications import interval_names, mean_and_interval
from sim.serving.stability import queue_growth
from sim.verbs.simulate import Simulation

Run = Callable[..., tuple[int, str, str]]
TRAFFIC = {
    "requests_per_s": [1.0, 8.0, 40.0], "n_requests": 120, "replications": 2, "seed": 3,
    "prompt": {"mean_tokens": 300.0, "cv": 1.0, "max_tokens": 900}, "output": {"min_tokens": 1, "max_tokens": 120},
}  # fmt: skip
ONE = {"requests_per_s": 4.0, "n_requests": 40, "prompt": {"tokens": 200}, "output": {"tokens": 20}}
DEPLOYMENT = {"model": "llama-3.1-8b", "hardware": "rtx-4090", "engine": "vllm", "weights": "int4_g128"}


def toml(value: Any) -> str:
    """A value in TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def scenario(path: Path, traffic: dict[str, Any], *deployments: dict[str, Any], **tables: Any) -> Path:
    """Writes a scenario file."""
    parts = {"name": "A test", "traffic": traffic, **tables, "deployment": list(deployments) or [DEPLOYMENT]}
    lines = [f"{key} = {toml(value)}" for key, value in parts.items() if key != "deployment"]
    path.write_text("\n".join([*lines, f"deployment = [{', '.join(map(toml, parts['deployment']))}]"]))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three levels, the last beyond what the deployment of few blocks can serve; two replications; two deployments."""
    few = {**DEPLOYMENT, "label": "few blocks", "kv_blocks": 100}
    objectives = {"ttft_p99_s": "1s", "tpot_s": "50ms"}
    path = tmp_path_factory.mktemp("simulate") / "x.toml"
    return scenario(path, TRAFFIC, {**DEPLOYMENT, "label": "all blocks"}, few, objectives=objectives)


@pytest.fixture(scope="module")
def answer(file: Path) -> Simulation:
    return sim.simulate(file)


def test_every_token_asked_for_comes_out_once(answer: Simulation) -> None:
    assert len(answer.runs) == 6
    for runs in answer.runs.values():
        for run in runs:
            assert run.complete and not run.refused.any() and np.isfinite(run.finish_s).all()
            gaps = sum(outcome.itl_tokens.sum() for outcome in run.outcomes)
            assert gaps == (run.requests.output_tokens - 1).sum()
            assert (
                (run.scheduled_s >= run.arrival_s).all() and (run.ttft_s > 0).all() and (run.e2e_s >= run.ttft_s).all()
            )
            assert np.isnan(run.tpot_s).sum() == (run.requests.output_tokens == 1).sum()


def test_percentiles_are_in_order_and_within_their_intervals(answer: Simulation) -> None:
    for result in answer.results.values():
        for metric in ("ttft", "tpot", "itl", "e2e"):
            values = [result[f"{metric}_p{q}_s"] for q in (50, 90, 95, 99)]
            assert (np.diff(values, axis=0) >= 0).all() and (values[0] > 0).all()
            low, high = (result[name] for name in interval_names(f"{metric}_p99_s"))
            assert (low <= values[-1]).all() and (values[-1] <= high).all()


def test_rates_shares_and_units(answer: Simulation) -> None:
    for result in answer.results.values():
        assert (result["goodput_requests_per_s"] <= result["requests_per_s"] * (1 + 1e-12)).all()
        assert (result["output_tokens_per_s"] < result["total_tokens_per_s"]).all()
        for name in ("goodput_frac", "busy_frac", "kv_mean_frac", "kv_max_frac"):
            assert ((result[name] >= 0) & (result[name] <= 1 + 1e-9)).all(), name
        assert (result["queue_mean"] <= result["queue_max"]).all()
        assert {*UNITS} <= {*result} == {*result.units}
        assert result.units["load"] == "requests/s" and result["load"].tolist() == [1.0, 8.0, 40.0]


def test_more_load_is_never_faster_on_average(answer: Simulation) -> None:
    for result in answer.results.values():
        assert (np.diff(result["ttft_mean_s"]) >= 0).all()
        assert (np.diff(result["e2e_mean_s"]) >= 0).all()
        assert (np.diff(result["usd_per_hour"][np.isfinite(result["usd_per_hour"])]) >= 0).all()


def test_fewer_blocks_queue_and_preempt(answer: Simulation) -> None:
    full, few = answer.results["all blocks"], answer.results["few blocks"]
    assert few["queue_mean"][-1] > full["queue_mean"][-1]
    assert few["n_preemptions"][-1] > 0 == full["n_preemptions"][-1]
    assert few["kv_max_frac"][-1] > 0.9
    assert "KV cache of few blocks: 99 blocks of 16 tokens, as stated" in few.provenance
    assert few["queue_growth_requests_per_s"][-1] > 0 and few["queue_growth_requests_per_s"][0] == 0
    assert few["verdict"][-1].startswith("unstable: the queue grows by ")
    assert "TTFT p99" in few["verdict"][-1]
    assert full["keeps"][0] and answer.summary["max_load"][0] >= 1.0


def test_same_seed_same_bytes_and_another_seed_others(file: Path, answer: Simulation) -> None:
    again = sim.simulate(file, seed=3, replications=2)
    for label, result in answer.results.items():
        assert result.to_json() == again.results[label].to_json()
    other = sim.simulate(file, seed=4)
    assert other.results["all blocks"]["ttft_mean_s"][0] != answer.results["all blocks"]["ttft_mean_s"][0]


def test_many_at_once_are_as_one_by_one(tmp_path: Path) -> None:
    first, second = scenario(tmp_path / "a.toml", ONE), scenario(tmp_path / "b.toml", {**ONE, "seed": 9})
    both = sim.simulate_many([first, load_scenario(second)])
    assert both[0].results.keys() == both[1].results.keys()
    for path, found in zip((first, second), both, strict=True):
        (alone,) = sim.simulate(path).results.values()
        (together,) = found.results.values()
        assert alone.to_json() == together.to_json()
    assert interval_names("ttft_p99_s")[0] not in together
    assert "confidence interval: n/a with one replication" in together.provenance


def test_replicas_share_the_requests_and_the_users(tmp_path: Path) -> None:
    two = {**DEPLOYMENT, "replicas": 2}
    (runs,) = sim.simulate(scenario(tmp_path / "a.toml", ONE, two)).runs.values()
    assert runs[0].replica.tolist() == [0, 1] * 20
    closed = {"users": [1, 3], "n_requests": 12, "prompt": {"tokens": 50}, "output": {"tokens": 5}}
    found = sim.simulate(scenario(tmp_path / "b.toml", closed, two))
    (label,) = found.results
    one, three = (found.runs[label, users][0] for users in (1.0, 3.0))
    assert len(one.outcomes) == 1 and len(three.outcomes) == 2
    assert np.isfinite(three.arrival_s).all() and (three.arrival_s == 0).sum() == 3
    assert found.results[label].units["load"] == "users"


def test_what_cannot_be_held_is_refused_and_counted(tmp_path: Path) -> None:
    traffic = {**ONE, "prompt": {"min_tokens": 10, "max_tokens": 400}}
    few = {**DEPLOYMENT, "label": "few", "kv_blocks": 17}
    workload = {"context_tokens": 300}
    found = sim.simulate(scenario(tmp_path / "a.toml", traffic, DEPLOYMENT, few, workload=workload))
    full, small = (runs[0] for runs in found.runs.values())
    lengths = full.requests.prompt_tokens + 20
    assert (full.status == np.where(lengths > 300, "refused: longer than the context", "done")).all()
    assert (small.refused == (lengths - 1 > 256)).all()  # the last token is not written
    row = found.results["few"].rows()[0]
    assert row["n_refused_context"] == (lengths > 300).sum()
    assert row["n_refused_kv"] == ((lengths > 257) & (lengths <= 300)).sum() > 0
    none = sim.simulate(scenario(tmp_path / "b.toml", ONE, {**DEPLOYMENT, "kv_blocks": 2}))
    (result,) = none.results.values()
    assert result["verdict"][0].startswith("no request is served") and not result["keeps"][0]


def test_a_deployment_that_does_not_fit_has_a_row_that_says_so(tmp_path: Path, run: Run) -> None:
    path = scenario(tmp_path / "a.toml", ONE, {**DEPLOYMENT, "model": "llama-3.3-70b", "label": "large"})
    plot = tmp_path / "a.png"
    code, out, _ = run("simulate", str(path), "--plot", str(plot), "--requests", str(tmp_path / "r.csv"))
    assert code == 1 and "the weights do not fit" in out and plot.stat().st_size > 10_000


@pytest.mark.parametrize(("growth", "stable"), [(0.0, True), (3.0, False)])
def test_growth_of_a_queue(growth: float, stable: bool) -> None:
    rng = np.random.default_rng(0)
    arrival = np.cumsum(rng.exponential(0.1, 2000))
    served = np.maximum.accumulate(arrival + rng.exponential(0.5, 2000))
    started = served if stable else np.maximum(served, np.arange(2000) / (10 - growth))
    requests = SimpleNamespace(users=0)
    run = SimpleNamespace(arrival_s=arrival, scheduled_s=started, refused=np.zeros(2000, bool), requests=requests)
    found = queue_growth([run])  # type: ignore[list-item]
    assert found == pytest.approx(growth, abs=1e-9 if stable else 0.6)


def test_a_histogram_s_percentiles() -> None:
    edges = np.array([0.0, 1.0, 2.0, 4.0])
    assert histogram_percentiles(edges, np.array([50, 0, 50]), (50, 75, 99)).tolist() == pytest.approx([1.0, 3.0, 3.96])
    assert np.isnan(histogram_percentiles(edges, np.zeros(3), (50,))).all()


def test_confidence_interval_is_student_s() -> None:
    mean, low, high = mean_and_interval(np.array([1.0, 2.0, 3.0]))
    assert (mean, high - mean) == pytest.approx((2.0, 4.30265 / np.sqrt(3)), rel=1e-5)
    assert low == 0.0  # no figure is below
    assert np.isnan(mean_and_interval(np.array([1.0, np.nan]))[1:]).all()


def test_an_unfinished_run_is_marked() -> None:
    row = dict.fromkeys(UNITS, 1.0) | {"queue_growth_requests_per_s": 3.14, "complete": False, "n_requests": 9.0}
    row["refused_frac"] = 0.0
    told = [miss.sentence for miss in misses(row, Objectives())]
    assert told == [
        "unstable: the queue grows by 3.1 requests/s",
        "unfinished: the run met its bound with 1.00 of 9.00 requests done",
    ]


def test_command_prints_tables_and_writes_files(run: Run, file: Path, tmp_path: Path) -> None:
    parquet, plot = tmp_path / "r.parquet", tmp_path / "p.svg"
    code, out, err = run("simulate", str(file), "--requests", str(parquet), "--plot", str(plot))
    assert code == 0 and "few blocks: up to" in out and "95 % confidence interval over replications" in out
    assert err.endswith(f"note: wrote {parquet}\nnote: wrote {plot}\n") and plot.stat().st_size > 10_000
    table = pyarrow.parquet.read_table(parquet)
    assert table.num_rows == 2 * 3 * 2 * 120
    assert table.column_names[:4] == ["deployment", "level", "replication", "request"]
    assert set(table["status"].to_pylist()) == {"done"}
    alone = [n == 1 for n in table["output_tokens"].to_pylist()]
    assert [value is None for value in table["tpot_s"].to_pylist()] == alone


def test_csv_json_and_run(run: Run, tmp_path: Path) -> None:
    path, requests = scenario(tmp_path / "a.toml", ONE), tmp_path / "r.csv"
    _, out, _ = run("simulate", str(path), "--format", "csv", "--requests", str(requests))
    (row,) = csv.DictReader(io.StringIO(out))
    assert row["label"] == "llama-3.1-8b on rtx-4090" and float(row["ttft_p99_s"]) > 0
    listed = list(csv.DictReader(io.StringIO(requests.read_text())))
    assert len(listed) == 40 and float(listed[-1]["e2e_s"]) > float(listed[-1]["ttft_s"]) > 0
    body = json.loads(run("simulate", str(path), "--format", "json")[1])
    assert body["results"][row["label"]]["rows"][0]["ttft_p99_s"] == float(row["ttft_p99_s"])
    assert run("run", str(path), "--format", "csv")[1] == out
    assert isinstance(sim.run(path), Simulation)


BAD = [
    ({"traffic": {**ONE, "requests_per_s": -1}}, [], "traffic.requests_per_s"),
    (
        {"traffic": {"requests_per_s": 1.0, "output": {"tokens": 9}}},
        [],
        "workload.prompt_tokens: required key is missing (or [traffic.prompt]",
    ),
    ({"traffic": {"path": "none.csv"}}, [], "none.csv"),
    ({"objectives": {"ttft_p98_s": 1}}, [], "objectives.ttft_p98_s: unknown key"),
    ({"objectives": {"ttft_p99_s": "fast"}}, [], "objectives.ttft_p99_s: expected seconds"),
    ({"interval": 0.8}, [], "interval: does not go with [traffic]"),
    ({"deployment": {**DEPLOYMENT, "kv_blocks": 0}}, [], "kv_blocks: expected more than 0"),
    ({"deployment": {**DEPLOYMENT, "engine": "mlx"}}, [], 'deployment "llama-3.1-8b on rtx-4090": '),
    ({"traffic": {**ONE, "requests_per_s": None}}, [], "traffic.requests_per_s: required key is missing"),
    (
        {"deployment": {**DEPLOYMENT, "engine": "llamacpp", "weights": "q4_k_m", "gpu_layers": 20}},
        [],
        "gpu_layers: the simulator has no times of layers on the host; hint: keep",
    ),
    ({}, ["--replications", "99999"], "replications: input should be less than or equal to 10000, got 99999"),
    ({}, ["--requests", "a.txt"], "a.txt: expected a .csv or .parquet file; hint: end the name in"),
    ({}, ["--requests", "no/such/r.csv"], "there is no folder"),
    ({}, ["--plot", "a.gif"], "a.gif: expected a .png or .svg file"),
    ({}, ["--profile", "none.toml"], "none.toml"),
    ({}, ["--seed", "-1"], "simulate --seed: expected a whole number from 0"),
]


@pytest.mark.parametrize(("change", "options", "says"), BAD, ids=[says for _, _, says in BAD])
def test_bad_input_is_a_sentence(
    run: Run, tmp_path: Path, change: dict[str, Any], options: list[str], says: str
) -> None:
    tables = {"traffic": {**ONE, "arrivals": "deterministic"}, **change}
    traffic = {key: value for key, value in tables.pop("traffic").items() if value is not None}
    deployment = tables.pop("deployment", DEPLOYMENT)
    code, out, err = run("simulate", str(scenario(tmp_path / "x.toml", traffic, deployment, **tables)), *options)
    assert (code, out) == (2, "")
    assert says in err and len(err.splitlines()) == 1 and err.startswith("roofcast: ")


def test_a_scenario_without_traffic_is_not_simulated(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "scenarios" / "small-team-rag.toml"
    with pytest.raises(RoofcastError, match=r"small-team-rag\.toml: traffic: there is no traffic to simulate; hint: "):
        sim.simulate(path)
    plain = {"prompt_tokens": 10, "output_tokens": 10, "concurrency": 1}
    path = tmp_path / "x.toml"
    scenario(path, {}, workload=plain, objectives={"ttft_p99_s": 1})
    path.write_text(path.read_text().replace("traffic = {}\n", ""))
    with pytest.raises(RoofcastError, match=r"objectives\.ttft_p99_s: is for a simulation: write \[traffic\]"):
        sim.run(path)
