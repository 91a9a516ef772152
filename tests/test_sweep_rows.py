"""The deployments of a sweep are the requests that `sim.estimate` would make of them."""

from __future__ import annotations

from collections import Counter

import jax
import numpy as np

from sim.errors import RoofcastError
from sim.request import build
from sim.sweeps.plan import plan
from sim.sweeps.rows import by_kind, combinations
from sim.sweeps.spec import ROW_AXES
from tests import sweep_cells as sweeps

NAMES = sweeps.named(
    model=("llama-3.1-8b", "gpt-oss-120b", "qwen3-next-80b-a3b"), hardware=("h100-sxm", "m3-ultra", "2x-rtx-4090"),
    engine=(None, "vllm", "mlx", "llamacpp"), weights=("native", "mlx4", "fp8"), gpus=(None, 8), tp=(None, 3, 8),
    ep=(None, 4), dp=(None, 2), replicas=(None, 2, 4), max_num_seqs=(None, 9), gpu_memory_utilization=(None, 0.5),
)  # fmt: skip


def test_rows_are_requests():
    """Every combination that a request refuses is refused for the same reason, and no other; the rest are the same."""
    found = plan(NAMES)
    where = {tuple(index): row for row, index in enumerate(found.rows.at.tolist())}
    every = list(combinations(found.spec))
    random = np.random.default_rng(0)
    some = [every[i] for i in random.choice(len(every), 700, replace=False)]
    assert len(where) + sum(found.rows.refused.values()) == len(every)
    seen: Counter[str] = Counter()
    for index, values in some:
        given = dict(zip(ROW_AXES, values, strict=True))
        open_ones = {n: v for n, v in given.items() if v is not None or n in ("engine", "kv")}
        try:
            request = build(**open_ones, concurrency=3, prompt=50, output=60)
        except RoofcastError as error:
            assert index not in where, given
            seen[error.problems[0].split("; hint:")[0]] += 1
            continue
        row = where[index]
        stacks = (found.rows.models, found.rows.devices, found.rows.engines)
        own = [jax.tree.map(lambda a, i=i: a[i], t) for t, i in zip(stacks, found.rows.which[row], strict=True)]
        numbers = {name: values[row] for name, values in found.rows.numbers.items()}
        for mine, theirs in zip(own, (request.setup.model, request.setup.device, request.setup.engine), strict=True):
            jax.tree.map(np.testing.assert_array_equal, mine, theirs)
        for name in set(numbers) - {"purchase_usd"}:
            assert numbers[name] == getattr(request.points, name)[0] or np.isnan(numbers[name]), (name, given)
    assert len(seen) > 5 and set(seen) <= set(found.rows.refused)
    assert all(found.rows.refused[reason] >= n for reason, n in seen.items())


def test_refusals_are_told_by_their_kind():
    reasons = {
        "tp: tp = 3 does not divide the 64 heads of Qwen3 32B (full attention)": 12,
        "tp: tp = 5 does not divide the 40 heads of Llama 4 Maverick (local attention)": 30,
        "weights: no engine runs mlx3 weights of Kimi K2.6 on NVIDIA H200 SXM 141GB": 7,
        "weights: no engine runs native weights of DeepSeek V4-Pro on Apple M4 Max (40-core GPU, 16-core CPU)": 8,
        "ep: ep = 4 does not divide tp·dp = 2": 1,
    }
    assert by_kind(reasons) == [
        "tp: tp = 5 does not divide the 40 heads of Llama 4 Maverick (local attention) (42 combinations like it)",
        "weights: no engine runs native weights of DeepSeek V4-Pro on Apple M4 Max (40-core GPU, 16-core CPU) "
        "(15 combinations like it)",
        "ep: ep = 4 does not divide tp·dp = 2 (1 combination)",
    ]
    refused = plan(NAMES).rows.refused
    told = by_kind(refused)
    assert len(told) < len(refused) / 4 and len(told) < 12
