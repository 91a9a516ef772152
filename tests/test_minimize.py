"""`sim.minimize`: what it finds keeps to the limits, barely, and costs no more than any point of a fine grid."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import sim
from sim import design
from sim.design import FREE, Design
from sim.errors import RoofcastError
from sim.point import evaluate
from sim.request import build
from sim.scaling import scaled

LOAD = {"concurrency": 16, "prompt": 2048, "output": 512}
KIMI = {"model": "kimi-k2.6", "hardware": "8x h200", **LOAD}


def figure(name: str, hardware: str = "8x h200", **factors: float) -> float:
    """A figure of Kimi K2.6 on a machine with other parameters, by the kernels."""
    made = build("kimi-k2.6", hardware, engine=None, weights="native", kv=None, **LOAD)
    setup = scaled(made.setup, {key: np.float32(value) for key, value in factors.items()})
    setup = type(setup)(setup.model, *jax.tree.map(np.asarray, (setup.device, setup.engine)))
    found = evaluate(setup, made.points)
    figures = {"tpot_s": found.steady.tpot_s, "ttft_s": found.steady.ttft_s,
               "output_tokens_per_s": found.steady.requests_per_s * LOAD["output"]}  # fmt: skip
    return float(1 / figures["tpot_s"][0]) if name == "user_tokens_per_s" else float(figures[name][0])


def running(hardware: str, **factors: float) -> float:
    """Sequences that run at once."""
    made = build("kimi-k2.6", hardware, engine=None, weights="native", kv=None, **LOAD)
    setup = scaled(made.setup, {key: np.float32(value) for key, value in factors.items()})
    setup = type(setup)(setup.model, *jax.tree.map(np.asarray, (setup.device, setup.engine)))
    return float(evaluate(setup, made.points).steady.running_sequences[0])


@pytest.mark.parametrize(
    "free, name, limit",
    [("bandwidth", "user_tokens_per_s", 50.0), ("bandwidth", "user_tokens_per_s", 30.0), ("compute", "ttft_s", 0.3),
     ("link", "tpot_s", 0.0225), ("bandwidth", "output_tokens_per_s", 600.0)],
)  # fmt: skip
def test_one_percent_less_does_not_do(free: str, name: str, limit: float) -> None:
    found = sim.minimize(free, subject={name: limit}, **KIMI)
    factor = float(found[f"{free}_factor"])
    assert found["reached"]
    assert found[name] == pytest.approx(limit, rel=1e-3)
    assert figure(name, **{free: factor}) == pytest.approx(limit, rel=1e-3)
    worse = figure(name, **{free: 0.99 * factor})
    assert worse < limit if name.endswith("tokens_per_s") else worse > limit


def test_the_answer_is_a_sentence() -> None:
    found = sim.minimize("bandwidth", subject={"user_tokens_per_s": 50}, **KIMI)
    spec = float(found["bandwidth_gb_per_s"])
    assert spec == pytest.approx(4800 * float(found["bandwidth_factor"]))
    said = "Kimi K2.6, native, on NVIDIA H200 SXM 141GB with vLLM: user_tokens_per_s of at least 50: bandwidth of "
    assert found.details["answer"].startswith(f"{said}{spec:,.0f} GB/s")
    assert found.provenance[0] == found.details["answer"]


def test_what_cannot_be_reached_says_why() -> None:
    found = sim.minimize("bandwidth", subject={"user_tokens_per_s": 1000}, **KIMI)
    most = figure("user_tokens_per_s", bandwidth=1e6)
    assert not found["reached"] and np.isinf(found["bandwidth_factor"])
    assert found["user_tokens_per_s"] == pytest.approx(most)
    said = f"user_tokens_per_s of at least 1000 cannot be reached: even infinite bandwidth gives {most:.4g}, because "
    assert f"{said}launches take " in found.details["answer"]


def test_bounds_that_are_too_narrow() -> None:
    found = sim.minimize("bandwidth", subject={"user_tokens_per_s": 50}, bounds={"bandwidth": (0.5, 1.1)}, **KIMI)
    assert not found["reached"]
    assert found["bandwidth_factor"] == pytest.approx(1.1)
    assert "cannot be reached within the bounds: with 1.1 times the bandwidth it is" in found.details["answer"]


def test_the_least_memory_in_which_it_fits() -> None:
    asked = {**KIMI, "hardware": "8x h100"}
    found = sim.minimize("memory", subject={"output_tokens_per_s": 100}, **asked)
    factor = float(found["memory_factor"])
    assert found["reached"] and found["fits"]
    assert found["output_tokens_per_s"] >= 100
    assert running("8x h100", memory=factor) == found["running_sequences"] == 16
    assert running("8x h100", memory=0.999 * factor) < 16
    never = sim.minimize("bandwidth", subject={"output_tokens_per_s": 100}, **asked)
    assert "even with infinite bandwidth the weights do not fit" in never.details["answer"]


@pytest.mark.parametrize(
    "free, asked, runs, said",
    [
        ("memory", {}, 16, "user_tokens_per_s of at least 50 cannot be reached while all 16 users run at once: with "),
        ("memory", {"concurrency": 4096}, 1024, "even with infinite memory 1024 of 4,096 users run at once, and the "
         "others wait: max_num_seqs or max_num_batched_tokens lets no more run"),
        ("bandwidth", {"concurrency": 1000}, 344, "even with infinite bandwidth 344 of 1,000 users run at once, and "
         "the others wait: the cache has room for no more"),
    ],
)  # fmt: skip
def test_few_who_run_while_others_wait_are_no_answer(free: str, asked: dict, runs: int, said: str) -> None:
    found = sim.minimize(free, subject={"user_tokens_per_s": 50}, **{**KIMI, **asked})
    assert not found["reached"] and said in found.details["answer"]
    assert found["running_sequences"] == runs


def test_all_users_run_in_the_least_memory() -> None:
    """3 users of two replicas: one of them has two."""
    asked = {**KIMI, "concurrency": 3, "replicas": 2, "gpus": 16}
    found = sim.minimize("memory", subject={"user_tokens_per_s": 5}, **asked)
    assert found["reached"] and found["running_sequences"] == 3
    assert found["ttft_s"] == pytest.approx(float(sim.estimate("kimi-k2.6", "8x h200", **_estimated(asked))["ttft_s"]))


def _estimated(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name not in ("model", "hardware")}


def cost_on_a_grid(subject: dict[str, float], weights: np.ndarray, factors: dict[str, np.ndarray]) -> float:
    """Least Σ w·log(factor) of all points that keep to the limits."""
    made = build("kimi-k2.6", "8x h200", engine=None, weights="native", kv=None, **LOAD)
    point, zero = jax.tree.map(lambda a: a[0], made.points), np.zeros(len(FREE))
    asked = Design(made.setup, point, subject, "growth", weights, zero, zero, zero)
    each = np.stack(np.meshgrid(*(np.log(factors.get(name, np.ones(1))) for name in FREE), indexing="ij"), -1)
    costs = [np.where(np.all(excess <= 0, axis=1), cost, np.inf) for cost, excess in
             (asked.judge(part) for part in each.reshape(-1, design.N_POINTS, len(FREE)))]  # fmt: skip
    return float(np.min(costs))


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_two_parameters_cost_as_little_as_on_a_fine_grid(weight: float) -> None:
    subject = {"user_tokens_per_s": 50.0, "ttft_s": 0.5}
    free = ("bandwidth", "compute")
    found = sim.minimize(free, subject=subject, weights_of={"compute": weight}, **KIMI)
    factors = {name: float(found[f"{name}_factor"]) for name in free}
    assert figure("user_tokens_per_s", **factors) >= 50 * (1 - 1e-3)
    assert figure("ttft_s", **factors) <= 0.5 * (1 + 1e-3)
    for name in free:
        assert figure("user_tokens_per_s", **{**factors, name: 0.99 * factors[name]}) < 50
    near = {name: np.geomspace(0.5, 4, 256) for name in free}
    cost = np.log(factors["bandwidth"]) + weight * np.log(factors["compute"])
    least = cost_on_a_grid(subject, np.asarray([1.0, weight, 0.0, 0.0]), near)
    assert least - 0.02 < cost < least + 1e-4


def test_at_the_cheapest_point_a_factor_costs_what_it_gains() -> None:
    growth = {"bandwidth": 0.3, "compute": 0.1}
    subject = {"user_tokens_per_s": 30}
    found = sim.minimize(tuple(growth), subject=subject, objective="usd_per_mtok", growth=growth, **KIMI)
    factors = {name: float(found[f"{name}_factor"]) for name in growth}
    for name, exponent in growth.items():
        up, down = (figure("output_tokens_per_s", **{**factors, name: factors[name] * by}) for by in (1.02, 1 / 1.02))
        assert np.log(up / down) / (2 * np.log(1.02)) == pytest.approx(exponent, abs=5e-3)
    base = sim.estimate("kimi-k2.6", "8x h200", **LOAD)
    dearer = np.prod([factors[name] ** exponent for name, exponent in growth.items()])
    assert found["usd_per_hour"] == pytest.approx(float(base["usd_per_hour"]) * dearer, rel=1e-4)
    assert found["usd_per_mtok"] < base["usd_per_mtok"]


@pytest.mark.parametrize(
    "given, said",
    [
        ({"free": "bandwith"}, "free: nothing is called 'bandwith' here; hint: did you mean bandwidth?"),
        ({"subject": {"user_tokens": 5}}, "subject: nothing is called 'user_tokens' here; hint: did you mean user_tok"),
        ({"subject": {"ttft_s": -1}}, "subject.ttft_s: expected a number above 0, found -1"),
        ({"subject": {"n_devices": 4}}, "subject.n_devices: no bandwidth moves it; hint: give gpus"),
        ({"subject": {}}, "subject: there is nothing to reach"),
        ({"objective": "grow"}, "objective: nothing is called 'grow' here; hint: did you mean growth?"),
        ({"bounds": {"bandwidth": (2, 1)}}, "bounds.bandwidth: expected two increasing factors, above 0 and up to"),
        ({"bounds": {"link": (1, 2)}}, "bounds: nothing is called 'link' here; hint: known are bandwidth"),
        ({"growth": {"bandwidth": "much"}}, "growth.bandwidth: expected a number of at least 0, found 'much'"),
        ({"concurrency": (1, 2)}, "concurrency: expected one number"),
        ({"model": "kimi-k9"}, "no model is called"),
        ({"growth": {"bandwidth": 1.0}, "subject": {"usd_per_hour": 20.0, "user_tokens_per_s": 50}},
         "subject: usd_per_hour of at most 20 and user_tokens_per_s of at least 50 contradict each other at bandwidth"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(given: dict[str, Any], said: str) -> None:
    asked = {"free": "bandwidth", "subject": {"user_tokens_per_s": 50}, **KIMI} | given
    with pytest.raises(RoofcastError) as error:
        sim.minimize(asked.pop("free"), **asked)
    assert said in str(error.value)
