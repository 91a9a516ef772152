"""Measured kernels as the pytrees that a forecast takes: a model of one layer, or of one kernel, and a load."""

from __future__ import annotations

import functools
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernels.types import (
    COMMUNICATION,
    GEMM_GROUPS,
    HOST,
    N_ATTENTION_SLOTS,
    OPERATIONS,
    SCHEDULER,
    WEIGHT_KERNELS,
    Layout,
    Load,
    Model,
    pytree,
)
from kernels.work import decode_load, prefill_load
from sim import catalog
from sim.engines import engines
from sim.formats import weight_plan
from sim.lower import MIXER_GEMMS, lower_model
from sim.silicon.tables import WEIGHT_BYTES, Samples

DENSE = GEMM_GROUPS.index("dense FFN")
PROJECTIONS = GEMM_GROUPS.index("attention projections")
MODULE_WEIGHT = 0.05
BY_GROUP = ("gemm_params", "gemm_bytes", "gemm_replicated_frac", "gemm_kernel", "gemm_launches")
ONES = ("attn_stored_frac", "attn_kv_heads", "attn_heads", "attn_min_heads", "tokens_per_entry", "index_stored_frac",
        "state_heads", "hidden_size")  # fmt: skip


@pytree
class Cases:
    """N timings: what ran, which operations of the step it stands for, and how long it took."""

    model: Model
    layout: Layout
    load: Load
    counted: Array  # (N, O) 1 where the timing holds the operation
    seconds: Array  # (N,)
    weight: Array  # (N,)


def cases(samples: Samples) -> Cases:
    """The samples as cases, each of weight 1, but those of whole modules, which only their own floors should follow."""
    s, n = samples.sizes, len(samples)
    model, layout = _blank(n), dict.fromkeys(("tp", "pp", "ep", "dp", "replicas"), np.ones(n))
    layout |= dict.fromkeys(("host_layer_frac", "host_expert_frac"), np.zeros(n))
    model["narrow_kv"] = np.full(n, float(samples.narrow_kv))
    kernel = WEIGHT_KERNELS.index(samples.kernel)
    if samples.group == "gemm":
        _one_gemm(model, DENSE, s["n"] * s["k"], samples.kernel, 1)
        model["hidden_size"] = s["k"]
    elif samples.group == "experts":
        params = 3.0 * s["hidden"] * s["width"]
        model |= {"n_moe_layers": np.ones(n), "n_experts": s["experts"], "n_experts_per_token": s["chosen"],
                  "expert_params": params, "expert_bytes": params * WEIGHT_BYTES[samples.kernel],
                  "expert_kernel": np.full(n, kernel), "hidden_size": s["hidden"]}  # fmt: skip
        layout |= {"tp": s["tp"] * s["ep"], "ep": s["ep"]}
    elif samples.group == "all_reduce":
        model |= {"n_blocks": np.ones(n), "hidden_size": s["bytes"] / 2.0}
        layout["tp"] = s["ranks"]
    elif samples.model:
        layout["tp"] = _module(model, samples)
    else:
        _attention(model, samples)
    lowered = Model(**{f.name: _leaf(f.name, model[f.name]) for f in fields(Model)})
    counted = np.zeros((n, len(OPERATIONS)))
    only = [COMMUNICATION] if samples.group == "all_reduce" else _timed()
    counted[:, only] = 1.0
    return Cases(
        model=lowered,
        layout=Layout(**{name: _leaf(name, value) for name, value in layout.items()}),
        load=_load(lowered, samples),
        counted=_leaf("counted", counted),
        seconds=_leaf("seconds", samples.seconds),
        weight=np.full(n, MODULE_WEIGHT if samples.model else 1.0, np.float32),
    )


def _timed() -> list[int]:
    """Operations that the timing of a kernel on one device holds."""
    return [o for o in range(len(OPERATIONS)) if o not in (COMMUNICATION, HOST, SCHEDULER)]


