"""Closed loops against the laws of queues: N users who think Z and wait R make N / (Z + R) requests/s."""

from __future__ import annotations

from typing import Any

import pytest

import sim

LLAMA = {"model": "llama-3.1-8b", "weights": "fp8", "engine": "vllm"}
GPT_OSS = {"model": "gpt-oss-20b", "weights": "mxfp4", "engine": "tensorrt-llm"}  # with a slow front end


def rows_of(served: dict[str, str], users: list[int], replicas: int = 1, **traffic: Any) -> list[dict[str, Any]]:
    """The levels of a closed loop on as many H100s as replicas."""
    deployment = {**served, "label": "a", "hardware": f"{replicas}x-h100", "tp": 1, "replicas": replicas}
    asked = {"users": users, "prompt": {"tokens": 512}, "output": {"tokens": 64}, **traffic}
    return sim.simulate({"name": "x", "deployment": [deployment], "traffic": asked}).results["a"].rows()


def law(row: dict[str, Any], think_s: float) -> float:
    """The interactive response time law: requests/s of N users."""
    return float(row["load"]) / (think_s + row["e2e_mean_s"])


@pytest.mark.parametrize("replicas", [1, 2, 8])
@pytest.mark.parametrize("think_s", [1.0, 10.0])
def test_users_over_replicas_ask_as_often_as_they_can(replicas: int, think_s: float) -> None:
    for row in rows_of(LLAMA, [1, 3, 12], replicas, n_requests=1200, think_s=think_s, think_cv=0.0):
        assert row["requests_per_s"] == pytest.approx(law(row, think_s), rel=0.005)


def test_so_do_users_who_think_as_they_like() -> None:
    think_s = 2.0
    asked = {"n_requests": 4000, "think_s": think_s, "replications": 3}
    for row in rows_of(LLAMA, [3, 20, 100], 4, **asked):
        assert row["requests_per_s"] == pytest.approx(law(row, think_s), rel=0.02)


@pytest.mark.parametrize("served", [LLAMA, GPT_OSS], ids=["vllm", "tensorrt-llm"])
def test_each_user_has_one_request_in_flight(served: dict[str, str]) -> None:
    """Without a thought all of them always have one: X·R = N, the front end included."""
    for row in rows_of(served, [1, 2, 16, 64], n_requests=1280):
        assert row["requests_per_s"] == pytest.approx(law(row, 0.0), rel=0.002)
        assert row["requests_per_s"] * row["e2e_mean_s"] <= row["load"] * (1 + 1e-9)
