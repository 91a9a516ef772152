"""Readers of llama.cpp's `llama-bench` (JSON, JSONL, CSV, Markdown) and `llama-batched-bench` (Markdown, JSONL).

Neither times tokenization or sampling. Formats: tools/llama-bench and tools/batched-bench of ggml-org/llama.cpp.
"""

from __future__ import annotations

import re
from dataclasses import replace

from sim import units
from sim.layouts import n_layers
from sim.measure import cells, names
from sim.measure.build import Figure, deployment, measurement, split
from sim.measure.checkpoints import checkpoint, gguf_model, gguf_quantization
from sim.measure.rows import Bad, Defaults, Deployment, Load, Measurement, Raw, Unusable, all_stated
from sim.schema import ModelRow

BENCH_MARKS = ("avg_ts", "n_gen")
BENCH_REQUIRED = ("avg_ts", "n_prompt", "n_gen")
GPU_BACKENDS = ("CUDA", "ROCm", "HIP", "Metal", "MTL", "Vulkan", "SYCL")
_TEST = re.compile(r"^(?:pp ?(?P<pp>\d+))?\+?(?:tg ?(?P<tg>\d+))?(?: @ d(?P<depth>\d+))?$")
_RATE = re.compile(r"[\d.]+(?:e[+-]?\d+)?")
_DEVICE = re.compile(r"^\s*Device \d+: ([^,\n]+)|GPU name: +(.+?)(?: \(.*)?$", re.MULTILINE)
_FILE = re.compile(r"(\S+\.gguf)\b")
_PARAMETERS = re.compile(r"(\w+) = (-?\d+)")


def log_facts(text: str) -> dict[str, str]:
    """What the log around a table says: devices, the model's file, parameters of a batched run."""
    found = {"gpu_info": ", ".join((a or b).strip() for a, b in _DEVICE.findall(text))}
    file = _FILE.search(text)
    header = re.search(r"^.*\bn_kv_max = .*$", text, re.MULTILINE)
    return {
        **found,
        "model_filename": file[1] if file else "",
        **dict(_PARAMETERS.findall(header[0] if header else "")),
    }


