"""What the public harnesses behind closed-loop serving tables tell an engine, which the rows do not state."""

from __future__ import annotations

import re

from sim import catalog, engines
from sim.measure.rows import Deployment

REQUESTS_PER_USER = 10  # in both harnesses, all offered at once
BLACKWELL = ("B200", "B300")
VLLM_SHARE = 0.9  # by InferenceMAX's scripts, and vLLM's own up to 0.19


def settings(
    ran: Deployment, hardware: str, precision: str, load: tuple[int, int, int], exact: bool, version: str
) -> dict[str, float]:
    """Arguments of `sim.estimate` by the harness's scripts. load: nominal isl, osl, users; exact: of equal lengths.

    Runs of equal lengths: token budget isl + users + 1500 in whole blocks, at most as many sequences as users, and
    mixed chunks where SGLang is 0.5.6 or newer (rules of aiconfigurator's generator). vLLM takes 0.9 of the memory;
    SGLang's share stays that of its own chunk size.
    Runs of lengths 0.8-1.0 (InferenceMAX's scripts): vLLM 8192 tokens, 0.9 of the memory, and as many sequences as
    users (512 on Blackwell, but for Kimi); TensorRT-LLM isl + users + 64, rounded up, but the longest request for Llama
    70B (which, at 1k/1k and TP below 8, also waits 20 steps for a fuller batch) and 20000 for gpt-oss; SGLang as
    `_sglang_scripts` has it.
    """
    isl, osl, users = load
    if exact:
        budget: dict[str, float] = {"max_num_batched_tokens": _blocks(isl + users + 1500), "max_num_seqs": users}
        if ran.engine == "vllm":
            return budget | {"gpu_memory_utilization": VLLM_SHARE}
        if ran.engine != "sglang":
            return budget
        return budget | _own_share(ran) | ({"mixed_chunk": 1} if _newer(version, (0, 5, 6)) else {})
    found = {"length_spread": 0.2 / 0.9}
    if ran.engine == "vllm":
        most = 512 if hardware in BLACKWELL and not ran.model.startswith("kimi") else users
        return found | {"max_num_batched_tokens": 8192, "max_num_seqs": most, "gpu_memory_utilization": VLLM_SHARE}
    if ran.engine == "sglang":
        return found | _sglang_scripts(hardware, ran.model, precision, ran.tp, users)
    if ran.model.startswith("gpt-oss"):
        return found | {"max_num_batched_tokens": 20000}
    if ran.model.startswith("llama"):
        waits = isl == osl and ran.tp < 8
        return found | {"max_num_batched_tokens": isl + osl + 200, "admission_steps": 40 if waits else 1}
    return found | {"max_num_batched_tokens": _blocks(isl + users + 64)}


def _sglang_scripts(hardware: str, model: str, precision: str, tp: int, users: int) -> dict[str, float]:
    """InferenceMAX's scripts of SGLang: chunks, share of memory, and on Blackwell how often new prompts are looked at.

    dsr1_*, qwen3.5_* and glm5_* under benchmarks/ of SemiAnalysisAI/InferenceX at 1fc5d73 and 8eec0d4. They look every
    10 decode steps, every 30 from 16 users on; DeepSeek in FP8 on four devices and GLM-5 in FP4 always every 10, GLM-5
    in FP8 every step.
    """
    blackwell = hardware in BLACKWELL
    steps = (30 if users >= 16 else 10) if blackwell else 1
    if model.startswith("deepseek"):
        if hardware.startswith("MI"):
            return _script(196608, 0.8, steps)
        if "fp4" in precision:
            return _script(16384, 0.85, steps)
        return _script(8192, 0.95, 10) if blackwell and tp == 4 else _script(32768, 0.82, steps)
    if model.startswith("qwen3.5"):
        if not blackwell:
            return _script(16384, 0.8, steps)
        return _script(32768, 0.8 if "fp4" in precision else 0.82, steps)
    if model.startswith("glm"):
        if not blackwell:
            return {"gpu_memory_utilization": 0.85, "admission_steps": 1}
        return _script(32768, 0.9, 10) if "fp4" in precision else _script(32768, 0.85, 1)
    return {"admission_steps": steps}


def _script(chunk: int, share: float, steps: int) -> dict[str, float]:
    return {"max_num_batched_tokens": chunk, "gpu_memory_utilization": share, "admission_steps": steps}


def _own_share(ran: Deployment) -> dict[str, float]:
    """The share by SGLang's own chunk size: the generator limits prompts together, not chunks."""
    device, runs = catalog.machine(ran.machine).device, engines.engine(ran.engine)
    chunk = engines.limits(runs, device).max_batched_tokens
    return {"gpu_memory_utilization": engines.memory_frac(runs, device, chunk, ran.tp, ran.pp, ran.dp)}


def quantizes_cache(runs: str, model: str, hardware: str, precision: str, exact: bool) -> bool:
    """Whether the KV cache is FP8: in TensorRT-LLM FP8 and FP4 runs, and by InferenceMAX's scripts under vLLM (but
    for gpt-oss on Hopper) and under SGLang (on Blackwell but for BF16 weights, on Hopper for Qwen3.5).
    """
    if runs == "trtllm":
        return precision in ("fp8", "fp4")
    if exact or hardware.startswith("MI"):
        return False
    if runs == "vllm":
        return hardware in BLACKWELL or not model.startswith("gpt-oss")
    return precision != "bf16" if hardware in BLACKWELL else model.startswith("qwen3.5")


def _newer(stated: str, version: tuple[int, ...]) -> bool:
    """Whether an engine's version is at least this one."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", stated)
    return found is not None and tuple(int(part) for part in found.groups()) >= version


def _blocks(tokens: int) -> int:
    """Rounded up to whole blocks of 64."""
    return -(-tokens // 64) * 64
