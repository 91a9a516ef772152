"""What the public harnesses behind silicon.csv.gz tell an engine, which its rows do not state."""

from __future__ import annotations

import re

from measured_names import whole

REQUESTS_PER_USER = 10  # in both harnesses


def settings(row: dict[str, str], runs: str) -> dict[str, float]:
    """Arguments of `sim.estimate` that follow from the harness, by its scripts.

    Runs of equal lengths: token budget isl + batch + 1500 in whole blocks, and mixed chunks where SGLang is 0.5.6 or
    newer (rules of aiconfigurator's generator).
    Runs of lengths 0.8-1.0 (InferenceMAX's scripts): vLLM 8192 tokens; TensorRT-LLM isl + batch + 64, rounded up, but
    the longest request for Llama 70B (which, at 1k/1k and TP below 8, also waits 20 steps for a fuller batch) and
    20000 for gpt-oss; SGLang looks at new prompts every 10 decode steps on Blackwell, 30 from 16 users on.
    """
    isl, osl, users = (whole(row[name]) for name in ("isl", "osl", "concurrency"))
    if row["length_range"] == "exact":
        budget = {"max_batched_tokens": blocks(isl + users + 1500)}
        return budget | {"mixed_chunk": 1.0} if runs == "sglang" and newer(row, (0, 5, 6)) else budget
    found = {"length_spread": 0.2 / 0.9}
    if runs == "vllm":
        return found | {"max_batched_tokens": 8192}
    if runs == "sglang":
        polls = row["hardware"] in ("B200", "B300") and "GLM" not in row["model"]
        return found | {"admission_steps": (30 if users >= 16 else 10) if polls else 1}
    if "gpt-oss" in row["model"]:
        return found | {"max_batched_tokens": 20000}
    if "Llama" in row["model"]:
        waits = isl == osl and whole(row["tp"]) < 8
        return found | {"max_batched_tokens": isl + osl + 200, "admission_steps": 40 if waits else 1}
    return found | {"max_batched_tokens": blocks(isl + users + 64)}


def quantizes_cache(row: dict[str, str], runs: str) -> bool:
    """Whether the KV cache is FP8: in TensorRT-LLM FP8 and FP4 runs, and by InferenceMAX's scripts under vLLM and, on
    Blackwell, SGLang.
    """
    if runs == "trtllm":
        return row["precision"] in ("fp8", "fp4")
    return row["length_range"] != "exact" and (runs == "vllm" or row["hardware"] in ("B200", "B300"))


def newer(row: dict[str, str], version: tuple[int, ...]) -> bool:
    """Whether the row states an engine version of at least this one."""
    stated = re.match(r"(\d+)\.(\d+)\.(\d+)", row["engine_version"])
    return stated is not None and tuple(int(part) for part in stated.groups()) >= version


def blocks(tokens: int) -> int:
    """Rounded up to whole blocks of 64."""
    return -(-tokens // 64) * 64
