"""A sweep's answers with round figures, so that its tables and pictures are tested without the kernels."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np

from sim.results import Result
from sim.sweeps.spec import Spec

MACHINES = {"h100-sxm": (1.0, 3.0), "m3-ultra-512gb": (0.2, 0.3), "rtx-4090": (0.4, 0.4)}
SIZES = {"moe-a": 8.0, "dense-b": 30.0, "dense-c": 70.0}
LEVELS = (1, 4, 16, 64, 256, 1024, 4096)


def sweep_spec(**given: Any) -> Spec:
    """Three models on three machines over concurrency."""
    basis: dict[str, Any] = {
        "name": "Models over users", "model": tuple(SIZES), "hardware": tuple(MACHINES), "gpus": (1, 8),
        "concurrency": LEVELS, "limits": {"tpot_s": 0.1}, "minimize": ("usd_per_mtok", "tpot_s"),
        "by": ("model", "concurrency"), "top": 5,
    }  # fmt: skip
    return Spec(**basis | given)


def figures(model: str, hardware: str, users: int) -> dict[str, Any]:
    """Made up, and of the right kind: bandwidth by size, a time a user, a price an hour."""
    speed, price = MACHINES[hardware]
    tpot_s = SIZES[model] / 3000 / speed + users * 5e-5 / speed
    rate = users / tpot_s
    return {
        "model": model, "weights": "fp8", "kv": "16", "hardware": hardware, "engine": "vllm", "n_gpus": 1, "tp": 1,
        "pp": 1, "ep": 1, "dp": 1, "replicas": 1, "prompt_tokens": 512, "output_tokens": 128, "context_tokens": 640,
        "concurrency": users, "ttft_s": 20 * tpot_s, "tpot_s": tpot_s, "user_tokens_per_s": 1 / tpot_s,
        "output_tokens_per_s": rate, "joules_per_token": 700 / rate, "usd_per_hour": price,
        "usd_per_mtok": price / 3600 / rate * 1e6,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> Result:
    """Rows as a Result."""
    names = list(rows[0]) if rows else list(figures("moe-a", "h100-sxm", 1))
    return Result({name: np.array([row[name] for row in rows]) for name in names}, dict.fromkeys(names, "1"))


def sweep_answer(spec: Spec | None = None, **more: Any) -> Any:
    """What `sim.sweep` returns: fewer rows where a limit on tpot_s is missed."""
    spec = spec or sweep_spec()
    every = [figures(m, h, c) for m in spec.model for h in spec.hardware for c in spec.concurrency]
    kept = [row for row in every if row["tpot_s"] <= spec.limits.get("tpot_s", np.inf)]
    best: dict[Any, dict[str, Any]] = {}
    for objective in spec.minimize:
        for row in sorted(kept, key=lambda row: row[objective]):
            best.setdefault((objective, *(row[name] for name in spec.by)), {"objective": objective, **row})
    goals = [tuple(row[name] for name in spec.minimize) for row in kept]
    worse = [any(all(a <= b for a, b in zip(o, g, strict=True)) and o != g for o in goals) for g in goals]
    front = [row for row, out in zip(kept, worse, strict=True) if not out]
    missed = len(every) - len(kept)
    reasons = [("tpot_s", missed, missed / len(every), missed), ("weights", 2, 2 / len(every), 0)]
    failures = [dict(zip(("reason", "cells", "share", "alone"), row, strict=True)) for row in reasons]
    refused = Counter({"MLX does not run on NVIDIA H100 SXM": 7})
    rows = SimpleNamespace(refused=refused, notes=("prices: made up",))
    plan = SimpleNamespace(spec=spec, rows=rows, n_rows=len(every) // len(LEVELS), n_cells=len(every), blocks=(1, 2))
    more = {"stored": 0, "crossovers": None, "sensitivities": None, "verified": None} | more
    return SimpleNamespace(
        plan=plan, best=table(list(best.values())), front=table(front), failures=table(failures), seconds=0.5,
        top=table(sorted(kept, key=lambda row: row["usd_per_mtok"])[: spec.top]), compile_s=3.0, **more,
    )  # fmt: skip
