"""KV cache, recurrent state and weight bytes of the catalogue's models: against published and reference figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kernels.memory import cache_bytes
from kernels.types import Model
from sim import catalog, units
from sim.engines import engine, limits, memory_frac
from sim.formats import bytes_of, weight_bytes, weight_plan
from sim.lower import lower_model
from sim.params import count
from sim.request import build
from sim.schema import ModelRow
from tests import draw, rows
from tests.oracle import memory as slow_memory

TOKENS_128K, TOKENS_1M = 131_072, 1_048_576
# Bytes of one more token, and of one sequence at 128k, both in 16 bits: published by the models' authors, or counted
# from their configurations (DeepSeek-V3 and V3.2 reports, Llama 3, Gemma 3, gpt-oss and Qwen3.5 configurations).
PUBLISHED = {
    "llama-3.3-70b": (327_680, 42_949_672_960),
    "deepseek-v3": (70_272, 9_210_691_584),
    "deepseek-v3.2": (85_888, 11_257_511_936),
    "gemma-3-27b": (81_920, 11_173_625_856),
    "gpt-oss-120b": (36_864, 4_836_556_800),
    "qwen3.5-27b": (65_536, 8_589_934_592 + 48 * 3_207_168),
    "mistral-7b-v0.3": (131_072, 17_179_869_184),
}
# The reference gives every layer an entry with a RoPE key of 64 · 2 bytes; 18 layers of this model have no such key.
WITHOUT_ROPE_KEY = {"mistral-large-4-1t-a52b": 18 * 64 * 2}


def cached(row: ModelRow, tokens: int, kv: str = "16") -> tuple[float, float]:
    """(KV cache, state) bytes of one sequence, from the kernel in float64."""
    model: Model = lower_model(row, weight_plan(row, "native"), kv, engine("vllm"))
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: draw.to(np.asarray(leaf), np.float64), model)
        kv_bytes, state = cache_bytes(exact, np.float64(tokens))
        return float(kv_bytes), float(state)


def growth(row: ModelRow, kv: str = "16") -> float:
    """Bytes a token, over a stretch that every compression ratio divides and that is beyond every window."""
    return (cached(row, TOKENS_128K, kv)[0] - cached(row, TOKENS_128K // 2, kv)[0]) / (TOKENS_128K // 2)


def reference(shared: Path) -> list[tuple[ModelRow, dict[str, Any]]]:
    """The reference's models with the rows that are theirs."""
    records = json.loads((shared / "reference" / "models.json").read_text())["models"]
    known = [record for record in records if "arch" in record]
    return [(catalog.model(record["hf_id"].split()[0].rstrip(",")), record["derived"]) for record in known]


def mixers(row: ModelRow) -> set[str]:
    """Types of attention in the model."""
    return {row.attention[run.attention].type for run in row.layers}


@pytest.mark.parametrize("model_id", PUBLISHED)
def test_published_cache_sizes(model_id: str) -> None:
    per_token, at_128k = PUBLISHED[model_id]
    row = catalog.model(model_id)
    assert growth(row) == per_token
    assert sum(cached(row, TOKENS_128K)) == at_128k


def test_deepseek_v4_pro_at_a_million_tokens() -> None:
    kv, _ = cached(catalog.model("deepseek-v4-pro"), TOKENS_1M)
    assert kv / units.GIB == pytest.approx(9.62, abs=0.005)  # the figure its authors give, in 16 bits
    assert growth(catalog.model("deepseek-v3.2")) / growth(catalog.model("deepseek-v4-pro")) == pytest.approx(
        8.7, abs=0.05
    )


def test_every_cache_equals_the_reference(shared: Path) -> None:
    pairs = reference(shared)
    assert len(pairs) == 68
    wrong = {}
    for row, derived in pairs:
        kv, state = cached(row, TOKENS_128K)
        # The reference counts recurrent states with the cache, but not DeepSeek V4's rings of pending inputs.
        found = kv if "v4" in mixers(row) else kv + state
        if (growth(row), found) != (derived["kv_bytes_per_token_fp16"], derived["kv_bytes_fp16_at_128k"]):
            wrong[row.id] = growth(row) - derived["kv_bytes_per_token_fp16"], found - derived["kv_bytes_fp16_at_128k"]
    assert wrong == {}


