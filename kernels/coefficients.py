"""What deployments and lengths of a grid cost by unit of load, each on the axes that it depends on.

What is linear in the load of a step (GEMMs, attention) becomes coefficients of a deployment, or of a deployment and a
length, by the functions of `kernels.step`; `kernels.grid` evaluates the cells with them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from kernels.experts import Routing, routing
from kernels.loop import kept_tokens, mean_context
from kernels.memory import memory, pool_bytes
from kernels.roofline import root
from kernels.steady import highest_peak, sequences_held
from kernels.step import LaunchParts, LinearParts, attention_parts, expert_parts, gemm_parts, launch_parts
from kernels.types import GEMM_GROUPS, Device, Engine, Layout, Load, Memory, Model, Workload, pytree
from kernels.work import decode_load, prefill_load

ORDER = ("deployments", "lengths", "concurrency")
Kernels = tuple[Array, ...]


@pytree
class Unit:
    """What one unit of load costs on a rank: seconds of attention, indexer and recurrent state; their work in all."""

    memory_s: Kernels
    compute_s: Kernels
    bytes: Array
    flops: Array


@pytree
class Deployment:
    """Scalars and coefficients of a deployment, whatever it serves."""

    model: Model
    device: Device
    engine: Engine
    layout: Layout
    gemms: tuple[LinearParts, ...]  # by group
    gemm_bytes: Array
    expert: LinearParts
    routing: Routing
    launches: LaunchParts
    sequence: Unit  # of a sequence in prefill
    peak: Array
    roots: tuple[Array, ...]  # of the smooth maximum


@pytree
class Served:
    """Of a deployment at given lengths."""

    decode: Unit  # of a decoding sequence, halfway through its output
    prompt: Unit  # of a prompt's tokens
    reads: Unit  # of a prompt that is read once
    held: Array  # sequences that the KV pool holds
    memory: Memory


def deployment(model: Model, device: Device, engine: Engine, layout: Layout) -> Deployment:
    """Coefficients of one deployment; unbatched."""
    of = (model, device, engine, layout)
    none = decode_load(model, jnp.zeros(()), jnp.zeros(()))
    gemm = gemm_parts(*of)
    scalars = (jax.tree.map(lambda a: a if jnp.ndim(a) == 0 else jnp.zeros(()), tree) for tree in of)
    return Deployment(
        *scalars,
        gemms=tuple(jax.tree.map(lambda a, i=i: a[i], gemm) for i in range(len(GEMM_GROUPS))),
        gemm_bytes=jnp.sum(gemm.bytes),
        expert=expert_parts(*of),
        routing=routing(model, engine, layout),
        launches=launch_parts(model, engine),
        sequence=unit(*of, replace(none, n_sequences=jnp.ones(()))),
        peak=highest_peak(model, device),
        roots=root(engine.sharpness),
    )


def unit(model: Model, device: Device, engine: Engine, layout: Layout, load: Load) -> Unit:
    """Of a load that stands for one unit."""
    n_bytes, flops, memory_s, compute_s = zip(*attention_parts(model, device, engine, layout, load), strict=True)
    return Unit(memory_s, compute_s, sum(n_bytes), sum(flops))


def served(model: Model, device: Device, engine: Engine, layout: Layout, load: Workload) -> Served:
    """Coefficients of one deployment at one length; unbatched."""
    of, one, none = (model, device, engine, layout), jnp.ones(()), jnp.zeros(())
    whole = prefill_load(model, load.prompt_tokens, none, one)
    idle = decode_load(model, none, none)
    read = {name: getattr(whole, name) for name in ("prefill_local_entries", "prefill_global_entries")}
    unread = {name: getattr(idle, name) for name in read}
    mem = memory(*of, load)
    return Served(
        decode=unit(*of, decode_load(model, one, mean_context(load))),
        prompt=unit(*of, replace(whole, n_sequences=none, **unread)),
        reads=unit(*of, replace(idle, **read)),
        held=sequences_held(model, layout, mem, load, kept_tokens(engine, load)),
        memory=mem,
    )


@partial(jax.jit, static_argnames="order")
def coefficients(
    models: Model, devices: Device, engines: Engine, which: Array, layout: Layout, tuned: dict[str, Array],
    lengths: Workload, concurrency: Array, order: tuple[str, ...] = ORDER,
) -> tuple[Deployment, Served, Workload]:  # fmt: skip
    """All that the cells need, with an axis for each of `order`.

    which: (R, 3) indices into models, devices and engines; layout (R,); tuned: fields of Engine, (R,) each; lengths
    (L,) but for their concurrency; concurrency (C,).
    """
    rows = _rows(models, devices, engines, which, layout, tuned)
    of_rows = jax.vmap(deployment)(*rows)
    of_lengths = jax.vmap(jax.vmap(served, (None, None, None, None, 0)), (0, 0, 0, 0, None))(*rows, lengths)
    place = partial(_place, order=order)
    load = replace(place(lengths, ORDER[1:2]), concurrency=place(concurrency, ORDER[2:]))
    return place(of_rows, ORDER[:1]), place(of_lengths, ORDER[:2]), load


def _rows(models, devices, engines, which: Array, layout: Layout, tuned: dict[str, Array]):
    chosen = [jax.tree.map(lambda a, i=i: a[which[:, i]], tree) for i, tree in enumerate((models, devices, engines))]
    return *chosen[:2], replace(chosen[2], **tuned), layout


@jax.jit
def pools(
    models: Model, devices: Device, engines: Engine, which: Array, layout: Layout, tuned: dict[str, Array]
) -> tuple[Array, Array]:
    """(bytes for the KV cache, bytes of the device) of deployments, (R,) each, given as in `coefficients`."""
    rows = _rows(models, devices, engines, which, layout, tuned)
    return jax.vmap(pool_bytes)(*rows), rows[1].memory_bytes


def _place(tree, axes: tuple[str, ...], order: tuple[str, ...]):
    """Leaves with these axes, transposed and with axes of length 1 to all of `order`."""
    there = [name for name in order if name in axes]
    turn, missing = [axes.index(name) for name in there], [i for i, name in enumerate(order) if name not in axes]
    return jax.tree.map(lambda a: jnp.expand_dims(jnp.transpose(a, turn), missing), tree)
