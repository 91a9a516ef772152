"""The shipped scenarios: all run as they are, and every situation of the sizing guide has one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import catalog, errors
from sim.config import load_scenario
from sim.errors import RoofcastError
from sim.results import Result
from sim.verbs.run import AT_LEVEL, ScenarioResult, run
from sim.verbs.simulate import simulate

FOLDER = Path(__file__).resolve().parents[1] / "scenarios"
GUIDE = Path(__file__).resolve().parents[2] / "shared" / "guide" / "sizing-guide.txt"
SIMULATED = {"load-on-one-h100", "team-on-one-4090"}  # with traffic
ROUTED = "chat-behind-a-router"
FILES = sorted(path for path in FOLDER.glob("*.toml") if path.stem not in {*SIMULATED, ROUTED})

# Row of the guide's decision matrix -> (file, models it names, devices it names as the catalogue knows them).
MATRIX = {
    "Solo dev, want a coding assistant": (
        "solo-dev-coding", {"qwen3.6-35b-a3b", "devstral-small-2-24b"}, {"rtx-4090", "m4-max-32"},
    ),
    "Small team, internal RAG over docs": ("small-team-rag", {"llama-3.3-70b"}, {"rtx-4090", "m3-ultra", "h100-sxm"}),
    "Mid-size SaaS, need to self-host AI features": (
        "midsize-saas", {"llama-3.3-70b", "qwen3.6-35b-a3b"}, {"h100-sxm"},
    ),
    "EU enterprise, GDPR-sensitive": (
        "eu-gdpr", {"mistral-small-3-24b", "mistral-medium-3.5-128b"}, {"h100-sxm", "rtx-5090"},
    ),
    "Multilingual product (Asia + global)": (
        "multilingual-product", {"qwen3.5-397b-a17b", "qwen3.6-27b", "qwen3.6-35b-a3b"}, {"h100-sxm"},
    ),
    "Frontier open quality, regulated industry": ("frontier-regulated", {"deepseek-v4-pro"}, {"h200"}),
    "Self-hosted frontier coding agent": ("frontier-coding-agent", {"kimi-k2.6"}, {"h100-sxm", "h200"}),
    "Open agentic coding product (startup)": (
        "agentic-coding-startup", {"kimi-k2.6", "deepseek-v4-flash"}, {"h100-sxm"},
    ),
    "Reasoning/math research": ("reasoning-research", {"deepseek-r1", "deepseek-v4-pro"}, {"h100-sxm", "h200"}),
    "Local agent with tool calling on a budget": (
        "budget-local-agent", {"gemma-4-9b-guide"}, {"rtx-4070-ti", "m3-pro"},
    ),
    "Vision + text on consumer hardware": (
        "vision-on-consumer", {"gemma-4-9b-guide", "llama-4-scout"}, {"rtx-4090", "m4-max-40"},
    ),
    "Frontier model on a single machine for personal use": (
        "frontier-personal", {"kimi-k2.6", "deepseek-v4-flash"}, {"m3-ultra", "m4-ultra"},
    ),
    "Squeezing max throughput from NVIDIA hardware": (
        "max-throughput-nvidia", {"nemotron-3-super-120b-a12b"}, {"h100-sxm", "h200", "b200"},
    ),
    "Long-context (>1M tokens)": (
        "long-context", {"llama-4-scout", "deepseek-v4-flash", "deepseek-v4-pro"}, {"h100-sxm", "h200"},
    ),
}  # fmt: skip
# Production scenario of the guide (tier, number in its list) -> file. Fine-tuning (2.2, 4.4) is not serving.
PRODUCTION = {
    (1, 1): "solo-dev-coding",
    (1, 2): "small-team-rag",
    (1, 3): "startup-prototype",
    (1, 4): "local-agents",
    (2, 1): "internal-tooling-200-employees",
    (2, 3): "internal-server-20-engineers",
    (3, 1): "mac-daily-coding",
    (3, 2): "researcher-frontier-eval",
    (3, 3): "consultancy-demo",
    (3, 4): "privacy-power-user",
    (3, 5): "mac-kimi-demo",
    (4, 1): "saas-1000s-users",
    (4, 2): "batch-extraction",
    (4, 3): "enterprise-thousands",
    (5, 1): "bank-deepseek-v4",
    (5, 2): "startup-api-frontier",
    (5, 3): "multi-tenant-platform",
    (5, 4): "research-lab",
}


@pytest.fixture(scope="module")
def answers() -> dict[str, ScenarioResult]:
    """Every scenario, run once."""
    return {path.stem: run(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_reads_well(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= 120
    assert lines[0].startswith("# ")
    assert any("Guide" in line for line in lines if line.startswith("#"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_names_are_the_catalogue_s_ids(path):
    for deployment in load_scenario(path).deployments:
        assert catalog.model(deployment.model).id == deployment.model
        assert deployment.engine is not None
        assert deployment.weights in {"native", *catalog.formats()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_runs_with_finite_figures_where_it_fits(path, answers):
    answer = answers[path.stem]
    assert list(answer.results) == [deployment.label for deployment in answer.scenario.deployments]
    assert answer.summary["fits"].any()
    for label, result in answer.results.items():
        fits = result["fits"]
        assert result["concurrency"].tolist() == list(answer.scenario.workload.levels)
        for name in ("ttft_s", "tpot_s", "output_tokens_per_s", "power_w"):
            assert np.isfinite(result[name][fits]).all() and (result[name][fits] > 0).all(), (label, name)
            assert np.isnan(result[name][~fits]).all(), (label, name)
        assert ((result["why"][~fits] & errors.INFEASIBLE) > 0).all(), label
    assert all(answer.summary["verdict"])


def test_every_row_of_the_decision_matrix_has_its_scenario():
    for situation, (stem, models, devices) in MATRIX.items():
        path = FOLDER / f"{stem}.toml"
        header = path.read_text(encoding="utf-8").partition("\nname =")[0]
        assert f'Guide, decision matrix: "{situation}"' in header
        deployments = load_scenario(path).deployments
        assert models <= {deployment.model for deployment in deployments}, stem
        assert devices <= {catalog.machine(deployment.hardware).device.id for deployment in deployments}, stem


def test_production_scenarios_have_theirs():
    for (tier, number), stem in PRODUCTION.items():
        header = (FOLDER / f"{stem}.toml").read_text(encoding="utf-8").partition("\nname =")[0].lower()
        assert f"tier {tier}" in header and f"production scenario {number}" in header, stem


@pytest.mark.parametrize("stem", sorted(SIMULATED))
def test_traffic_is_simulated(stem):
    path = FOLDER / f"{stem}.toml"
    text = path.read_text(encoding="utf-8")
    assert f"# roofcast simulate scenarios/{stem}.toml" in text and max(map(len, text.splitlines())) <= 120
    names = [(catalog.model(d.model).id, d.model) for d in load_scenario(path).deployments]
    assert all(own == used for own, used in names)
    answer = simulate(path, replications=1)
    levels = load_scenario(path).traffic.levels
    for result in answer.results.values():
        assert result["load"].tolist() == list(levels) and result["complete"].all()
        assert result["keeps"][0] and (np.diff(result["keeps"].astype(int)) <= 0).all()
    assert 0 < answer.summary["max_load"].min() < answer.summary["max_load"].max()


def test_routers_that_look_serve_bursts_as_well_as_turns():
    path = FOLDER / f"{ROUTED}.toml"
    text = path.read_text(encoding="utf-8")
    assert f"# roofcast capacity scenarios/{ROUTED}.toml" in text and max(map(len, text.splitlines())) <= 120
    answer = simulate(path, replications=1)
    in_turn, *others = (result["ttft_mean_s"] for result in answer.results.values())
    assert all(
        result["complete"].all() and result["keeps"].tolist() == [True, False] for result in answer.results.values()
    )
    assert in_turn[0] > 0 and all(other[1] <= in_turn[1] for other in others)


def test_no_scenario_is_left_over():
    listed = {stem for stem, _, _ in MATRIX.values()} | set(PRODUCTION.values())
    assert {path.stem for path in FILES} == listed | {"apple-vs-nvidia", "moe-vs-dense", "long-context-10m"}


def test_matrix_is_the_guide_s():
    if not GUIDE.exists():
        pytest.skip(f"the sizing guide is not beside this checkout: {GUIDE}")
    lines = GUIDE.read_text(encoding="utf-8").partition("Part 4")[2].partition("Part 5")[0].splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ") and "If your situation" not in line]
    assert rows == list(MATRIX)


def test_small_team_rag_teaches_what_it_says(answers):
    summary = answers["small-team-rag"].summary
    by_label = dict(zip(summary["label"].tolist(), summary.rows(), strict=True))
    assert not by_label["RTX 4090"]["fits"]
    assert by_label["RTX 4090"]["verdict"].startswith("no, at 1: the weights do not fit, ")
    offloaded, whole = by_label["RTX 4090, half in host memory"], by_label["Cloud H100"]
    assert offloaded["fits"] and offloaded["tpot_s"] > 4 * whole["tpot_s"]
    assert whole["max_concurrency"] > by_label["2x RTX 4090"]["max_concurrency"] > 0


def test_kimi_does_not_fit_where_the_guide_puts_it(answers):
    summary = answers["frontier-coding-agent"].summary
    fits = dict(zip(summary["label"].tolist(), summary["fits"].tolist(), strict=True))
    assert not fits["Kimi K2.6 on 4x H100"] and not fits["Kimi K2.6 on 2x H200"]
    assert fits["Kimi K2.6 on 8x H200"]


def test_moe_serves_more_users_than_dense_in_the_same_memory(answers):
    results = answers["moe-vs-dense"].results
    moe, dense = results["MoE: Qwen3.5 122B-A10B"], results["Dense: Mistral Large 2 123B"]
    assert moe["concurrency"][[0, -1]].tolist() == [1, 512]
    assert moe["weights_bytes"][0] == pytest.approx(dense["weights_bytes"][0], rel=0.05)
    assert (moe["tpot_s"] < dense["tpot_s"]).all()


def test_apple_against_nvidia_spans_1_to_32_users(answers):
    answer = answers["apple-vs-nvidia"]
    assert answer.scenario.workload.levels == (1, 2, 4, 8, 16, 32)
    assert len({deployment.model for deployment in answer.scenario.deployments}) == 1
    vendors = {catalog.machine(deployment.hardware).device.vendor for deployment in answer.scenario.deployments}
    assert vendors == {"Apple", "NVIDIA"}


SCENARIO = """
name = "Fake"
[workload]
prompt_tokens = 100
output_tokens = 50
concurrency = [1, 2, 4]
[objectives]
ttft_s = "1s"
tpot_s = "25ms"
[[deployment]]
label = "A"
model = "llama-3.3-70b"
hardware = "rtx-4090"
gpu_layers = 30
"""


def fake(fits: bool = True, tpot_ms: tuple[float, ...] = (10, 20, 40), **figures: Any):
    """An estimate that returns these figures, and remembers what it was asked."""
    asked: dict[str, Any] = {}

    def estimate(model: str, hardware: str, **given: Any) -> Result:
        asked.update(given, model=model, hardware=hardware)
        count = len(given["concurrency"])
        columns = {name: np.full(count, value, float) for name, value in dict.fromkeys(AT_LEVEL, 0.5).items()}
        columns |= {
            "fits": np.full(count, fits),
            "why": np.full(count, 0 if fits else 1),
            "free_bytes": np.full(count, -2e9),
        }
        columns |= {"concurrency": given["concurrency"], "running_sequences": given["concurrency"] + 0.0}
        columns |= {"tpot_s": np.array(tpot_ms) / 1e3} | {name: np.array(value) for name, value in figures.items()}
        return Result(columns, {}, ("a note",))

    return estimate, asked


@pytest.fixture
def verdict_of(tmp_path, monkeypatch):
    def _run(estimate, text: str = SCENARIO) -> ScenarioResult:
        monkeypatch.setattr(importlib.import_module("sim.verbs.run"), "estimate", estimate)
        (tmp_path / "fake.toml").write_text(text)
        return run(tmp_path / "fake.toml")

    return _run


def test_highest_level_that_keeps_to_the_objectives(verdict_of):
    estimate, asked = fake()
    answer = verdict_of(estimate)
    (row,) = answer.summary.rows()
    assert (row["max_concurrency"], row["tpot_s"]) == (2, 0.02)
    assert row["verdict"] == "up to 2; at 4: TPOT 40.0 ms is above 25.0 ms"
    assert answer.results["A"]["why"].tolist() == [0, 0, errors.TPOT_MISSED]
    assert asked["gpu_layers"] == 30 and asked["prompt"] == 100 and asked["tp"] is None


@pytest.mark.parametrize(
    ("figures", "concurrency", "verdict"),
    [
        ({"tpot_ms": (10, 11, 12)}, 4, "yes, at every level up to 4"),
        (
            {"tpot_ms": (10, 11, 12), "running_sequences": (1.0, 2.0, 2.9)},
            4,
            "yes, at every level up to 4, 2 at a time",
        ),
        ({"tpot_ms": (30, 31, 32)}, 0, "no, at 1: TPOT 30.0 ms is above 25.0 ms"),
        ({"ttft_s": (2.0, 2.0, 2.0)}, 0, "no, at 1: TTFT 2.00 s is above 1.00 s"),
        ({"fits": False}, 0, "no, at 1: the weights do not fit, 2.00 GB short on the fullest device"),
    ],
)
def test_verdicts(verdict_of, figures, concurrency, verdict):
    (row,) = verdict_of(fake(**figures)[0]).summary.rows()
    assert (row["max_concurrency"], row["verdict"]) == (concurrency, verdict)


def test_hourly_limit_counts(verdict_of):
    text = SCENARIO.replace('ttft_s = "1s"', "max_usd_per_hour = 0.4")
    (row,) = verdict_of(fake()[0], text).summary.rows()
    assert row["verdict"] == "no, at 1: $0.500/h is above $0.400/h"


def test_what_cannot_be_evaluated_is_refused_with_its_place(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(SCENARIO.replace("gpu_layers = 30", "engine = 'vllm'\ngpus = 3\ntp = 3"))
    with pytest.raises(RoofcastError) as error:
        run(path)
    assert error.value.problems[0].startswith(f'{path}: deployment "A": tp: tp = 3 does not divide')
