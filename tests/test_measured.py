"""Readers of published measurements: rows become the right arguments or are refused, and the headline errors hold."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "measurements"
LOCAL = {
    "id": "a", "model": "Llama-3-8B", "quant": "Q4_K_M", "engine": "llama.cpp", "hardware": "RTX 4090",
    "n_devices": "1.0", "phase": "decode", "prompt_tokens": "0.0", "context_depth": "0.0", "output_tokens": "512.0",
    "batch": "1.0", "tokens_per_s": "100.0", "notes": "set=x; tier=A", "set": "x", "tier": "A",
}  # fmt: skip
SILICON = {
    "id": "b", "model": "openai/gpt-oss-120b", "hardware": "H100 SXM", "n_gpus": "8", "engine": "vLLM",
    "precision": "fp4", "gemm_format": "nvfp4", "moe_format": "nvfp4", "tp": "1", "attention_dp": "8", "moe_tp": "1",
    "ep": "8", "isl": "1024", "osl": "1024", "concurrency": "64.0", "tpot_ms": "10.0", "label_suspect": "False",
    "length_range": "0.8-1.0",
}  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch):
    """The module bench/measured.py, which is no part of the package."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "bench"))
    return importlib.import_module("measured")


@pytest.fixture
def validate(measured):
    """The module bench/validate.py."""
    return importlib.import_module("validate")


def test_a_local_row_becomes_a_case(measured) -> None:
    case = measured.local_case(LOCAL)
    assert (case.model, case.machine, case.engine, case.weights) == ("llama-3-8b", "RTX 4090", "llamacpp", "q4_k_m")
    assert (case.prompt, case.output, case.kv, case.measured_s) == (1, 511, "16", 0.01)


def test_llama_cpp_over_devices_is_a_layer_split_and_vllm_is_not(measured) -> None:
    split = measured.local_case({**LOCAL, "n_devices": "4.0"})
    assert (split.machine, split.tp, split.pp) == ("4x RTX 4090", 1, 4)
    tensor = measured.local_case({**LOCAL, "n_devices": "4.0", "engine": "vllm", "quant": "AWQ"})
    assert (tensor.weights, tensor.tp, tensor.pp) == ("int4_g128", 4, 1)


def test_batch_and_cache_format(measured) -> None:
    case = measured.local_case({**LOCAL, "batch": "8.0", "context_depth": "512.0", "notes": "set=x; tier=A; fp8 KV"})
    assert (case.concurrency, case.prompt, case.output, case.kv) == (8, 512, 512, "fp8")
    assert case.measured_s == pytest.approx(8 / 100)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"phase": "prefill"}, "not decode"),
        ({"notes": "set=x; tier=A; FLAG: odd"}, "flagged"),
        ({"model": "Nobody-7B"}, "unknown model"),
        ({"hardware": "RTX 2060"}, "unknown hardware"),
        ({"hardware": "M4 Max"}, "ambiguous hardware"),
        ({"quant": "UD-Q4_K_XL"}, "unknown quantization"),
        ({"quant": ""}, "unknown quantization"),
        ({"quant": "ggml_q4_k"}, "unknown quantization"),
        ({"engine": "transformers"}, "engine without profile"),
        ({"context_depth": "", "prompt_tokens": ""}, "context not stated"),
        ({"n_devices": "1.5"}, "not a whole number"),
    ],
)
def test_rows_that_cannot_be_used_say_why(measured, change: dict[str, str], reason: str) -> None:
    with pytest.raises(measured.Unusable) as refused:
        measured.local_case({**LOCAL, **change})
    assert refused.value.reason == reason


def test_bins_of_one_chip_keep_their_bandwidth(measured) -> None:
    from sim import catalog

    bandwidth = {"M3 Max 40c 64GB": 400, "M4 Max 64GB": 546, "M5 Max 128GB": 614, "M2 Ultra 76c 192GB": 800}
    for name, gb_per_s in bandwidth.items():
        case = measured.local_case({**LOCAL, "hardware": name})
        assert catalog.machine(case.machine).device.bandwidth_gb_per_s == gb_per_s


def test_a_serving_row_becomes_a_case(measured) -> None:
    case = measured.silicon_case(SILICON)
    assert (case.model, case.weights, case.kv) == ("gpt-oss-120b", "native", "8")
    assert (case.tp, case.dp, case.ep, case.concurrency) == (1, 8, 8, 64)
    assert (case.prompt, case.output, case.measured_s) == (922, 922, pytest.approx(0.01))


def test_tensorrt_llm_caches_in_fp8_where_its_weights_are(measured) -> None:
    row = {**SILICON, "engine": "TensorRT-LLM", "model": "meta-llama/Llama-3.1-70B", "gemm_format": "fp8"}
    assert measured.silicon_case({**row, "precision": "fp8"}).kv == "8"
    assert measured.silicon_case({**row, "precision": "bf16", "gemm_format": ""}).kv == "16"


def test_contradictory_parallelism_is_refused(measured) -> None:
    with pytest.raises(measured.Unusable, match="contradictory parallelism"):
        measured.silicon_case({**SILICON, "ep": "4"})


def test_scores_count_rows_without_a_forecast(validate) -> None:
    found = validate.score("s", "all", "all", np.array([0.1, -0.3, np.nan]), np.array([0.5, 0.5, 0.5]))
    assert (found.n_rows, found.n_forecast) == (3, 2)
    assert (found.median_percent, found.mean_percent, found.bias_percent) == (20.0, 20.0, -10.0)


def test_absent_files_are_named(validate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate.main(["--local", str(tmp_path / "none.gz")]) == 2
    assert "none.gz" in capsys.readouterr().err


@pytest.mark.slow
def test_headline_errors_are_within_their_limits(validate, tmp_path: Path, record_property) -> None:
    if not SHARED.is_dir():
        pytest.skip("../shared/measurements is not beside this checkout")
    local, silicon = validate.read_local(), validate.read_silicon()
    cases = [*local.cases, *silicon.cases]
    seconds, _ = validate.predict(cases)
    measured_s = np.array([case.measured_s for case in cases])
    errors = seconds / measured_s - 1
    scores = validate.all_scores(cases, errors, validate.naive_roofline(cases) / measured_s - 1)
    headline = {s.section: s for s in scores if s.by == "all" and s.section in validate.LIMITS_PERCENT}
    for section, found in headline.items():
        record_property(section, found.median_percent)
        assert not validate.missed(found), f"{section}: {found.median_percent} %"
        assert found.n_forecast > 0.95 * found.n_rows
