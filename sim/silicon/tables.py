"""The installed kernel tables, as samples in SI units. No jax here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim.errors import RoofcastError, sentence
from sim.units import MILLI

PACKAGE = "aiconfigurator-core"
DEVICES = {
    "a100_sxm": "a100-sxm-80",
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200",
    "b200_sxm": "b200",
    "b300_sxm": "b300",
    "gb200": "gb200",
    "gb300": "gb300",
    "l40s": "l40s",
    "rtx_pro_6000_server": "rtx-pro-6000-se",
}
ENGINES = ("vllm", "sglang", "trtllm")
KERNELS = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "nvfp4": "fp4",
    "w4a16_mxfp4": "fp4",
    "w4a8_mxfp4_mxfp8": "fp4",
    "sq": "int8",
    "int4_wo": "int4",
}
WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5625, "int4": 0.53}
MODULE_ENTRIES = 2**17  # of a module, beyond which its cache, not its kernels' floors, takes the time
REDUCED_BYTES = 2.0  # the tables count elements of an all-reduce
MODULES = {"deepseek-ai/DeepSeek-V3": "deepseek-v3", "deepseek-ai/DeepSeek-V3.2": "deepseek-v3.2",
           "zai-org/GLM-5": "glm-5", "zai-org/GLM-5-FP8": "glm-5"}  # fmt: skip
SLOWEST = 1.8  # times the quickest table
EAGER_GEMM_S = 1e-5  # no GEMM in a captured graph takes as long at least
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Timings of one kind of kernel. `sizes` by name, all of one length: tokens, n, k, heads, ranks, ... or bytes."""

    device: str
    engine: str
    group: str
    kernel: str  # of the weights
    narrow_kv: bool
    model: str  # whose layer was timed, of a module
    sizes: Columns
    seconds: np.ndarray

    def __len__(self) -> int:
        return len(self.seconds)


def tables_root() -> Path:
    """Folder of the installed tables; RoofcastError where the package is absent."""
    spec = importlib.util.find_spec("aiconfigurator_core")
    places = list(spec.submodule_search_locations or ()) if spec else []
    root = Path(places[0]) / "systems" / "data" if places else None
    if root is None or not root.is_dir() or importlib.util.find_spec("pyarrow") is None:
        what = f"the measured kernels of {PACKAGE} are not installed"
        raise RoofcastError(sentence(what, "silicon", "pip install 'roofcast[silicon]'"))
    return root


def version() -> str:
    """The package and its release, for the source of what is fitted to it."""
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"


def read(root: Path, device: str) -> list[Samples]:
    """All samples of one device (its id in the catalogue), of every engine; tables launched one by one are left out."""
    folder = next((root / theirs for theirs, ours in DEVICES.items() if ours == device), None)
    if folder is None or not folder.is_dir():
        raise RoofcastError(
            sentence(f"{PACKAGE} has no tables of {device}", "silicon", f"has {', '.join(DEVICES.values())}")
        )
    found = [
        s for engine in ENGINES for kind, reader in READERS.items() for s in _read(folder, device, engine, kind, reader)
    ]
    return _captured([s for s in found if len(s)])


def _read(folder: Path, device: str, engine: str, kind: str, reader: Callable) -> list[Samples]:
    """Samples of the newest table of one kind."""
    import pyarrow.parquet

    files = sorted(folder.glob(f"*/{engine}/*/{kind}_perf.parquet"), key=lambda path: _release(path.parent.name))
    if not files:
        return []
    table = pyarrow.parquet.read_table(files[-1])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return [_quickest(Samples(device, engine, **part)) for part in reader(columns)]


def _quickest(samples: Samples) -> Samples:
    """One timing of each size: the kernel an engine would choose, where it has several."""
    order = np.argsort(samples.seconds, kind="stable")
    table = np.stack([value[order] for value in samples.sizes.values()], axis=1)
    _, first = np.unique(table, axis=0, return_index=True)
    rows = order[first]
    return replace(samples, sizes={n: v[rows] for n, v in samples.sizes.items()}, seconds=samples.seconds[rows])


def _release(name: str) -> list[int]:
    """Sort key of a release, such as 1.3.0rc20."""
    digits = "".join(c if c.isdigit() else " " for c in name.replace("post", " "))
    return [int(part) for part in digits.split()]


def _captured(samples: list[Samples]) -> list[Samples]:
    """Those whose small and whose usual kernels take about as long as the quickest table's of the same weights: others
    wait for their launches, or no engine would choose them.
    """
    marks = {id(s): np.quantile(s.seconds, (0.01, 0.5)) for s in samples}
    best: dict[tuple, np.ndarray] = {}
    for s in samples:
        best[s.group, s.kernel] = np.minimum(best.get((s.group, s.kernel), np.inf), marks[id(s)])

    def kept(s: Samples) -> bool:
        usual = bool(np.all(marks[id(s)] < SLOWEST * best[s.group, s.kernel]))
        if s.group == "gemm":
            return usual and marks[id(s)][0] < EAGER_GEMM_S
        return usual or s.group != "experts"

    return [s for s in samples if kept(s)]


