"""The event simulator against servers that were measured; skipped where those are not beside the checkout."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from sim.measure import Measurement, read
from sim.request import build
from sim.serving.deployment import served
from sim.serving.lanes import Lane, serve
from tests.replays import closed_loop, e2e_s, tpot_s, ttft_s

N_RUNS = 300  # of the closed-loop runs; all 1,643 give TTFT 15.1 % and TPOT 5.5 %
# Hardware of the per-request file, its catalogue id, and the KV blocks that the server reported. The second card is
# the server edition, whose kernels the same project profiled.
SERVERS = [("RTX4090", "rtx-4090", 2588), ("RTXPRO6000", "rtx-pro-6000-se", None)]


@pytest.mark.parametrize(("name", "hardware", "kv_blocks"), SERVERS)
def test_300_requests_of_a_trace(shared: Path, name: str, hardware: str, kv_blocks: int | None) -> None:
    """vLLM 0.19, Llama 3.1 8B: means of TTFT within 15 %, of TPOT and E2E within 6 %, 99th percentiles within 20 %."""
    with (shared / "measurements/per_request/vllm019_llama31_8b.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["hardware"] == name]
    column = {
        key: np.array([float(row[key]) for row in rows]) for key in rows[0] if key.endswith(("_s", "_ms", "_toks"))
    }
    order = np.argsort(column["arrival_s"], kind="stable")
    column = {key: values[order] for key, values in column.items()}
    request = build(
        "llama-3.1-8b", hardware, engine="vllm", weights="bf16", kv=None, concurrency=1, prompt=858, output=653,
        kv_blocks=kv_blocks, max_num_seqs=128, max_num_batched_tokens=2048,
    )  # fmt: skip
    found = served(request)
    prompt, output = (column[key].astype(int) for key in ("input_toks", "output_toks"))
    lane = Lane(found.table, found.rules, column["arrival_s"], prompt, output)
    (outcome,) = serve([lane])
    measured = {
        "ttft": column["first_token_s"] - column["arrival_s"],
        "tpot": column["tpot_ms"] / 1e3,
        "e2e": column["last_token_s"] - column["arrival_s"],
    }
    forecast = {"ttft": ttft_s(found, outcome), "tpot": tpot_s(lane, outcome), "e2e": e2e_s(found, outcome)}
    for metric, most in (("ttft", 0.15), ("tpot", 0.06), ("e2e", 0.06)):
        known = ~np.isnan(forecast[metric])
        mean = forecast[metric][known].mean() / measured[metric][known].mean() - 1.0
        p99 = np.percentile(forecast[metric][known], 99) / np.percentile(measured[metric][known], 99) - 1.0
        print(f"{name} {metric}: mean {mean:+.1%}, p99 {p99:+.1%}")
        assert abs(mean) <= most
        assert abs(p99) <= 0.20
    assert (outcome.n_preemptions.sum() > 0) == (kv_blocks is not None)


def test_closed_loop_runs(shared: Path) -> None:
    """Runs of vLLM, SGLang and TensorRT-LLM on data-center GPUs, queued ones included: medians of TTFT and TPOT."""
    by_run: dict[int, dict[str, Measurement]] = {}
    for row in read([shared / "measurements/silicon.csv.gz"]).measurements:
        by_run.setdefault(row.line, {})[row.quantity] = row
    both = [run for run in by_run.values() if {"ttft_s", "tpot_s"} <= run.keys()]
    drawn = [both[i] for i in np.random.default_rng(0).permutation(len(both))[:N_RUNS]]
    replayed = [closed_loop(run["ttft_s"]) for run in drawn]
    outcomes = serve([lane for _, lane in replayed])
    errors = np.array([
        [
            ttft_s(found, outcome).mean() / run["ttft_s"].value - 1.0,
            tpot_s(lane, outcome).mean() / run["tpot_s"].value - 1.0,
        ]
        for run, (found, lane), outcome in zip(drawn, replayed, outcomes, strict=True)
    ])  # fmt: skip
    assert all(outcome.complete for outcome in outcomes)
    ttft, tpot = np.median(np.abs(errors), axis=0)
    print(f"median errors: TTFT {ttft:.1%}, TPOT {tpot:.1%}")
    assert ttft <= 0.18
    assert tpot <= 0.07
