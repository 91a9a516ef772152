"""Seconds of collectives: latency plus bytes over bandwidth, inside a link domain and across it."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from kernels.roofline import divide
from kernels.types import Device, Engine

RAMP_BYTES = 2.0**19  # a message of this size has spent half of the ramp


def link_rate(device: Device, engine: Engine, ranks: Array) -> Array:
    """Bytes per second that one device sends inside its domain to `ranks − 1` peers.

    A switch gives each device its full rate; in a mesh a device has one link to each peer.
    """
    links = jnp.clip(ranks - 1.0, 1.0, jnp.maximum(device.link_mesh_links, 1.0))
    return device.link_bytes_per_s * links * engine.link_frac


def start_up(ranks: Array, device: Device, engine: Engine) -> Array:
    """Seconds of a collective of no bytes over n ranks: the longer of the engine's own time and the link's.

    The engine's is α₂ + α·log₂(n/2); the link's is its latency, once over a switch or a mesh, and n − 1 times over a
    bus (PCIe), where a ring passes every rank: RTX PRO 6000 takes 4.5, 13.7 and 26.6 µs at 2, 4 and 8.
    """
    own = engine.allreduce_s + engine.allreduce_log2_s * jnp.log2(jnp.maximum(ranks, 2.0) / 2.0)
    hops = jnp.where(device.link_bus > 0, jnp.maximum(ranks - 1.0, 1.0), 1.0)
    return jnp.maximum(own, device.link_latency_s * hops)


def all_reduce(n_bytes: Array, ranks: Array, device: Device, engine: Engine) -> Array:
    """2·(n−1)/n·m/bw + α + log₂n·β·m/(m + ½ MiB) inside the domain; between domains the same again, without the ramp
    β, over the scale-out link of each device.

    Small messages go in one exchange, larger ones in two with a barrier between, which take the longer the more ranks
    there are. Source of the form: Thakur et al., Optimization of Collective Communication Operations in MPICH (2005);
    of the ramp: custom all-reduces in CUDA graphs on A100 to GB200 at 2 to 8 ranks (docs/physics.md).
    """
    inside = jnp.clip(ranks, 1.0, device.domain_devices)
    domains = jnp.maximum(ranks / device.domain_devices, 1.0)
    rate = jnp.minimum(link_rate(device, engine, inside), device.allreduce_bytes_per_s)
    local = 2.0 * (inside - 1.0) / inside * divide(n_bytes, rate)
    alpha = start_up(inside, device, engine)
    ramp = engine.allreduce_ramp_s * jnp.log2(inside) * n_bytes / (n_bytes + RAMP_BYTES)
    scale_out = jnp.where(domains > 1, device.scale_out_bytes_per_s * engine.link_frac, 1.0)
    across = 2.0 * (domains - 1.0) / domains * divide(n_bytes / inside, scale_out)
    time = jnp.where(inside > 1, local + alpha + ramp, 0.0)
    return time + jnp.where(domains > 1, across + alpha + device.scale_out_latency_s * jnp.log2(2.0 * domains), 0.0)


def copies(n_choices: Array, n_places: Array) -> Array:
    """Expected distinct places among k uniform choices: n·(1 − (1 − 1/n)^k)."""
    return -n_places * jnp.expm1(n_choices * jnp.log1p(-1.0 / jnp.maximum(n_places, 1.0 + 1e-6)))


def all_to_all(n_bytes: Array, n_choices: Array, ranks: Array, device: Device, engine: Engine) -> Array:
    """Seconds to send each token of a rank (m bytes in all) to the ranks of its k experts.

    A token crosses to another domain once, and is spread inside it over that domain's own link (DeepSeek-V3,
    arXiv:2412.19437 section 3.2.2): max of both transfers, and a start-up time each.
    """
    inside = jnp.clip(ranks, 1.0, device.domain_devices)
    domains = jnp.maximum(ranks / inside, 1.0)
    near = copies(n_choices, inside) * (inside - 1.0) / inside * n_bytes
    far = jnp.where(domains > 1, copies(n_choices, domains) * (domains - 1.0) / domains * n_bytes, 0.0)
    local = divide(near, link_rate(device, engine, inside))
    across = divide(far, device.scale_out_bytes_per_s * engine.link_frac)
    alpha = start_up(inside, device, engine) + jnp.where(domains > 1, device.scale_out_latency_s, 0.0)
    return jnp.where(ranks > 1, jnp.maximum(local, across) + alpha, 0.0)


def point_to_point(n_bytes: Array, device: Device, engine: Engine) -> tuple[Array, Array]:
    """Seconds of m/bw + latency (inside a domain, between domains)."""
    near = divide(n_bytes, device.link_bytes_per_s * engine.link_frac) + device.link_latency_s
    far = divide(n_bytes, device.scale_out_bytes_per_s * engine.link_frac) + device.scale_out_latency_s
    return near, far