def test_caches_as_served_in_8_bits_equal_the_reference(shared: Path) -> None:
    seen = 0
    for row, derived in reference(shared):
        layouts = derived.get("serving_kv_layouts", {})
        served = [layout for name, layout in layouts.items() if name.endswith("FP8 indexer (132 B)")]
        plain = [layout for name, layout in layouts.items() if name.startswith("fp8 latent")]
        for layout in served or plain:
            seen += 1
            expected = layout["growing_bytes_per_token"] - WITHOUT_ROPE_KEY.get(row.id, 0)
            assert growth(row, "8") == pytest.approx(expected, abs=1e-9), row.id
            window = layout.get("sliding_window_fixed_bytes", 0)
            fixed = cached(row, TOKENS_128K, "8")[0] - TOKENS_128K * growth(row, "8")
            assert fixed == pytest.approx(window, abs=1e-3), row.id
        rings = layouts.get("fp32 compressor state per sequence")
        assert rings is None or cached(row, TOKENS_128K)[1] == rings["fixed_bytes"], row.id
    assert seen == 13


def test_native_weights_weigh_what_the_reference_says(shared: Path) -> None:
    wrong = {}
    for row, derived in reference(shared):
        found = weight_bytes(count(row), weight_plan(row, "native"))
        if found != pytest.approx(derived["native_weight_bytes_estimate"], rel=0.02):
            wrong[row.id] = round(found / derived["native_weight_bytes_estimate"], 4)
    assert wrong == {}


@pytest.mark.parametrize("weights", ["native", "bf16", "int4", "q4_k_m"])
def test_the_kernel_stores_every_weight_of_the_checkpoint(weights: str) -> None:
    for row in catalog.models().values():
        model, plan, counts = rows.model(row.id, weights, "vllm"), weight_plan(row, weights), count(row)
        on_device = float(np.sum(model.gemm_bytes) + model.n_moe_layers * model.n_experts * model.expert_bytes)
        tied = bytes_of(counts.embedding, plan.head) - bytes_of(counts.embedding, plan.embedding)
        expected = weight_bytes(counts, plan) + (tied if row.tie_word_embeddings else 0.0)
        assert on_device + float(model.table_bytes) == pytest.approx(expected, rel=1e-5), row.id


@pytest.mark.parametrize("model_id", sorted(catalog.models()))
def test_caches_of_the_catalogue_equal_the_oracle(model_id: str) -> None:
    row = catalog.models()[model_id]
    model = rows.model(model_id, "native", "vllm")
    for tokens in (0, 1, 127, 5000):
        assert cached(row, tokens) == pytest.approx(slow_memory.cache(model, tokens), rel=1e-12)


@pytest.mark.parametrize("model_id", sorted(catalog.models()))
def test_a_narrower_cache_is_smaller(model_id: str) -> None:
    row = catalog.models()[model_id]
    sizes = [cached(row, TOKENS_128K, kv)[0] for kv in ("16", "8", "4")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 0.0 or sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize(
    ("device", "layout", "logged"),
    [
        ("h100-sxm", {}, 0.835),  # logged arguments of SGLang 0.5 servers on one H100
        ("h100-sxm", {"tp": 4}, 0.824),
        ("h200", {}, 0.907),
        ("b200", {}, 0.857),
        ("h100-sxm", {"tp": 1, "dp": 8}, 0.591),  # attention data parallelism pads its graphs
    ],
)
def test_the_share_that_sglang_takes_for_itself(device: str, layout: dict[str, int], logged: float) -> None:
    row, runs = catalog.devices()[device], engine("sglang")
    share = memory_frac(runs, row, limits(runs, row).max_batched_tokens, **layout)
    assert share == pytest.approx(logged, abs=0.0025)
    assert memory_frac(runs, row, 1e9) == 0 and memory_frac(runs, row, 1) < 1
    assert memory_frac(engine("vllm"), row, 1e9, 8) == engine("vllm").memory_frac


def test_a_stated_share_wins_and_larger_chunks_leave_less() -> None:
    asked = {"engine": "sglang", "weights": "native", "kv": None, "concurrency": 1, "prompt": 512, "output": 64}
    own, chunk, told = (
        float(build("qwen3-32b", "h100", **asked, **more).points.memory_frac[0])
        for more in ({}, {"max_num_batched_tokens": 10240}, {"gpu_memory_utilization": 0.88})
    )
    per_token = 1.5 * units.MIB / catalog.devices()["h100-sxm"].memory_bytes
    assert own - chunk == pytest.approx(2048 * per_token, rel=1e-3)
    assert told == pytest.approx(0.88)
