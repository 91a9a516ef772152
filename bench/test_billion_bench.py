"""A billion configurations, from the command's start to its answers: seconds, and the memory of the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sim.units import GIB, MILLION

ROOT = Path(__file__).resolve().parents[1]
BILLION = 1000 * MILLION
MOST_SECONDS, MOST_BYTES = 60.0, 2 * GIB
CODE = """
import json, resource, sim
found = sim.sweep({
    "name": "A billion",
    "axes": {
        "model": "all",
        "hardware": ["h100", "h200", "b200", "a100-80gb", "rtx-5090", "rtx-4090", "mi300x", "m3-ultra-512gb"],
        "weights": ["native", "fp8", "int4_g128"],
        "gpus": [1, 2, 4, 8],
        "prompt_tokens": {"from": 128, "to": 32768, "n": 17, "scale": "log"},
        "output_tokens": [64, 128, 256, 512, 1024, 2048],
        "concurrency": {"from": 1, "to": 4096, "n": 80, "scale": "log"},
        "usd_factor": {"from": 0.25, "to": 4.0, "step": 0.25},
    },
    "limits": {"tpot_s": 0.05, "ttft_s": 2.0},
    "answers": {"minimize": ["usd_per_mtok", "tpot_s", "ttft_s", "joules_per_token"], "by": ["model"]},
})
print(json.dumps({
    "n_cells": found.plan.n_cells, "told": int(found.part.n_cells), "seconds": found.seconds,
    "compile_s": found.compile_s, "kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
}))
"""


def told() -> str:
    """What a process of its own says."""
    return subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_a_billion_configurations_take_less_than_a_minute(benchmark: Any) -> None:
    found = json.loads(benchmark.pedantic(told, rounds=1))
    print(f"{found['n_cells']:,} in {found['seconds']:.1f} s, {found['n_cells'] / found['seconds']:,.0f} a second; "
          f"compiled in {found['compile_s']:.1f} s; {found['kib'] / 1e3:.0f} thousand KiB")  # fmt: skip
    assert found["told"] == found["n_cells"] > BILLION
    assert found["seconds"] < MOST_SECONDS
    assert found["kib"] * 1024 < MOST_BYTES