def _leaf(name: str, value: np.ndarray) -> np.ndarray:
    return np.asarray(value, np.int32 if name.endswith("_kernel") else np.float32)


def _blank(n: int) -> dict[str, np.ndarray]:
    """Fields of n models that hold nothing."""
    out = {}
    for f in fields(Model):
        many = len(GEMM_GROUPS) if f.name in BY_GROUP else N_ATTENTION_SLOTS if _by_slot(f.name) else 0
        out[f.name] = np.full((n, many) if many else n, float(f.name in ONES))
    return out | {
        "topk_entries": np.full((n, N_ATTENTION_SLOTS), np.inf),
        "gemm_kernel": np.zeros((n, len(GEMM_GROUPS))),
    }


@functools.cache
def _by_slot(name: str) -> bool:
    """Whether a field of Model has a value a slot."""
    return np.ndim(getattr(_catalogued("deepseek-v3", "16"), name)) == 1 and name not in BY_GROUP


@functools.cache
def _catalogued(model_id: str, kv: str) -> Model:
    row = catalog.models()[model_id]
    return lower_model(row, weight_plan(row, "bf16"), kv, engines()["vllm"])


def _one_gemm(model: dict, group: int, params: np.ndarray, kernel: str, launches: int) -> None:
    model["gemm_params"][:, group] = params
    model["gemm_bytes"][:, group] = params * WEIGHT_BYTES[kernel]
    model["gemm_launches"][:, group] = launches
    model["gemm_kernel"][:, group] = WEIGHT_KERNELS.index(kernel)


def _attention(model: dict, samples: Samples) -> None:
    """One layer of grouped-query attention, without its projections."""
    s = samples.sizes
    flops = 4.0 * s["heads"] * s["head_dim"]
    entry = 2.0 * s["kv_heads"] * s["head_dim"] * (1.0 if samples.narrow_kv else 2.0)
    first = {"attn_layers": 1.0, "attn_heads": s["heads"], "attn_kv_heads": s["kv_heads"], "entry_bytes": entry,
             "decode_flops_per_entry": flops, "prefill_flops_per_pair": flops}  # fmt: skip
    for name, value in first.items():
        model[name][:, 0] = value


def _module(model: dict, samples: Samples) -> np.ndarray:
    """A whole mixer of a catalogued model, split over as many ranks as leave it the heads that were timed: (N,) TP."""
    n = len(samples)
    whole = _catalogued(samples.model, "8" if samples.narrow_kv else "16")
    layers = float(np.sum(whole.attn_layers))
    for f in fields(Model):
        if _by_slot(f.name):
            model[f.name] = np.repeat(np.asarray(getattr(whole, f.name))[None], n, axis=0)
    model["attn_layers"] = model["attn_layers"] / layers
    _one_gemm(model, PROJECTIONS, whole.gemm_params[PROJECTIONS] / layers, samples.kernel, MIXER_GEMMS["mla"])
    model["gemm_replicated_frac"][:, PROJECTIONS] = whole.gemm_replicated_frac[PROJECTIONS]
    model |= {"n_mla_layers": np.ones(n), "n_blocks": np.ones(n), "hidden_size": np.full(n, whole.hidden_size)}
    model["n_indexer_layers"] = np.full(n, float(samples.group == "indexer"))
    return np.max(whole.attn_heads) / samples.sizes["heads"]


def _load(model: Model, samples: Samples) -> Load:
    s = {name: jnp.asarray(value, jnp.float32) for name, value in samples.sizes.items()}
    if samples.group == "prefill_attention":
        return jax.vmap(prefill_load)(model, s["sequences"] * s["new"], s["cached"], s["sequences"])
    none = jnp.zeros(len(samples), jnp.float32)
    tokens = s.get("tokens", s.get("sequences", none + 1.0))
    return jax.vmap(decode_load)(model, tokens, s.get("cached", none))
