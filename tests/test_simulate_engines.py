"""`sim.simulate`: what is particular to an engine."""

from __future__ import annotations

from pathlib import Path

import sim
from tests.test_simulate import DEPLOYMENT, ONE, Run, scenario


def test_tensorrt_llm_reserves_or_evicts(tmp_path: Path, run: Run) -> None:
    """GUARANTEED_NO_EVICT never preempts, and holds fewer at once than MAX_UTILIZATION; other engines have neither."""
    few = {**DEPLOYMENT, "engine": "trtllm", "kv_blocks": 60, "capacity_scheduler_policy": "GUARANTEED_NO_EVICT"}
    both = [{**few, "label": "reserves"}, {**few, "label": "evicts", "capacity_scheduler_policy": "MAX_UTILIZATION"}]
    traffic = {"requests_per_s": 50.0, "n_requests": 80, "prompt": {"tokens": 200}, "output": {"tokens": 120}}
    found = sim.simulate(scenario(tmp_path / "x.toml", traffic, *both)).results
    reserves, evicts = (found[label].rows()[0] for label in ("reserves", "evicts"))
    assert reserves["n_preemptions"] == 0 < evicts["n_preemptions"]
    assert reserves["running_mean"] < evicts["running_mean"]
    code, _, errors = run("simulate", str(scenario(tmp_path / "y.toml", traffic, {**few, "engine": "vllm"})))
    assert code == 2
    assert "capacity_scheduler_policy: vLLM has no such setting" in errors


def test_vllm_leaves_a_watermark_of_blocks_free(tmp_path: Path, run: Run) -> None:
    """Admission that keeps blocks free starts fewer at once, and preempts less; other engines have none."""
    few = {**DEPLOYMENT, "kv_blocks": 64}
    both = [{**few, "label": "none"}, {**few, "label": "half", "watermark": 0.5}]
    traffic = {"requests_per_s": 50.0, "n_requests": 80, "prompt": {"tokens": 200}, "output": {"tokens": 120}}
    found = sim.simulate(scenario(tmp_path / "x.toml", traffic, *both))
    assert [runs[0].served.rules.watermark_blocks for runs in found.runs.values()] == [0, 32]
    none, half = (found.results[label].rows()[0] for label in ("none", "half"))
    assert half["n_preemptions"] < none["n_preemptions"] and half["running_mean"] < none["running_mean"]
    path = scenario(tmp_path / "y.toml", traffic, {**few, "engine": "sglang", "watermark": 0.1})
    code, _, errors = run("simulate", str(path))
    assert code == 2 and 'watermark: SGLang has no such setting; hint: take engine = "vllm"' in errors
    for share in (-0.1, 1.0):
        code, _, errors = run("simulate", str(scenario(tmp_path / "z.toml", traffic, {**few, "watermark": share})))
        assert code == 2 and "watermark: expected " in errors


def test_a_block_that_is_the_engines_own_serves_nobody(tmp_path: Path, run: Run) -> None:
    """vLLM's null block is not for requests: one block in all is said to be too few, not divided by."""
    code, out, errors = run("simulate", str(scenario(tmp_path / "x.toml", ONE, {**DEPLOYMENT, "kv_blocks": 1})))
    assert code == 1
    assert "kv_blocks: 1 leaves no block for requests, since vLLM" in out
    assert "Traceback" not in errors