def _part(group: str, columns: Columns, mask: np.ndarray, sizes: dict[str, Any], **which: Any) -> dict[str, Any]:
    """Arguments of Samples for the rows of a mask."""
    picked = {name: np.asarray(value)[mask].astype(float) for name, value in sizes.items()}
    base = {"kernel": "bf16", "narrow_kv": False, "model": ""}
    return {"group": group, "sizes": picked, "seconds": columns["latency"][mask] * MILLI, **base, **which}


def _gemms(c: Columns) -> list[dict]:
    sizes = {"tokens": c["m"], "n": c["n"], "k": c["k"]}
    fits = (c["n"] >= 256) & (c["k"] >= 256) & (c["n"] * c["k"] >= 1e6) & (np.maximum(c["n"], c["k"]) < 60000)
    fits &= c["m"] <= 8192
    return [
        _part("gemm", c, fits & (c["gemm_dtype"] == dtype), sizes, kernel=kernel) for dtype, kernel in KERNELS.items()
    ]


def _experts(c: Columns) -> list[dict]:
    names = {"tokens": "num_tokens", "hidden": "hidden_size", "width": "inter_size", "chosen": "topk",
             "experts": "num_experts", "tp": "moe_tp_size", "ep": "moe_ep_size"}  # fmt: skip
    sizes = {name: c[theirs] for name, theirs in names.items()}
    gated = np.asarray(["nongated" not in source for source in c["kernel_source"]])
    fits = gated & (c["distribution"] == "power_law_1.01") & (c["topk"] > 1) & (c["hidden_size"] >= 2048)
    fits &= (c["num_tokens"] <= 8192) & (c["inter_size"] >= 128 * c["moe_tp_size"])
    fits &= c["num_experts"] >= 4 * c["moe_ep_size"]
    return [
        _part("experts", c, fits & (c["moe_dtype"] == dtype), sizes, kernel=kernel) for dtype, kernel in KERNELS.items()
    ]


def _attention(c: Columns, group: str) -> list[dict]:
    names = {"sequences": "batch_size", "heads": "num_heads", "kv_heads": "num_key_value_heads", "head_dim": "head_dim"}
    sizes = {**{name: c[theirs] for name, theirs in names.items()}, "new": c["isl"], "cached": c["step"]}
    fits = (c["window_size"] == 0) if "window_size" in c else np.ones(len(c["isl"]), bool)
    fits = fits & np.isin(c["head_dim"], (64, 128, 256)) & (c["num_heads"] >= 2) & (c["isl"] + c["step"] >= 64)
    fits &= c["num_heads"] <= 16 * c["num_key_value_heads"]
    if group == "prefill_attention":
        fits &= (c["isl"] >= 1024) & (c["batch_size"] * c["isl"] * c["num_heads"] >= 2**16)
    narrow = c["kv_cache_dtype"] == "fp8"
    return [_part(group, c, fits & (narrow == flag), sizes, narrow_kv=flag) for flag in (False, True)]


def _module(c: Columns, group: str) -> list[dict]:
    sizes = {"sequences": c["batch_size"], "heads": c["num_heads"], "cached": c["step"]}
    fits = (c["step"] >= 256) & (c["batch_size"] * c["step"] <= MODULE_ENTRIES)
    fits &= np.asarray(["skip" not in source for source in c["kernel_source"]])
    return [
        _part(group, c, fits & (c["model"] == theirs) & (c["gemm_type"] == dtype) & (narrow == flag), sizes,
              kernel=KERNELS[dtype], narrow_kv=flag, model=model)
        for theirs, model in MODULES.items()
        for dtype in ("bfloat16", "fp8_block", "nvfp4")
        for narrow in (c["kv_cache_dtype"] == "fp8",)
        for flag in (False, True)
    ]  # fmt: skip


def _all_reduces(c: Columns) -> list[dict]:
    sizes = {"bytes": c["message_size"] * REDUCED_BYTES, "ranks": c["num_gpus"]}
    graph = np.asarray(["eager" not in source for source in c["kernel_source"]])
    return [_part("all_reduce", c, graph & (c["num_gpus"] <= 8) & (c["message_size"] <= 2**26), sizes)]


READERS: dict[str, Callable[[Columns], list[dict]]] = {
    "gemm": _gemms,
    "moe": _experts,
    "generation_attention": lambda c: _attention(c, "decode_attention"),
    "context_attention": lambda c: _attention(c, "prefill_attention"),
    "mla_generation_module": lambda c: _module(c, "mla"),
    "dsa_generation_module": lambda c: _module(c, "indexer"),
    "custom_allreduce": _all_reduces,
}