def read_markdown(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """A row of llama-bench's table: `| model | size | params | backend | ngl | ... | test | t/s |`."""
    row = raw.columns
    test, rate = _TEST.match(cells.text(row, "test")), _RATE.match(cells.text(row, "t/s"))
    if not test or not (test["pp"] or test["tg"]):
        raise Unusable("unknown test", cells.text(row, "test"))
    if not rate:
        raise Bad("not a number", f"t/s is {row.get('t/s', '')!r}", "expected a rate, as in 131.42 ± 0.59")
    params = cells.text(row, "params").split()
    factor = {"M": units.MILLION, "B": units.MILLION / units.MILLI, "T": units.TERA}.get(
        params[1] if len(params) > 1 else "", 1.0
    )
    n_params = cells.amount(params[0], "params") * factor if params else 0.0
    told = {
        "n_prompt": test["pp"] or "0", "n_gen": test["tg"] or "0", "n_depth": test["depth"] or "0", "avg_ts": rate[0],
        "model_type": cells.text(row, "model"), "n_gpu_layers": cells.text(row, "ngl", "-1"),
        "model_n_params": str(n_params), "backends": cells.text(row, "backend"),
        "split_mode": cells.text(row, "sm", "layer"),
    }  # fmt: skip
    found = read_bench(replace(raw, columns={**row, **told}), defaults)
    return [replace(m, columns=row, measured_column="t/s") for m in found]


def read_bench(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """One test: pp (a prompt at a depth), tg (generation at a depth), or pp+tg (both, from end to end)."""
    row = raw.columns
    ran, load_limits = _ran(row, defaults), _limits(row)
    rate = cells.figure(row["avg_ts"], "avg_ts")
    prompt, output, depth = (cells.amount(cells.text(row, n, "0"), n) for n in ("n_prompt", "n_gen", "n_depth"))
    if prompt and output:
        if depth:
            raise Unusable("unknown test", "prompt and generation at a depth")
        load = Load(1, prompt, output, n_requests=1.0, limits=load_limits)
        figure = Figure("avg_ts", rate, "e2e_s", scale=prompt + output, inverse=True, stat="mean")
    elif prompt:
        load = Load(1, prompt, 1.0, depth=depth, limits=load_limits)
        figure = Figure("avg_ts", rate, "prefill_s", scale=prompt, inverse=True, stat="mean")
    elif output:
        load = Load(1, max(depth, 1.0), max(output - (depth == 0), 1.0), limits=load_limits)
        figure = Figure("avg_ts", rate, "decode_step_s", scale=1.0, inverse=True, stat="mean")
    else:
        raise Unusable("unknown test", "neither a prompt nor a generation")
    return [measurement(raw, "llama-bench", "A", ran, load, figure)]


def read_batched(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """A row of llama-batched-bench: B prompts of PP tokens are processed, then B sequences generate TG tokens each.

    With a shared prompt it is processed once.
    """
    row = {**raw.columns, **_batched_names(raw.columns)}
    ran, limits = _ran(row, defaults), _limits(row)
    batch, prompt = cells.count(row["pl"], "B"), cells.figure(row["pp"], "PP")
    output = cells.amount(row["tg"], "TG")
    prompts = 1 if cells.text(row, "is_pp_shared") == "1" else batch
    at_once = Load(prompts, prompt, 1.0, limits=limits)
    columns = ("S_PP t/s", "S_TG t/s") if "S_TG t/s" in raw.columns else ("speed_pp", "speed_tg")
    prefill = Figure(columns[0], cells.figure(row["speed_pp"], columns[0]), "prefill_s", prompts * prompt, True)
    found = [measurement(raw, "llama-batched-bench", "A", ran, at_once, prefill)]
    if output:
        load = Load(batch, prompt, output, limits=limits)
        decode = Figure(columns[1], cells.figure(row["speed_tg"], columns[1]), "decode_step_s", float(batch), True)
        found.append(measurement(raw, "llama-batched-bench", "A", ran, load, decode))
    return found


def _batched_names(row: dict[str, str]) -> dict[str, str]:
    """Columns of the Markdown table under the names that the JSONL output gives them."""
    told = {"pp": "PP", "tg": "TG", "pl": "B", "speed_pp": "S_PP t/s", "speed_tg": "S_TG t/s"}
    return {name: row[title] for name, title in told.items() if title in row}


def _ran(row: dict[str, str], defaults: Defaults) -> Deployment:
    backends = cells.text(row, "backends")
    if backends and not any(name in backends for name in GPU_BACKENDS):
        raise Unusable("runs on the processor", backends)
    model, quantization, machine = all_stated(
        lambda: _model(row, defaults), lambda: _quantization(row, defaults), lambda: _machine(row, defaults)
    )
    _check_on_device(row, model)
    weights, kv = names.weights(quantization, "llamacpp", model.id), _kv(row, defaults)
    ran = split(deployment(model, machine, names.engine(defaults.engine or "llama.cpp"), weights, kv), defaults)
    if cells.text(row, "split_mode") in ("row", "tensor") and ran.pp > 1:
        raise Unusable("split by row", "llama.cpp's split by tensor rows has no forecast")
    return ran


def _model(row: dict[str, str], defaults: Defaults) -> ModelRow:
    """The file's model, else that of the command line where the file's is not known."""
    n_params = cells.amount(cells.text(row, "model_n_params", "0"), "model_n_params")
    try:
        return gguf_model(cells.text(row, "model_filename"), cells.text(row, "model_type"), n_params)
    except Unusable:
        if not defaults.model:
            raise
        return checkpoint(defaults.model)[0]


def _quantization(row: dict[str, str], defaults: Defaults) -> str:
    return defaults.weights or gguf_quantization(cells.text(row, "model_filename"), cells.text(row, "model_type"))


def _check_on_device(row: dict[str, str], model: ModelRow) -> None:
    """Raises Unusable where a part of the model or of the cache stays in host memory."""
    layers = cells.signed(cells.text(row, "n_gpu_layers", "-1"), "n_gpu_layers")
    if 0 <= layers <= n_layers(model):
        raise Unusable("layers on the host", f"{layers:g} of {n_layers(model)} layers on the device")
    if cells.text(row, "n_cpu_moe", "0") not in ("0", "0.0"):
        raise Unusable("experts on the host", f"n_cpu_moe {row['n_cpu_moe']}")
    if cells.text(row, "no_kv_offload", "0").lower() in ("1", "true"):
        raise Unusable("cache on the host", "no_kv_offload")


def _machine(row: dict[str, str], defaults: Defaults) -> str:
    """What the driver lists; what the command line states where that is nothing, or not precise enough."""
    listed = [name.strip() for name in cells.text(row, "gpu_info").split(",") if name.strip()]
    if cells.text(row, "split_mode") == "none":
        listed = listed[:1]
    try:
        return names.machine(*names.devices(listed)) if listed else names.stated_machine(defaults.hardware or "")
    except Unusable:
        if not (listed and defaults.hardware):
            raise
        return names.stated_machine(defaults.hardware)


def _kv(row: dict[str, str], defaults: Defaults) -> str:
    keys, values = cells.text(row, "type_k"), cells.text(row, "type_v")
    if keys and values and names.kv(keys) != names.kv(values):
        raise Unusable("unknown KV format", f"keys {keys}, values {values}")
    return keys or values or defaults.kv or ""


def _limits(row: dict[str, str]) -> dict[str, float]:
    stated = cells.text(row, "n_ubatch")
    return {"max_num_batched_tokens": float(cells.count(stated, "n_ubatch"))} if stated else {}
