"""Readers of published tables: rows become the right arguments or are refused for a reason."""

from __future__ import annotations

import csv
import math
import time
from collections import Counter
from pathlib import Path

import pytest

from sim import catalog
from sim.measure import Defaults, Measurement, Reading, read
from sim.measure.text import lines_of, read_text

SAMPLES = Path(__file__).parent / "samples"
LOCAL = {
    "id": "a", "model": "Llama-3-8B", "quant": "Q4_K_M", "engine": "llama.cpp", "hardware": "RTX 4090",
    "n_devices": "1.0", "phase": "decode", "prompt_tokens": "0.0", "context_depth": "0.0", "output_tokens": "512.0",
    "batch": "1.0", "tokens_per_s": "100.0", "notes": "set=x; tier=A", "set": "x", "tier": "A",
}  # fmt: skip
SILICON = {
    "id": "b", "model": "openai/gpt-oss-120b", "hardware": "H100 SXM", "n_gpus": "8", "engine": "vLLM",
    "precision": "fp4", "gemm_format": "nvfp4", "moe_format": "nvfp4", "tp": "1", "attention_dp": "8", "moe_tp": "1",
    "ep": "8", "isl": "1024", "osl": "1024", "concurrency": "64.0", "ttft_ms": "300", "tpot_ms": "10.0",
    "label_suspect": "False", "length_range": "0.8-1.0",
}  # fmt: skip
SERVING = {
    "id": "c", "model": "DeepSeek-R1", "weight_precision": "fp8", "kv_precision": "", "engine": "SGLang",
    "hardware": "H200", "n_gpus": "8.0", "tp": "8", "pp": "", "ep": "8.0", "dp": "8.0", "isl": "1024.0",
    "osl": "1024.0", "concurrency": "64", "metric": "tpot_ms", "stat": "mean", "value": "25.0",
    "notes": "dp_attention=true", "set": "imax-dsr1",
}  # fmt: skip


@pytest.fixture
def read_rows(tmp_path: Path):
    """Reads rows, each a table of SILICON's, LOCAL's or SERVING's columns with some cells changed."""

    def call(row: dict[str, str], *changes: dict[str, str], **stated) -> Reading:
        file = tmp_path / "rows.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, fieldnames=list(row))
            writer.writeheader()
            writer.writerows({**row, **change} for change in changes or ({},))
        return read([file], Defaults(**stated))

    return call


def only(found: Reading) -> Measurement:
    """The only measurement, of a reading without problems."""
    assert found.problems == [] and found.unused == []
    [one] = found.measurements
    return one


def test_a_local_row(read_rows) -> None:
    m = only(read_rows(LOCAL))
    assert m.group() == ("llama-3-8b", "rtx-4090", "llamacpp", "q4_k_m", "16", 1, 1, 1, 1)
    assert (m.quantity, m.prompt, m.output, m.value, m.n_requests) == ("decode_step_s", 1, 511, 0.01, math.inf)
    assert (m.id, m.line, m.source, m.tier, m.moe) == ("a", 2, "local:x", "A", False)


def test_llama_cpp_over_devices_is_a_layer_split_and_vllm_is_not(read_rows) -> None:
    split = only(read_rows(LOCAL, {"n_devices": "4.0"}))
    assert (split.machine, split.tp, split.pp) == ("4x rtx-4090", 1, 4)
    tensor = only(read_rows(LOCAL, {"n_devices": "4.0", "engine": "vllm", "quant": "AWQ"}))
    assert (tensor.weights, tensor.tp, tensor.pp) == ("int4_g128", 4, 1)


def test_batch_cache_format_and_token_budget(read_rows) -> None:
    change = {"batch": "8.0", "context_depth": "512.0", "notes": "set=x; tier=A; fa=1; ub=2048; fp8 KV"}
    m = only(read_rows(LOCAL, change))
    assert (m.concurrency, m.prompt, m.output, m.kv, m.limits) == (8, 512, 512, "8", {"max_num_batched_tokens": 2048})
    assert m.value == pytest.approx(8 / 100) and m.in_file_unit(m.value) == pytest.approx(100)
    assert only(read_rows(LOCAL, {"notes": "kv=kv-q8; x"})).kv == "8"


