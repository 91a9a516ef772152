"""Made-up serving rows whose truth is known: what the kernels forecast under shifts of our own choice."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from sim.calibrate.fit import log_errors
from sim.calibrate.parameters import Parameters, parameters
from sim.calibrate.table import Table, tabulate
from sim.calibrate.written import FROM_SCRATCH
from sim.measure import Measurement, read
from sim.profiles.rows import Entry, Place

HEADER = ("id,model,hardware,n_gpus,engine,engine_version,precision,gemm_format,moe_format,tp,attention_dp,moe_tp,ep,"
          "isl,osl,concurrency,ttft_ms,tpot_ms,queued,label_suspect,length_range")  # fmt: skip
MODELS = ("Llama-3.1-8B", "Qwen3-32B", "Llama-3.3-70B")
DEVICES = ("H100 SXM", "H200")
ENGINES = ("vLLM", "SGLang")
LOADS = ((1024, 256, 2), (4096, 512, 8), (1024, 1024, 32), (512, 512, 96))
NOISE = 0.03
TRUTH: dict[tuple[Entry, Place], float] = {
    (("layer_us", ""), ("vllm", "*", "*")): 0.4,
    (("weight_bw_frac", "fp8"), ("*", "hopper", "*")): -0.5,
    (("gemm_compute_frac", "fp8"), ("sglang", "*", "*")): 0.5,
    (("gemm_compute_frac", "fp8"), ("*", "hopper", "*")): -0.6,
    (("eager_layer_us", ""), ("sglang", "*", "*")): 0.3,
    (("kv_bw_frac", ""), ("*", "h200", "*")): 0.3,
}
Values = Iterable[tuple[float, float]]


def runs(devices: Iterable[str] = DEVICES, engines: Iterable[str] = ENGINES) -> list[str]:
    """The configuration of each row, up to its load."""
    chosen = product(MODELS, devices, (2, 4), engines, LOADS)
    return [
        f"{model},{device},{tp},{engine},1.0,fp8,fp8,fp8,{tp},1,{tp},1,{isl},{osl},{users}"
        for model, device, tp, engine, (isl, osl, users) in chosen
    ]


def write(path: Path, configurations: list[str], seconds: Values) -> Path:
    """A file of rows with (TTFT, TPOT)."""
    lines = [
        f"r{n},{run},{1e3 * ttft_s:.9g},{1e3 * tpot_s:.9g},False,False,exact"
        for n, (run, (ttft_s, tpot_s)) in enumerate(zip(configurations, seconds, strict=True))
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


@functools.cache
def world(folder: Path) -> tuple[Table, Parameters, np.ndarray]:
    """(Table of every row at its true value, parameters from the priors, the true parameters)."""
    configurations = runs()
    blank = write(folder / "blank.csv", configurations, [(1e3, 1e2)] * len(configurations))
    table, lost = tabulate(read([blank]).measurements, "none")
    assert not lost
    params = parameters(table.contexts, FROM_SCRATCH, False)
    true = np.asarray([TRUTH.get((entry, place), 0.0) for entry, _, place in params.names], np.float32)
    truth = (true / params.pooling.spread).astype(np.float32)
    values = np.exp(log_errors(table, params.pooling, truth)) * table.arrays.measured
    rows = tuple(replace(row, value=float(value)) for row, value in zip(table.rows, values, strict=True))
    arrays = replace(table.arrays, measured=values.astype(np.float32))
    return replace(table, arrays=arrays, rows=rows), params, truth


def seconds_of(rows: Iterable[Measurement], factor: np.ndarray) -> list[tuple[float, float]]:
    """(TTFT, TPOT) of each run, in the order of the file; factor: (M,) on each figure."""
    by_run: dict[int, dict[str, float]] = {}
    for row, by in zip(rows, factor, strict=True):
        by_run.setdefault(row.line, {})[row.quantity] = row.value * float(by)
    return [(of["ttft_s"], of["tpot_s"]) for _, of in sorted(by_run.items())]


def noise(n: int, seed: int = 1) -> np.ndarray:
    """Factors about 1."""
    return np.exp(NOISE * np.random.default_rng(seed).standard_normal(n))
