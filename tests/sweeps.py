"""A small sweep, and evaluators of it that count, wait or die; workers of a cluster import them from here."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sim.sweeps import plan as plans
from sim.sweeps.plan import Plan
from sim.sweeps.run import Evaluate
from sim.sweeps.spec import Spec
from sim.verbs.sweep import evaluation

N_BLOCKS = 8


def small(**changes) -> Spec:
    """2,048 configurations."""
    asked = {
        "name": "small", "model": ("llama-3.1-8b", "qwen3-32b"), "hardware": ("h100", "l40s"), "gpus": (1, 2, 4, 8),
        "prompt_tokens": (128, 512, 2048, 8192), "output_tokens": (64, 256), "usd_factor": (0.5, 1.0),
        "concurrency": (1, 2, 4, 8, 16, 32, 64, 128), "limits": {"tpot_s": 0.05}, "by": ("model", "hardware"),
    }  # fmt: skip
    return Spec(**asked | changes)


def small_plan(monkeypatch: pytest.MonkeyPatch, spec: Spec | None = None) -> Plan:
    """In N_BLOCKS blocks."""
    monkeypatch.setattr(plans, "BLOCK_CELLS", 256)
    plan = plans.plan(spec or small())
    assert len(plan.blocks) == N_BLOCKS
    return plan


def parts_of(plan: Plan) -> Evaluate:
    """Keeps no cells."""
    return evaluation(plan, "front")


def noted(folder: Path, plan: Plan, amid: Callable[[int], None] = lambda i: None) -> Evaluate:
    """Notes in `folder/log` each block that it begins, and its process; amid: what happens then."""
    evaluate = evaluation(plan, "front")

    def evaluated(i, hint):
        with open(folder / "log", "a", encoding="utf-8") as log:
            log.write(f"{i} {os.getpid()}\n")
        amid(i)
        return evaluate(i, hint)

    return evaluated


def deadly(folder: Path, block: int, times: int, plan: Plan) -> Evaluate:
    """As `noted`; the process that begins the block is killed in it, the first times."""

    def amid(i):
        if i == block and begun(folder).count(i) <= times:
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)

    return noted(folder, plan, amid)


def begun(folder: Path) -> list[int]:
    """Blocks in the order in which `noted` began them."""
    return [int(line.split()[0]) for line in (folder / "log").read_text(encoding="utf-8").splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
