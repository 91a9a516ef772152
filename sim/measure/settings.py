"""What the public harnesses behind closed-loop serving tables tell an engine, which the rows do not state."""

from __future__ import annotations

import re

REQUESTS_PER_USER = 10  # in both harnesses, all offered at once


def settings(
    runs: str, hardware: str, model: str, tp: int, load: tuple[int, int, int], exact: bool, version: str
) -> dict[str, float]:
    """Arguments of `sim.estimate` by the harness's scripts. load: nominal isl, osl, users; exact: of equal lengths.

    Runs of equal lengths: token budget isl + users + 1500 in whole blocks, and mixed chunks where SGLang is 0.5.6 or
    newer (rules of aiconfigurator's generator).
    Runs of lengths 0.8-1.0 (InferenceMAX's scripts): vLLM 8192 tokens; TensorRT-LLM isl + users + 64, rounded up, but
    the longest request for Llama 70B (which, at 1k/1k and TP below 8, also waits 20 steps for a fuller batch) and
    20000 for gpt-oss; SGLang looks at new prompts every 10 decode steps on Blackwell, 30 from 16 users on.
    """
    isl, osl, users = load
    if exact:
        budget = {"max_num_batched_tokens": _blocks(isl + users + 1500)}
        return budget | {"mixed_chunk": 1} if runs == "sglang" and _newer(version, (0, 5, 6)) else budget
    found = {"length_spread": 0.2 / 0.9}
    if runs == "vllm":
        return found | {"max_num_batched_tokens": 8192}
    if runs == "sglang":
        polls = hardware in ("B200", "B300") and "GLM" not in model
        return found | {"admission_steps": (30 if users >= 16 else 10) if polls else 1}
    if "gpt-oss" in model:
        return found | {"max_num_batched_tokens": 20000}
    if "Llama" in model:
        waits = isl == osl and tp < 8
        return found | {"max_num_batched_tokens": isl + osl + 200, "admission_steps": 40 if waits else 1}
    return found | {"max_num_batched_tokens": _blocks(isl + users + 64)}


def quantizes_cache(runs: str, hardware: str, precision: str, exact: bool) -> bool:
    """Whether the KV cache is FP8: in TensorRT-LLM FP8 and FP4 runs, and by InferenceMAX's scripts under vLLM and, on
    Blackwell, SGLang.
    """
    if runs == "trtllm":
        return precision in ("fp8", "fp4")
    return not exact and not hardware.startswith("MI") and (runs == "vllm" or hardware in ("B200", "B300"))


def _newer(stated: str, version: tuple[int, ...]) -> bool:
    """Whether an engine's version is at least this one."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", stated)
    return found is not None and tuple(int(part) for part in found.groups()) >= version


def _blocks(tokens: int) -> int:
    """Rounded up to whole blocks of 64."""
    return -(-tokens // 64) * 64
