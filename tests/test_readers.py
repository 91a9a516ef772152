"""Readers of benchmark files: a sample of each tool's format becomes the right measurements."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from sim.measure import Defaults, Measurement, Reading, read

SAMPLES = Path(__file__).parent / "samples"
LLAMA = "llama-3.1-8b"


def sample(name: str, **stated) -> Reading:
    """What is read from a sample; nothing in it is a problem."""
    found = read([SAMPLES / name], Defaults(**stated))
    assert found.problems == []
    return found


def only(found: Reading, quantity: str, line: int) -> Measurement:
    """The one measurement of a quantity in a line."""
    [one] = [m for m in found.measurements if (m.quantity, m.line) == (quantity, line)]
    stated = one.columns[one.measured_column].split()[0]  # "7340.20 ± 23.45"
    assert one.in_file_unit(one.value) == pytest.approx(float(stated))
    return one


def ran(m: Measurement) -> tuple:
    """What ran, in short."""
    return m.model, m.machine, m.engine, m.weights, m.kv


@pytest.mark.parametrize(("name", "first"), [("llama-bench.json", 1), ("llama-bench.csv", 2)])
def test_llama_bench(name: str, first: int) -> None:
    found = sample(name)
    assert len(found.measurements) == 2 and found.unused == []
    prefill, decode = only(found, "prefill_s", first), only(found, "decode_step_s", first + 1)
    assert ran(prefill) == ("qwen2.5-7b", "rtx-4080", "llamacpp", "q4_k_m", "16")
    assert (prefill.prompt, prefill.depth, prefill.concurrency) == (512, 0, 1)
    assert prefill.value == pytest.approx(0.0721, rel=0.03)
    assert (decode.prompt, decode.output) == (1, 127)
    assert decode.value == pytest.approx(1 / 119, rel=0.01)
    assert decode.limits == {"max_num_batched_tokens": 512}
    assert (decode.stat, decode.tier, decode.source) == ("mean", "A", "llama-bench")


def test_llama_bench_jsonl_over_two_devices_with_a_quantized_cache() -> None:
    found = sample("llama-bench.jsonl")
    decode, whole = only(found, "decode_step_s", 1), only(found, "e2e_s", 2)
    assert ran(decode) == ("llama-3-70b", "2x rtx-3090", "llamacpp", "q4_k_m", "8")
    assert (decode.tp, decode.pp) == (1, 2)
    assert (decode.prompt, decode.output) == (4096, 128)
    assert whole.value == pytest.approx((1024 + 128) / 115.2)
    assert (whole.prompt, whole.output, whole.n_requests) == (1024, 128, 1)


def test_llama_bench_markdown_amid_its_log() -> None:
    found = sample("llama-bench.md")
    assert [m.line for m in found.measurements] == [7, 8, 9, 10, 11]
    assert [m.quantity for m in found.measurements] == [
        "prefill_s", "decode_step_s", "prefill_s", "decode_step_s", "e2e_s",
    ]  # fmt: skip
    assert {ran(m) for m in found.measurements} == {("qwen2.5-7b", "rtx-4080", "llamacpp", "q4_k_m", "16")}
    at_depth, decode_at_depth = found.measurements[2:4]
    assert (at_depth.prompt, at_depth.depth) == (512, 512)
    assert (decode_at_depth.prompt, decode_at_depth.output) == (512, 128)
    assert found.measurements[0].in_file_unit(found.measurements[0].value) == pytest.approx(7340.2)
    assert found.measurements[0].measured_column == "t/s"
    assert [(u.line, u.reason) for u in found.unused] == [(12, "layers on the host")]


def test_llama_batched_bench_times_prompts_and_steps_of_a_batch() -> None:
    found = sample("llama-batched-bench.md")
    assert len(found.measurements) == 4
    prefill, decode = only(found, "prefill_s", 9), only(found, "decode_step_s", 9)
    assert ran(decode) == ("gpt-oss-20b", "gb10", "llamacpp", "mxfp4_moe", "16")
    assert (prefill.concurrency, prefill.prompt) == (8, 512)
    assert prefill.value == pytest.approx(1.060, rel=1e-3)
    assert (decode.concurrency, decode.prompt, decode.output) == (8, 512, 32)
    assert decode.value == pytest.approx(0.918 / 32, rel=1e-3)
    assert decode.limits == {"max_num_batched_tokens": 2048}


def test_llama_batched_bench_jsonl_with_a_shared_prompt() -> None:
    found = sample("llama-batched-bench.jsonl", model=LLAMA, hardware="rtx-4090", weights="q4_k_m")
    prefill, decode = only(found, "prefill_s", 1), only(found, "decode_step_s", 1)
    assert (prefill.concurrency, decode.concurrency) == (1, 4)
    assert (prefill.value, decode.value) == (pytest.approx(0.029), pytest.approx(1.1 / 128))


def test_vllm_bench_serve() -> None:
    found = sample("vllm-serve.json", hardware="a100-sxm-80")
    tpot, first = only(found, "tpot_s", 1), only(found, "ttft_s", 1)
    assert ran(tpot) == (LLAMA, "a100-sxm-80", "vllm", "bf16", "16")
    assert (tpot.concurrency, tpot.prompt, tpot.output, tpot.n_requests) == (32, 1024, 256, 320)
    assert (tpot.value, first.value) == (pytest.approx(0.0324), pytest.approx(0.4112))
    assert (tpot.stat, tpot.measured_column) == ("mean", "mean_tpot_ms")
    assert only(found, "output_tokens_per_s", 1).value == pytest.approx(937.3)
    assert len(found.measurements) == 5  # no percentile, no e2e latency


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"request_rate": 4.0}, "open loop"),
        ({"spec_decode_acceptance_rate": 0.7}, "speculative decoding"),
        ({"failed": 100}, "requests failed"),
        ({"model_id": "nobody/Nothing-7B"}, "unknown model"),
        ({"completed": 0}, "not positive"),
    ],
)
def test_runs_that_are_no_closed_loop_are_not_used(tmp_path: Path, change: dict, reason: str) -> None:
    run = json.loads((SAMPLES / "vllm-serve.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps({**run, **change}))
    found = read([tmp_path / "x.json"], Defaults(hardware="a100-sxm-80"))
    assert (found.measurements, [u.reason for u in found.unused]) == ([], [reason])


def test_what_is_not_stated_is_asked_for() -> None:
    found = sample("vllm-serve.json")
    assert [(u.reason, "--hardware" in u.detail) for u in found.unused] == [("hardware not stated", True)]
    latency = sample("vllm-latency.json", model=LLAMA, hardware="h100", concurrency=4)
    assert [u.reason for u in latency.unused] == ["prompt and output not stated"]


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("vllm-latency.json", "--model, --hardware, --concurrency, --prompt and --output",
         "model, hardware, concurrency, prompt and output not stated"),
        ("vllm-throughput.json", "--model, --hardware and --output", "model, hardware and output not stated"),
        ("aiperf.json", "--hardware and --engine", "hardware and engine not stated"),
        ("mlx-lm.txt", "--model and --hardware", "model and hardware not stated"),
        ("llama-batched-bench.md", "--model, --weights and --hardware", "model, weights and hardware not stated"),
    ],
)  # fmt: skip
def test_all_that_is_missing_is_named_at_once(tmp_path: Path, name: str, options: str, reason: str) -> None:
    text = (SAMPLES / name).read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]  # without the log, which names the file
    (tmp_path / "x").write_text("\n".join(table) if name.endswith(".md") else text)
    found = read([tmp_path / "x"])
    assert found.measurements == [] and found.problems == []
    assert {(u.reason, u.detail) for u in found.unused} == {(reason, f"state them with {options}")}


def test_a_name_that_the_file_gives_and_nobody_knows_is_told_with_the_rest(tmp_path: Path) -> None:
    run = json.loads((SAMPLES / "vllm-serve.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps({**run, "model_id": "served-alias"}))
    [why] = read([tmp_path / "x.json"]).unused
    assert why.reason == "unknown model; hardware not stated"
    assert why.detail == "served-alias: state them with --model and --hardware"


def test_parallelism_comes_from_the_metadata_or_fills_the_machine(tmp_path: Path) -> None:
    run = json.loads((SAMPLES / "vllm-serve.json").read_text())
    del run["tensor_parallel_size"]
    (tmp_path / "x.json").write_text(json.dumps(run) + "\n" + json.dumps({**run, "tp": "2", "mean_tpot_ms": 40.0}))
    found = read([tmp_path / "x.json"], Defaults(hardware="4x a100-sxm-80"))
    assert [(m.line, m.tp) for m in found.measurements if m.quantity == "tpot_s"] == [(1, 4), (2, 2)]


def test_vllm_bench_latency_and_throughput() -> None:
    latency = sample("vllm-latency.json", model=LLAMA, hardware="h100", concurrency=8, prompt=1024, output=256)
    whole = only(latency, "e2e_s", 1)
    assert (whole.value, whole.concurrency, whole.n_requests) == (2.6542, 8, 8)
    rate = only(sample("vllm-throughput.json", model=LLAMA, hardware="h100", output=128), "total_tokens_per_s", 1)
    assert (rate.value, rate.prompt, rate.output, rate.n_requests) == (10000, 512, 128, 1000)


def test_sglang_bench_serving() -> None:
    found = sample("sglang.jsonl", hardware="8x b200")
    tpot = only(found, "tpot_s", 1)
    assert ran(tpot) == ("qwen3-235b-a22b-2507", "8x b200", "sglang", "bf16", "16")
    assert (tpot.tp, tpot.dp, tpot.concurrency, tpot.n_requests) == (8, 1, 16, 80)
    assert (tpot.prompt, tpot.output) == (pytest.approx(495.85), pytest.approx(509.0625))
    assert tpot.limits["max_num_batched_tokens"] == 16384 and tpot.limits["gpu_memory_utilization"] == 0.85
    assert only(found, "e2e_s", 1).value == pytest.approx(10.9113)
    assert [(u.line, u.reason) for u in found.unused] == [(2, "model not stated")]
    at_a_rate = sample("sglang.jsonl", hardware="8x b200", model="qwen3-235b-a22b-2507")
    assert [(u.line, u.reason) for u in at_a_rate.unused] == [(2, "open loop")]


def test_sglang_attention_data_parallelism_and_speculation(tmp_path: Path) -> None:
    run = json.loads((SAMPLES / "sglang.jsonl").read_text().splitlines()[0])
    server = {**run["server_info"], "enable_dp_attention": True, "dp_size": 4, "ep_size": 8, "quantization": "fp8"}
    guessed = {**run, "server_info": server, "accept_length": 2.5}
    (tmp_path / "x.jsonl").write_text(json.dumps({**run, "server_info": server}) + "\n" + json.dumps(guessed) + "\n")
    for hardware in ("8x b200", "b200"):
        found = read([tmp_path / "x.jsonl"], Defaults(hardware=hardware))
        first = found.measurements[0]
        assert (first.tp, first.dp, first.ep, first.weights, first.machine) == (2, 4, 8, "fp8", "8x b200")
    assert [u.reason for u in found.unused] == ["speculative decoding"]


def test_guidellm() -> None:
    found = sample("guidellm.json", hardware="l40s", engine="vllm")
    tpot = only(found, "tpot_s", 1)
    assert ran(tpot) == (LLAMA, "l40s", "vllm", "fp8", "16")
    assert (tpot.measured_column, tpot.value) == ("metrics.inter_token_latency_ms.successful.mean", 0.0109)
    assert (tpot.concurrency, tpot.prompt, tpot.output, tpot.n_requests) == (8, 1001, 250, 160)
    assert only(found, "e2e_s", 1).value == pytest.approx(2.79)
    assert [(u.line, u.reason) for u in found.unused] == [(2, "open loop")]


def test_aiperf_and_genai_perf() -> None:
    tpot = only(sample("aiperf.json", hardware="rtx-6000-ada", engine="vllm"), "tpot_s", 1)
    assert ran(tpot) == ("gpt-oss-20b", "rtx-6000-ada", "vllm", "mxfp4", "16")
    assert (tpot.value, tpot.concurrency, tpot.prompt, tpot.n_requests) == (pytest.approx(0.05176), 100, 550, 200)
    older = sample("genai-perf.json", hardware="2x h100", engine="trtllm", weights="fp8", kv="fp8")
    first = only(older, "ttft_s", 1)
    assert ran(first) == ("llama-3.3-70b", "2x h100-sxm", "trtllm", "fp8", "8")
    assert (first.tp, first.concurrency, first.value) == (2, 1, pytest.approx(0.40677))


def test_mlx_lm_benchmark() -> None:
    found = sample("mlx-lm.txt", model="mlx-community/Qwen3-8B-4bit", hardware="M4 Max 64GB")
    prefill, decode = only(found, "prefill_s", 5), only(found, "decode_step_s", 5)
    assert ran(decode) == ("qwen3-8b", "m4-max-40-64gb", "mlx", "mlx4", "16")
    assert (prefill.value, decode.value) == (pytest.approx(2048 / 1119.171), pytest.approx(1 / 77.406))
    assert (decode.prompt, decode.output, prefill.prompt) == (2048, 128, 2048)


def test_every_sample_is_documented_and_every_measurement_goes_back_into_its_column() -> None:
    stated = Defaults(model=LLAMA, hardware="8x b200", engine="vllm", concurrency=8, prompt=512, output=128)
    files = [path for path in SAMPLES.iterdir() if path.name != "README.md"]
    assert {path.name for path in files} <= {name for name in (SAMPLES / "README.md").read_text().split("`")}
    for m in read(files, stated).measurements:
        assert math.isfinite(m.value) and m.value > 0
        assert m.in_file_unit(m.value) == pytest.approx(float(m.columns[m.measured_column].split()[0]))
        assert m.group()[:3] == (m.model, m.machine, m.engine)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("llama 7B mostly Q4_0 |   3.56 GiB |     6.74 B", ("llama-2-7b", "q4_0")),
        ("llama 8B Q4_K - Medium |   4.58 GiB |     8.03 B", (LLAMA, "q4_k_m")),
        ("llama 70B Q2_K - Medium | 24.56 GiB |    70.55 B", ("llama-3.1-70b", "q2_k")),
        ("qwen3moe 30B.A3B Q4_K - Medium | 17.28 GiB | 30.53 B", ("qwen3-30b-a3b", "q4_k_m")),
        ("gpt-oss 20B MXFP4 MoE | 11.27 GiB | 20.91 B", ("gpt-oss-20b", "mxfp4_moe")),
        ("gemma3 4B IQ4_XS - 4.25 bpw | 2.11 GiB | 3.88 B", ("gemma-3-4b", "iq4_xs")),
        ("llama 13B F16 | 24.2 GiB | 13.02 B", ("llama-2-13b", "fp16")),
    ],
)
def test_names_that_llama_cpp_gives_its_files(tmp_path: Path, told: str, expected: tuple[str, str]) -> None:
    table = f"| model | size | params | backend | ngl | test | t/s |\n|---|---|---|---|---|---|---|\n| {told} "
    (tmp_path / "x.md").write_text(table + "| CUDA | 99 | tg 128 | 5.19 ± 0.55 |\n")
    [m] = read([tmp_path / "x.md"], Defaults(hardware="h100")).measurements
    assert (m.model, m.weights) == expected


def test_a_name_of_ones_own_is_told_by_the_command_line(tmp_path: Path) -> None:
    run = json.loads((SAMPLES / "llama-bench.json").read_text())[1]
    own = {**run, "model_filename": "tuned.gguf", "model_type": "mine 7B Q8_0", "avg_ts": 50}
    (tmp_path / "x.json").write_text(json.dumps([own, {**own, "backends": "BLAS"}, {**own, "type_v": "q8_0"}]))
    assert read([tmp_path / "x.json"]).unused[0].reason == "unknown model"
    found = read([tmp_path / "x.json"], Defaults(model="Qwen/Qwen2.5-7B-Instruct"))
    assert [(m.model, m.weights) for m in found.measurements] == [("qwen2.5-7b", "q8_0")]
    assert [u.reason for u in found.unused] == ["runs on the processor", "unknown KV format"]


def test_the_median_first_token_is_not_of_the_requests_that_opened_the_run(tmp_path: Path) -> None:
    run = json.loads((SAMPLES / "vllm-serve.json").read_text())
    del run["mean_ttft_ms"]
    (tmp_path / "x.json").write_text(json.dumps(run))
    found = read([tmp_path / "x.json"], Defaults(hardware="a100-sxm-80"))
    first, tpot = only(found, "ttft_s", 1), only(found, "tpot_s", 1)
    assert (first.stat, first.n_requests, tpot.n_requests) == ("median", math.inf, 320)
