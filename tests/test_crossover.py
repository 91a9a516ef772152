"""Crossovers: against every cell computed by `sim.estimate`, and on tables made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sim
from sim.errors import RoofcastError
from sim.results import Result
from sim.sweeps.crossover import _changes, _ends, crossover
from sim.sweeps.plan import plan
from sim.sweeps.spec import Spec

USERS = (1, 3, 10, 30, 100, 300)
PROMPTS = (500, 8000, 30000, 60000, 120000)
SPEC = Spec(
    "MoE or dense", model=("gpt-oss-20b", "qwen3-4b"), hardware=("h100-sxm", "rtx-4090"),
    weights=("native", "fp8"), concurrency=USERS, prompt_tokens=PROMPTS, output_tokens=(200,),
)  # fmt: skip


def brute(spec: Spec, axis: str, value: str, along: str, objective: str) -> np.ndarray:
    """Least of the objective at each point of the axis, infinite where nothing fits."""
    at, order = replace(spec, **{axis: (value,)}), ("concurrency", "prompt_tokens", "output_tokens")
    users, prompts, outputs = np.meshgrid(*(getattr(at, name) for name in order), indexing="ij")
    every = [
        sim.estimate(m, h, weights=w, concurrency=users, prompt=prompts, output=outputs)[objective]
        for m in at.model for h in at.hardware for w in at.weights
    ]  # fmt: skip
    least = np.min([np.where(np.isnan(value), np.inf, value) for value in every], axis=0)
    return np.min(least, axis=tuple(i for i, name in enumerate(order) if name != along))


def values_of(result: Result, name: str, axis: str, objective: str) -> np.ndarray:
    """What the table has of one of the values."""
    table = result.details["values"]
    return table[objective][table[axis] == name]


def test_models_over_users_against_every_estimate() -> None:
    found = crossover(plan(SPEC), "concurrency", ("model", "gpt-oss-20b", "qwen3-4b"), "usd_per_mtok")
    moe, dense = (brute(SPEC, "model", name, "concurrency", "usd_per_mtok") for name in ("gpt-oss-20b", "qwen3-4b"))
    for name, least in (("gpt-oss-20b", moe), ("qwen3-4b", dense)):
        np.testing.assert_allclose(values_of(found, name, "model", "usd_per_mtok"), least, rtol=1e-4)
    gap = np.log(moe / dense)
    turns = np.flatnonzero(np.sign(gap[1:]) != np.sign(gap[:-1]))
    assert len(turns) >= 1
    assert found["event"].tolist() == ["order changes"] * len(turns)
    for k, row in zip(turns, found.rows(), strict=True):
        assert (row["low"], row["high"]) == (USERS[k], USERS[k + 1])
        assert row["before"] == ("gpt-oss-20b" if gap[k] < 0 else "qwen3-4b")
        sides = sorted([(gap[k], np.log(USERS[k])), (gap[k + 1], np.log(USERS[k + 1]))])
        at = np.exp(np.interp(0.0, [gap for gap, _ in sides], [users for _, users in sides]))
        assert row["at"] == pytest.approx(at, rel=1e-3)


def test_where_a_prompt_fits_no_more_against_every_estimate() -> None:
    spec = replace(SPEC, model=("llama-3.1-8b", "qwen3-4b"))
    found = crossover(plan(spec), "prompt_tokens", "hardware", "tpot_s")
    for name in spec.hardware:
        least = brute(spec, "hardware", name, "prompt_tokens", "tpot_s")
        np.testing.assert_allclose(values_of(found, name, "hardware", "tpot_s"), least, rtol=1e-4)
        ends = [row for row in found.rows() if row["event"] == "stops" and row["before"] == name]
        n = int(np.isfinite(least).sum())
        assert n == {"h100-sxm": 5, "rtx-4090": 4}[name]
        assert [(row["low"], row["high"]) for row in ends] == ([] if n == 5 else [(PROMPTS[n - 1], PROMPTS[n])])


def test_lines_of_powers_cross_where_they_should() -> None:
    points = np.asarray([1.0, 10.0, 100.0, 1000.0])
    best = np.stack([points**-0.5, 5 * points**-1.0])  # 5·x^−1 = x^−0.5 at x = 25
    assert [(e[0], e[1], e[2], e[4]) for e in _changes(points, best)] == [("order changes", 0, 1, 2)]
    assert next(_changes(points, best))[3] == pytest.approx(25.0)


def test_a_tie_is_no_change() -> None:
    points = np.arange(1.0, 5.0)
    assert not list(_changes(points, np.asarray([[2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 1.0, 2.0]])))
    turned = list(_changes(points, np.asarray([[2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 3.0, 3.0]])))
    assert [(event[1], event[2], event[3]) for event in turned] == [(1, 0, 2.0)]


def test_what_ends_and_begins() -> None:
    points, none = np.arange(1.0, 5.0), np.inf
    best = np.asarray([[1.0, 1.0, none, none], [none, 2.0, 2.0, none]])
    told = [("stops", 0, 1, 2.0, 2), ("starts", 0, 1, 2.0, 1), ("stops", 1, -1, 3.0, 3)]
    assert sorted(_ends(points, best)) == sorted(told)
    assert not list(_changes(points, best))


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("concurency", "model"), "along: nothing is called 'concurency' here; hint: did you mean concurrency?"),
        (("concurrency", "modle"), "between: nothing is called 'modle' here; hint: did you mean model"),
        (("concurrency", ("model", "qwen3-4b", "gpt-2")), "between: 'gpt-2' is not on the axis model; hint: it has"),
        (("concurrency", ("model", "qwen3-4b")), "between: one value of model is nothing to compare"),
        (("output_tokens", "model"), "along: the axis output_tokens of the sweep has one value"),
        (("concurrency", "concurrency"), "between: is the same axis as along"),
        (("concurrency", "model", "usd"), "objective: nothing is called 'usd' here"),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple, said: str) -> None:
    with pytest.raises(RoofcastError) as error:
        crossover(plan(SPEC), *arguments)
    assert str(error.value).startswith(said)
