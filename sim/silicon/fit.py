"""Efficiencies at which the forecast's own functions give the measured seconds, by gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from kernels.step import step_time
from kernels.types import WEIGHT_KERNELS, Device, Engine
from sim import catalog
from sim.engines import engines
from sim.lower import lower_device, lower_engine
from sim.silicon.cases import Cases, cases
from sim.silicon.tables import ENGINES, Samples
from sim.units import MICRO

# What each group of timings tells: fields by weight kernel, and fields of the engine as a whole.
BY_KERNEL = {
    "gemm": ("weight_bw_frac", "gemm_compute_frac", "gemm_launch_s"),
    "experts": ("expert_bw_frac", "expert_compute_frac", "expert_launch_s"),
}
WHOLE = {
    "experts": ("expert_passes",),
    "decode_attention": ("attention_launch_s", "attention_decode_frac"),
    "prefill_attention": ("attention_prefill_frac",),
    "mla": ("mla_layer_s",),
    "indexer": ("indexer_layer_s",),
    "all_reduce": ("allreduce_s", "allreduce_log2_s", "allreduce_ramp_s", "link_frac"),
}
KV = {False: "kv_bw_frac", True: "narrow_kv_bw_frac"}
PRIOR_SD = 0.7  # of the logarithm (or log-odds) of each figure, about the catalogue's
ERROR_SD = 0.1  # of the logarithm of a time, beyond which an error counts less than by its square
SAMPLES_PER_BLOCK, BLOCKS = 160, 16
STEPS, STEP_SIZE = 240, 0.06
SEED = 20260801
MOST_FRAC, LEAST = 0.98, 1e-9
ONE_DOMAIN = 2.0**16  # a kernel of one of many ranks was timed alone


@dataclass(frozen=True)
class Fit:
    """Fields of an efficiency row, as the catalogue spells them, and how well they give the timings back."""

    engine: str
    device: str
    fields: dict[str, Any]
    n_samples: int
    median_errors: dict[str, float]  # |log(forecast / measured)| by group of timings
    prior_errors: dict[str, float]  # the same before the fit

    def groups(self) -> str:
        """The kinds of kernels, in words."""
        return ", ".join(name.replace("_", " ") for name in self.median_errors)

    def median_error(self) -> float:
        """Median over the groups of their median errors."""
        return float(np.median(list(self.median_errors.values())))


def fit(samples: list[Samples], device_id: str, engine_id: str) -> Fit:
    """Fits one engine on one device ("*": all engines together) to at most SAMPLES_PER_BLOCK timings of each kind."""
    chosen = [s for s in samples if engine_id in ("*", s.engine)]
    blocks = _blocks(chosen)
    device, prior = _machine(device_id, chosen)
    batch = _stack([part for parts in blocks.values() for part in parts])
    theta = {name: _free(name, getattr(prior, name)) for name in _names()}
    best = _descend(theta, device, prior, batch)
    before, after = (np.asarray(_errors(t, device, prior, batch)) for t in (theta, best))
    return Fit(
        engine=engine_id,
        device=device_id,
        fields=_fields(best, chosen),
        n_samples=sum(len(s) for s in chosen),
        median_errors=_by_group(after, blocks),
        prior_errors=_by_group(before, blocks),
    )


def _blocks(samples: list[Samples]) -> dict[str, list[Cases]]:
    """A random part of every kind of timing, by group; each kind weighs the same within its group."""
    random = np.random.default_rng(SEED)
    kinds: dict[tuple, list[Samples]] = {}
    for s in samples:
        kinds.setdefault((s.group, s.kernel, s.narrow_kv), []).append(s)
    out: dict[str, list[Cases]] = {}
    for (group, _, _), parts in kinds.items():
        each = max(SAMPLES_PER_BLOCK // len(parts), 1)
        for part in parts:
            rows = random.choice(len(part), min(each, len(part)), replace=False, p=_share(part))
            sizes = {name: value[rows] for name, value in part.sizes.items()}
            out.setdefault(group, []).append(cases(replace(part, sizes=sizes, seconds=part.seconds[rows])))
    return out


def _share(samples: Samples) -> np.ndarray:
    """Chance of each timing to be drawn: GEMMs by the root of their size, since a step spends its time in those."""
    s = samples.sizes
    weight = np.sqrt(s["n"] * s["k"]) if samples.group == "gemm" else np.ones(len(samples))
    return weight / weight.sum()


def _stack(parts: list[Cases]) -> Cases:
    """All cases in one, filled up with weightless ones so that every fit shares a compilation."""
    stacked = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    room = BLOCKS * SAMPLES_PER_BLOCK
    n = len(stacked.seconds)
    rows = np.arange(room * -(-n // room)) % n
    filled = jax.tree.map(lambda leaf: leaf[rows], stacked)
    return replace(filled, weight=filled.weight * (np.arange(len(rows)) < n))


def _machine(device_id: str, samples: list[Samples]) -> tuple[Device, Engine]:
    """The device and what the catalogue takes its engine to reach; no timing holds a router."""
    engine_ids = {s.engine for s in samples} or set(ENGINES)
    row = engines()[min(engine_ids, key=ENGINES.index) if engine_ids <= set(ENGINES) else ENGINES[0]]
    built = catalog.machine_of(catalog.machine(device_id).device, 8)
    prior = lower_engine(row, built)
    prior = replace(prior, moe_layer_s=np.float32(0.0))
    device = replace(lower_device(built, row), domain_devices=np.float32(ONE_DOMAIN))
    return jax.tree.map(jnp.asarray, (device, prior))


def _names() -> list[str]:
    """Every field that some group tells."""
    return sorted({n for group in (BY_KERNEL, WHOLE) for names in group.values() for n in names} | set(KV.values()))


def _free(name: str, value: Array) -> Array:
    """An unbounded figure for a positive one: log-odds of a fraction, else the logarithm."""
    if name.endswith("_frac"):
        return jax.scipy.special.logit(jnp.minimum(value, MOST_FRAC))
    return jnp.log(jnp.maximum(value, LEAST))


def _bound(name: str, free: Array) -> Array:
    """The figure again."""
    return jax.nn.sigmoid(free) if name.endswith("_frac") else jnp.exp(free)


def _engine(theta: dict[str, Array], prior: Engine) -> Engine:
    """The prior with the fitted fields."""
    return replace(prior, **{name: _bound(name, value) for name, value in theta.items()})


@jax.jit
def _errors(theta: dict[str, Array], device: Device, prior: Engine, batch: Cases) -> Array:
    """(N,) log(forecast / measured)."""
    engine = _engine(theta, prior)
    step = jax.vmap(lambda m, x, load: step_time(m, device, engine, x, load).seconds)
    found = jnp.sum(step(batch.model, batch.layout, batch.load) * batch.counted, axis=1)
    return jnp.log(found / batch.seconds)


def _loss(theta: dict[str, Array], start: dict[str, Array], device: Device, prior: Engine, batch: Cases) -> Array:
    """Robust errors, and the distance from the catalogue."""
    scaled = (_errors(theta, device, prior, batch) / ERROR_SD) ** 2
    robust = jnp.sum(batch.weight * 2.0 * (jnp.sqrt(1.0 + scaled) - 1.0))
    away = sum(jnp.sum(((theta[name] - start[name]) / PRIOR_SD) ** 2) for name in theta)
    return robust + away


@jax.jit
def _descend(theta: dict[str, Array], device: Device, prior: Engine, batch: Cases) -> dict[str, Array]:
    """Adam with a decaying step."""
    optimizer = optax.adam(optax.cosine_decay_schedule(STEP_SIZE, STEPS))

    def one(state, _):
        current, memory = state
        slope = jax.grad(_loss)(current, theta, device, prior, batch)
        change, memory = optimizer.update(slope, memory, current)
        return (optax.apply_updates(current, change), memory), None

    (best, _), _ = jax.lax.scan(one, (theta, optimizer.init(theta)), None, length=STEPS)
    return best


def _fields(theta: dict[str, Array], samples: list[Samples]) -> dict[str, Any]:
    """What the timings tell, in the spelling of the catalogue: microseconds, weight kernels by name."""
    out: dict[str, Any] = {}
    for group, names in BY_KERNEL.items():
        told = sorted({s.kernel for s in samples if s.group == group}, key=WEIGHT_KERNELS.index)
        for name in names if told else ():
            out[_spelled(name)] = {k: _rounded(name, theta[name][WEIGHT_KERNELS.index(k)]) for k in told}
    groups = {s.group for s in samples}
    whole = [name for group, names in WHOLE.items() if group in groups for name in names]
    kinds = {s.narrow_kv for s in samples if s.group == "decode_attention"}
    for name in [*(KV[kind] for kind in sorted(kinds)), *whole]:
        out[_spelled(name)] = _rounded(name, theta[name])
    return out


def _spelled(name: str) -> str:
    return f"{name[:-2]}_us" if name.endswith("_s") else name


def _rounded(name: str, free: Array) -> float:
    value = float(_bound(name, free))
    return round(value / MICRO, 1) if name.endswith("_s") else round(value, 2)


def _by_group(errors: np.ndarray, blocks: dict[str, list[Cases]]) -> dict[str, float]:
    """Median absolute error of each group, in the order of the stack."""
    out, at = {}, 0
    for group, parts in blocks.items():
        n = sum(len(part.seconds) for part in parts)
        out[group] = float(np.median(np.abs(errors[at : at + n])))
        at += n
    return out
