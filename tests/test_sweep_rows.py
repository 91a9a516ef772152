"""The deployments of a sweep are the requests that `sim.estimate` would make of them."""

from __future__ import annotations

import json
from collections import Counter

import jax
import numpy as np
import pytest

from sim.errors import RoofcastError
from sim.request import build
from sim.sweeps.plan import plan
from sim.sweeps.rows import by_kind, combinations
from sim.sweeps.spec import ROW_AXES, Spec
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


def mixed(**changes) -> list[str]:
    """Notes on prices of a sweep over a device with a known rent and one without."""
    asked = {"name": "prices", "model": ("gpt-oss-20b",), "hardware": ("h100-sxm", "a100-pcie-40")}
    return [note for note in plan(Spec(**asked | changes)).rows.notes if note.startswith("price: ")]


def test_rent_and_purchase_in_one_ranking_are_told():
    (note,) = mixed()
    assert "not alike: rent of NVIDIA H100 SXM 80GB, purchase over 4 years and electricity of NVIDIA A100 PCIe" in note
    assert mixed(pay="rent") == mixed(pay="buy") == mixed(usd_per_gpu_hour=(2.0,)) == []
    assert mixed(hardware=("h100-sxm", "h200")) == []


def test_the_note_on_mixed_prices_follows_the_tables(run, tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('name = "x"\n[axes]\nmodel = "gpt-oss-20b"\nhardware = ["h100-sxm", "a100-pcie-40"]\n')
    said = "price: costs compared here are not alike"
    with jax.numpy_rank_promotion("allow"):
        assert said in run("sweep", str(path))[2] and said in run("sweep", str(path), "--format", "csv")[2]
        notes = json.loads(run("sweep", str(path), "--format", "json")[1])["notes"]
    assert any(note.startswith(said) for note in notes)


def test_combinations_are_counted_before_they_are_built():
    counts = tuple(range(1, 65))
    spec = Spec(name="x", model=("gpt-oss-20b", "qwen3-8b"), hardware=("h100",), gpus=counts, tp=counts, dp=counts * 6)
    with pytest.raises(RoofcastError) as error:
        plan(spec)
    said = "axes: 3,145,728 combinations are to be built one by one, of at most 3,000,000: dp 384 x gpus 64 x tp 64"
    assert str(error.value) == f"{said} x model 2; hint: give dp or gpus fewer values"


def test_building_says_how_far_it_is():
    told: list[tuple[str, int, int]] = []
    counts = tuple(range(1, 65))
    spec = Spec(name="x", model=("gpt-oss-20b",), hardware=("h100",), gpus=counts, tp=counts, pp=(1, 2))
    plan(spec, lambda *line: told.append(line))
    assert told == [("deployments", 0, 8192), ("deployments", 4096, 8192)]