def test_prefill_and_whole_requests(read_rows) -> None:
    change = {
        "phase": "prefill",
        "prompt_tokens": "1024",
        "context_depth": "4096",
        "batch": "2",
        "tokens_per_s": "4096",
    }
    prefill = only(read_rows(LOCAL, change))
    assert (prefill.quantity, prefill.prompt, prefill.depth, prefill.value) == ("prefill_s", 1024, 4096, 0.5)
    request = {"phase": "e2e", "prompt_tokens": "1000", "output_tokens": "100", "tokens_per_s": "50"}
    assert only(read_rows(LOCAL, request)).value == pytest.approx(100 / 50)
    counted = {**request, "tokens_per_s": "550", "notes": "speed=(prompt+generated tokens)/total time"}
    assert only(read_rows(LOCAL, counted)).value == pytest.approx(1100 / 550)


def test_the_size_of_a_cache_stands_for_the_context(read_rows) -> None:
    notes = "set=guru; tier=B; n_ctx=8192; avg_kv_cache_estimated_mb=128.0; x"
    change = {"context_depth": "", "prompt_tokens": "", "output_tokens": ""}
    m = only(read_rows(LOCAL, {**change, "notes": notes}))
    assert m.prompt + m.output / 2 == 1024  # 128 KiB a token: 32 layers x 8 KV heads x 128 x 2 x 2 bytes
    cut = read_rows(LOCAL, {**change, "notes": notes.replace("8192", "512")})
    assert [u.reason for u in cut.unused] == ["context not stated"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"phase": "warmup"}, "unknown phase"),
        ({"phase": "prefill"}, "prompt length not stated"),
        ({"phase": "e2e", "prompt_tokens": ""}, "length not stated"),
        ({"notes": "set=x; tier=A; FLAG: odd"}, "flagged"),
        ({"model": "Nobody-7B"}, "unknown model"),
        ({"hardware": "RTX 2060"}, "unknown hardware"),
        ({"hardware": "M4 Max"}, "ambiguous hardware"),
        ({"quant": "UD-Q4_K_XL"}, "unknown quantization"),
        ({"quant": ""}, "weights not stated"),
        ({"quant": "", "engine": "", "model": ""}, "model, engine and weights not stated"),
        ({"quant": "ggml_q4_k"}, "unknown quantization"),
        ({"engine": "transformers"}, "engine without profile"),
        ({"context_depth": "", "prompt_tokens": ""}, "context not stated"),
        ({"n_devices": "1.5"}, "not a whole number"),
        ({"notes": "kv=kv2; x"}, "unknown KV format"),
    ],
)
def test_rows_that_cannot_be_used_say_why(read_rows, change: dict[str, str], reason: str) -> None:
    found = read_rows(LOCAL, change)
    assert ([u.reason for u in found.unused], found.problems) == ([reason], [])


def test_bins_of_one_chip_keep_their_bandwidth(read_rows) -> None:
    bandwidth = {"M3 Max 40c 64GB": 400, "M4 Max 64GB": 546, "M5 Max 128GB": 614, "M2 Ultra 76c 192GB": 800}
    for name, gb_per_s in bandwidth.items():
        m = only(read_rows(LOCAL, {"hardware": name, "tokens_per_s": "20"}))
        assert catalog.machine(m.machine).device.bandwidth_gb_per_s == gb_per_s


def test_a_closed_loop_gives_tpot_and_ttft(read_rows) -> None:
    tokens, first = sorted(read_rows(SILICON).measurements, key=lambda m: m.value)
    assert (tokens.quantity, first.quantity) == ("tpot_s", "ttft_s")
    assert tokens.group() == ("gpt-oss-120b", "8x h100-sxm", "vllm", "mxfp4", "16", 1, 1, 8, 8)
    assert (tokens.concurrency, tokens.n_requests, tokens.prompt) == (64, 640, pytest.approx(921.6))
    assert (tokens.value, first.value) == (pytest.approx(0.01), pytest.approx(0.3))
    assert tokens.line == first.line == 2 and tokens.id == first.id == "b"


