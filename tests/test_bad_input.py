"""Bad arguments of the verbs: a sentence with its place, never a traceback, a NaN or a silent guess."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.bounds import LARGEST_COUNT, MOST_CONFIGURATIONS, MOST_DEVICES
from sim.durations import seconds
from sim.errors import RoofcastError, clipped, shown
from sim.numbers import broadcast, check_scalars

MODEL, MACHINE = "llama-3.1-8b", "2x-h200"
HUGE = "9" * 5000


def said(call: Callable[[], object]) -> str:
    """What the RoofcastError of a call says."""
    with pytest.raises(RoofcastError) as caught:
        call()
    assert all("\n" not in problem and len(problem) < 1000 for problem in caught.value.problems)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "found None"),
        ("8", "found '8'"),
        (True, "found True"),
        (b"1", "found b'1'"),
        (1 + 2j, "found (1+2j)"),
        ({}, "found {}"),
        (np.datetime64("2026-01-01"), "found np.datetime64"),
        ([1, None], "found [1, None]"),
        ([True, False], "found [True, False]"),
        ([[1, 2], [3]], "found [[1, 2], [3]]"),
        ([], "found none"),
        (0, "expected whole numbers from 1 to 2147483647, found 0"),
        (1.5, "found 1.5"),
        ([4, -7], "found -7"),
        (float("nan"), "found nan"),
        (float("inf"), "found inf"),
        (LARGEST_COUNT + 1, "found 2147483648"),
        (10**400, "found 1000"),
    ],
)
def test_what_is_no_count_is_refused(value: Any, problem: str) -> None:
    text = said(lambda: broadcast({"concurrency": value}))
    assert text.startswith("concurrency: expected whole numbers") and problem in text


@pytest.mark.parametrize("value", [3, 3.0, np.float16(3), Decimal(3), Fraction(3), [3], range(3, 4), np.array([[3]])])
def test_what_is_a_count_is_read(value: Any) -> None:
    arrays, shape = broadcast({"concurrency": value})
    assert arrays["concurrency"].tolist() == [3.0] and shape == np.shape(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("price", 0), ("price", -1), ("price", 1e300), ("price", 1e-30), ("cpu_moe_frac", 1.1), ("gpu_layers", -1),
        ("gpu_memory_utilization", 0), ("tp", MOST_DEVICES + 1), ("ttft_s", 0), ("usd", float("nan")),
    ],
)  # fmt: skip
def test_numbers_out_of_bounds_are_refused(name: str, value: float) -> None:
    assert said(lambda: broadcast({name: value})).startswith(f"{name}: expected ")


@pytest.mark.parametrize(("engine", "machine"), [("llamacpp", "8x-h200"), ("ollama", "8x-h200"), ("mlx", "m3-ultra")])
def test_engines_without_attention_dp_take_replicas_in_its_place(engine: str, machine: str) -> None:
    weights = "mlx4" if engine == "mlx" else "q4_k_m"
    text = said(lambda: sim.estimate("gpt-oss-120b", machine, engine=engine, weights=weights, dp=2, gpus=2))
    assert "dp: " in text and "has no data-parallel attention, so dp must be 1; hint: take replicas = 2" in text
    found = sim.estimate("gpt-oss-120b", machine, engine=engine, weights=weights, replicas=2, gpus=2)
    assert (found["replicas"], found["dp"]) == (2, 1)
    assert sim.estimate("gpt-oss-120b", "8x-h200", engine="vllm", dp=2, gpus=2)["dp"] == 2


def test_all_wrong_numbers_are_reported_together() -> None:
    assert len(said(lambda: broadcast({"prompt": 0, "output": "x", "tp": 2})).splitlines()) == 2


def test_shapes_and_sizes_of_arrays_are_checked() -> None:
    assert "do not broadcast: prompt (2,), output (3,)" in said(
        lambda: broadcast({"prompt": [1] * 2, "output": [1] * 3})
    )
    wide = {"prompt": np.ones((2048, 1)), "output": np.ones(MOST_CONFIGURATIONS // 1024)}
    assert "2,097,152 configurations in one call" in said(lambda: broadcast(wide))
    assert said(lambda: check_scalars({"users": [1, 2]})) == "users: expected one number, found [1, 2]"
    check_scalars({"users": 2, "context": None})


@pytest.mark.parametrize(
    ("model", "machine", "problem"),
    [
        (None, MACHINE, "expected the name of a model, found None"),
        (MODEL, Path("h100"), "expected the name of a machine, found PosixPath"),
        (MODEL, ["h100"], "expected the name of a machine, found ['h100']"),
        ("x" * 10**6, MACHINE, 'no model is called "xxx'),
        ("a\nb", MACHINE, r'no model is called "a\nb"'),
        (MODEL, f"{HUGE}x h100", "expected 1 to 1,000,000 devices, found 999"),
        (MODEL, f"m3-ultra-{HUGE}gb", "was never sold with"),
        ("foo", "bar", 'no model is called "foo"; hint: roofcast models lists all\nno machine is called "bar"'),
    ],
)
def test_names_that_are_none(model: Any, machine: Any, problem: str) -> None:
    assert problem in said(lambda: sim.estimate(model, machine))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"weights": None}, "expected the name of a weight format, found None"),
        ({"weights": "zzz"}, "hint: known are bf16, fp16"),
        ({"engine": 3}, "expected the name of an engine, found 3"),
        ({"engine": "zzz"}, "hint: known are vllm"),
        ({"kv": ""}, "kv: no KV format is called ''; hint: take 16, 8 or 4"),
        ({"kv": ["8"]}, "kv: no KV format is called ['8']"),
        ({"prompt": None}, "prompt: expected whole numbers"),
        ({"tp": 4}, "hardware: tp·pp·dp·replicas = 4 is more than the 2 devices of the machine; hint: give gpus = 4"),
        ({"tp": 1000, "pp": 10_000, "gpus": 1}, "does not divide 1 devices"),
        ({"gpu_layers": 4}, "gpu_layers: vLLM keeps no weights in host memory; hint: take engine llamacpp or ollama"),
        ({"cpu_moe_frac": 0.5, "engine": "llamacpp"}, "cpu_moe_frac: Llama 3.1 8B has no routed experts"),
        ({"pp": 33, "gpus": 33}, "pp: Llama 3.1 8B has 32 layers, fewer than pp = 33; hint: take pp of at most 32"),
    ],
)
def test_arguments_that_make_no_sense_together(given: dict[str, Any], problem: str) -> None:
    assert problem in said(lambda: sim.estimate(MODEL, MACHINE, **given))


def test_a_machine_of_one_memory_keeps_nothing_in_host_memory() -> None:
    text = said(lambda: sim.estimate(MODEL, "m3-ultra-96gb", engine="llamacpp", weights="q4_k_m", gpu_layers=4))
    assert text.startswith("gpu_layers: Apple M3 Ultra (Mac Studio) has no host memory beside its own")


def test_layers_beyond_those_of_the_model_are_all_on_the_devices() -> None:
    assert sim.estimate(MODEL, MACHINE, gpu_layers=999)["host_bytes"] == 0


def test_replicas_need_no_link_between_them() -> None:
    assert "needs several nodes" in said(lambda: sim.estimate(MODEL, "rtx-4090", gpus=16))
    both = sim.estimate(MODEL, "rtx-4090", gpus=16, replicas=2, concurrency=2)
    one = sim.estimate(MODEL, "rtx-4090", gpus=8, concurrency=1)
    assert (both["n_gpus"], both["tp"]) == (16, 8)
    assert both["tpot_s"] == pytest.approx(one["tpot_s"])


def test_an_array_of_layouts_is_the_layouts_one_by_one() -> None:
    swept = sim.estimate(MODEL, "h100", tp=[1, 2, 4])
    assert swept["n_gpus"].tolist() == [int(sim.estimate(MODEL, "h100", tp=tp)["n_gpus"]) for tp in (1, 2, 4)]


def test_fits_takes_arrays() -> None:
    swept = sim.fits(MODEL, "h100", context=[4096, 65536], concurrency=[[1], [8]], weights=["native", "fp8"])
    assert swept["fits"].shape == (2, 2, 2)
    alone = sim.fits(MODEL, "h100", context=65536, concurrency=8, weights=["native", "fp8"])
    assert swept["needed_bytes"][:, 1, 1] == pytest.approx(alone["needed_bytes"])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"context": None}, "context: expected whole numbers"),
        ({"context": 1}, "context: expected at least 2 tokens, found 1"),
        ({"engine": "mlx"}, "engine: MLX does not run on NVIDIA H200"),
        ({"weights": []}, "expected a list of names, found []; hint: name weight formats"),
        ({"weights": "mlx4"}, "weights: no engine of vllm, sglang, trtllm, llamacpp, ollama runs mlx4 weights"),
        ({"weights": [3]}, "expected the name of one of the weight formats, found 3"),
    ],
)
def test_fits_refuses(given: dict[str, Any], problem: str) -> None:
    assert problem in said(lambda: sim.fits(MODEL, MACHINE, **given))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"users": None}, "users: expected a whole number, found None"),
        ({"users": 1.5}, "users: expected whole numbers"),
        ({"users": [1, 2]}, "users: expected one number, found [1, 2]"),
        ({"ttft_s": "2s"}, "ttft_s: expected numbers from 1e-09 to 2147483647, found '2s'"),
        ({"context": 0}, "context: expected whole numbers"),
        ({"context": 100}, "context: 100 tokens cannot hold prompt + output = 1280; hint: take context of at least"),
        ({"per_model": 0}, "per_model: expected whole numbers"),
        ({"top": "x"}, "top: expected whole numbers"),
        ({"hardware": []}, "hint: name machines"),
        ({"models": ["foo", "bar"]}, 'no model is called "foo"; hint: roofcast models lists all\nno model is called'),
        ({"engines": "mlx", "hardware": "h100"}, "nothing to choose from: none of mlx runs on this hardware"),
    ],
)
def test_recommend_refuses(given: dict[str, Any], problem: str) -> None:
    assert problem in said(lambda: sim.recommend(**{"users": 4, **given}))


def test_hardware_on_hand_needs_no_price_unless_there_is_a_budget() -> None:
    load = {"users": 1, "models": "llama-3.1-8b", "hardware": ["m4-ultra"]}
    found = sim.recommend(**load)
    assert len(found.rows()) > 0 and np.isnan(found["usd_per_hour"]).all()
    assert any("nearest: m3-ultra" in note for note in found.provenance)
    limited = sim.recommend(**load, usd_per_hour=1.0)
    assert limited.rows() == [] and "no price is known" in limited.details["rejected"]


@pytest.mark.parametrize(
    ("text", "expected"), [("200ms", 0.2), (" 2 S ", 2.0), (".5s", 0.5), ("50us", 5e-5), ("2", None), ("²s", None)]
)
def test_durations_have_a_unit(text: str, expected: float | None) -> None:
    assert seconds(text) == (None if expected is None else pytest.approx(expected))


def test_values_are_quoted_short_and_on_one_line() -> None:
    assert shown(10**5000) == "a number of thousands of digits"
    assert shown("a\nb" * 50).isprintable() and len(shown("a" * 500)) == 60
    assert clipped("a\x1b[31mb") == "a\\x1b[31mb"


def test_rent_and_purchase_are_two_prices() -> None:
    """H100: dearer to rent than to run for four years; the price named wins; an unknown way is refused."""
    rent, buy = (sim.estimate("llama-3.1-8b", "h100", pay=pay)["usd_per_hour"] for pay in ("rent", "buy"))
    assert 0 < buy < rent == sim.estimate("llama-3.1-8b", "h100")["usd_per_hour"]
    assert sim.estimate("llama-3.1-8b", "h100", pay="buy", price=7.0)["usd_per_hour"] == 7.0
    with pytest.raises(RoofcastError, match="pay: expected rent or buy, found 'lease'; hint: take rent or buy"):
        sim.estimate("llama-3.1-8b", "h100", pay="lease")