def test_tensorrt_llm_caches_in_fp8_where_its_weights_are(read_rows) -> None:
    row = {**SILICON, "engine": "TensorRT-LLM", "model": "meta-llama/Llama-3.1-70B", "gemm_format": "fp8"}
    row = {**row, "tp": "8", "attention_dp": "1", "moe_format": ""}
    assert {m.kv for m in read_rows(row, {"precision": "fp8"}).measurements} == {"8"}
    plain = read_rows(row, {"precision": "bf16", "gemm_format": ""})
    assert {(m.kv, m.weights) for m in plain.measurements} == {("16", "bf16")}


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"ep": "4"}, "contradictory parallelism"), ({"label_suspect": "True"}, "label suspect"),
     ({"hardware": "4x H100 SXM"}, "contradictory parallelism"), ({"ttft_ms": "", "tpot_ms": ""}, "no figure")],
)  # fmt: skip
def test_closed_loops_that_cannot_be_used_say_why(read_rows, change: dict[str, str], reason: str) -> None:
    assert [u.reason for u in read_rows(SILICON, change).unused] == [reason]


def test_attention_data_parallelism_divides_the_group(read_rows) -> None:
    m = only(read_rows(SERVING))
    assert m.group() == ("deepseek-r1", "8x h200", "sglang", "fp8_block", "16", 1, 1, 8, 8)
    assert (m.prompt, m.n_requests, m.stat, m.tier) == (pytest.approx(921.6), 640, "mean", "A")
    assert only(read_rows(SERVING, {"hardware": "MI355X", "dp": "", "notes": ""})).n_requests == 50 * 64


def test_the_same_storage_has_one_name(read_rows) -> None:
    """A configuration of two files is one group, whatever each calls the format."""
    spelled = {"fp8": "fp8_block", "": "fp8_block", "nvfp4": "nvfp4"}
    assert {s: only(read_rows(SERVING, {"weight_precision": s})).weights for s in spelled} == spelled


def test_units_of_serving_metrics(read_rows) -> None:
    per_gpu = only(read_rows(SERVING, {"metric": "output_tok_s_per_gpu", "value": "100"}))
    assert (per_gpu.quantity, per_gpu.value, per_gpu.in_file_unit(800.0)) == ("output_tokens_per_s", 800, 100)
    assert only(read_rows(SERVING, {"metric": "e2e_s", "value": "30"})).value == 30
    static = {"set": "trtllm-0.9.0-static", "metric": "ttft_ms", "osl": "1", "concurrency": "1", "dp": "", "ep": ""}
    assert only(read_rows(SERVING, static)).quantity == "prefill_s"


def test_requests_that_are_all_queued_at_once(read_rows) -> None:
    change = {"set": "trtllm-0.17", "concurrency": "inf (max batch, KV-limited)", "isl": "128.0", "osl": "2048.0",
              "metric": "output_tok_s_total", "value": "9000", "dp": ""}  # fmt: skip
    m = only(read_rows(SERVING, change))
    assert (m.concurrency, m.n_requests, m.prompt) == (3000, 3000, 128)


def test_logged_steps(read_rows) -> None:
    step = {"set": "aic-fpm", "metric": "step_ms", "isl": "4096.0", "osl": "1.0", "concurrency": "4", "value": "15"}
    decode = only(read_rows(SERVING, {**step, "tp": "1", "notes": "pure decode step; batch=4 requests; x"}))
    assert (decode.quantity, decode.concurrency, decode.prompt, decode.output) == ("decode_step_s", 32, 4096, 1)
    prefill = {**step, "notes": "pure prefill step; 928 new tokens, 3168 cached kv tokens; x", "dp": "", "isl": "928"}
    m = only(read_rows(SERVING, {**prefill, "value": "90", "concurrency": "1"}))
    assert (m.quantity, m.prompt, m.depth) == ("prefill_s", 928, 3168)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engine": "SGLang (disagg)"}, "disaggregated"),
        ({"stat": "p99"}, "a percentile"),
        ({"notes": "LAUNCH COMMAND USES SPECULATIVE DECODING"}, "speculative decoding"),
        ({"notes": "MTP3, min-latency"}, "speculative decoding"),
        ({"concurrency": "rate=2.5"}, "open loop"),
        ({"concurrency": "production avg"}, "load not stated"),
        ({"set": "vllm-recipes", "concurrency": "988.00", "notes": "998 requests", "dp": ""}, "load not stated"),
        ({"tp": "8 (pp2) or DP16/EP"}, "parallelism not stated"),
        ({"tp": "4", "dp": ""}, "contradictory parallelism"),
        ({"isl": ""}, "length not stated"),
        ({"weight_precision": "q5"}, "unknown quantization"),
        ({"kv_precision": "fp8 (skip sliding-window layers)"}, "unknown KV format"),
        ({"notes": "hardware line 'B200 GPU (8x), AMD MI300X (8x), AMD '"}, "ambiguous hardware"),
        ({"metric": "goodput"}, "unknown metric"),
        ({"metric": "itl_ms"}, "streamed in chunks"),
    ],
)
def test_serving_rows_that_cannot_be_used_say_why(read_rows, change: dict[str, str], reason: str) -> None:
    found = read_rows(SERVING, change)
    assert ([u.reason for u in found.unused], found.problems) == ([reason], [])


@pytest.mark.parametrize(("name", "used"), [("silicon", 2), ("serving", 4), ("local", 3)])
def test_samples_of_tidy_tables(name: str, used: int) -> None:
    found = read([SAMPLES / f"{name}.csv"])
    assert len({m.line for m in found.measurements}) == used and found.problems == []
    assert used + len(found.unused) == len(lines_of((SAMPLES / f"{name}.csv").read_text().strip())) - 1


def test_llama_70b_of_nvidias_tables_is_llama_2() -> None:
    assert "llama-2-70b" in {m.model for m in read([SAMPLES / "serving.csv"]).measurements}


def test_no_row_of_the_published_sets_vanishes(shared: Path, record_property) -> None:
    files = [shared / "measurements" / f"{name}.csv.gz" for name in ("silicon", "serving", "local")]
    started = time.perf_counter()
    found = read(files)
    seconds = time.perf_counter() - started
    record_property("seconds", round(seconds, 2))
    for file in files:
        n_rows = len(lines_of(read_text(file)[0].strip())) - 1
        used = {m.line for m in found.measurements if m.file == str(file)}
        unused = Counter(u.line for u in found.unused if u.file == str(file))
        record_property(file.name, f"{len(used)} of {n_rows}")
        assert len(used) + len(unused) == n_rows and max(unused.values()) == 1 and not used & set(unused)
        assert len(used) > 0.5 * n_rows
    assert all(math.isfinite(m.value) and m.value > 0 for m in found.measurements)
    assert seconds < 10  # under 3 s on an idle machine


def test_sglang_runs_have_the_settings_of_their_scripts(read_rows) -> None:
    row = {**SILICON, "engine": "SGLang", "model": "deepseek-ai/DeepSeek-V3", "hardware": "B200", "precision": "fp4",
           "moe_format": "nvfp4", "gemm_format": "nvfp4"}  # fmt: skip
    script = {"max_num_batched_tokens": 16384, "gpu_memory_utilization": 0.85, "admission_steps": 30}
    for m in read_rows(row).measurements:
        assert (m.kv, {name: m.limits[name] for name in script}) == ("8", script)
    exact = read_rows(row, {"length_range": "exact", "hardware": "H100 SXM"}).measurements[0]
    assert (exact.kv, exact.limits["gpu_memory_utilization"]) == ("16", pytest.approx(0.59, abs=0.005))  # dp 8
    repeated = read_rows(row, {"length_range": "exact", "id": "x_gap_analysis_1"}).measurements[0]
    assert repeated.prompt == pytest.approx(921.6) and repeated.limits["length_spread"] > 0
