"""Parameters of the hardware that a forecast can be asked about, as factors of what the catalogue says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import jax.numpy as jnp
from jax import Array

from sim.point import Setup

# What each factor multiplies, in a device.
DEVICE_FIELDS = {
    "bandwidth": ("bandwidth_bytes_per_s",),
    "compute": ("peak_flops_per_s", "attention_flops_per_s", "vector_flops_per_s"),
    "link": ("link_bytes_per_s", "allreduce_bytes_per_s", "scale_out_bytes_per_s"),
    "memory": ("memory_bytes",),
    "overhead": ("link_latency_s", "scale_out_latency_s"),
}


def scaled(setup: Setup, factors: Mapping[str, Array]) -> Setup:
    """The setup with these parameters multiplied; differentiable in the factors.

    bandwidth: of the device's memory; compute: all peak FLOP/s; link: bytes/s between devices, inside a domain and
    across; memory: bytes; overhead: all fixed seconds, which are latencies of links and the engine's launches,
    scheduler and front end.
    """
    device = {name: _times(getattr(setup.device, name), f) for key, f in factors.items() for name in DEVICE_FIELDS[key]}
    engine = {}
    if "overhead" in factors:
        timed = [f.name for f in fields(setup.engine) if f.name.endswith(("_s", "_s_per_byte"))]
        engine = {name: _times(getattr(setup.engine, name), factors["overhead"]) for name in timed}
    return Setup(setup.model, replace(setup.device, **device), replace(setup.engine, **engine))


def _times(value: Any, factor: Array) -> Array:
    """The product; what is infinite stays so, with no derivative."""
    finite = jnp.isfinite(value)
    return jnp.where(finite, jnp.where(finite, value, 0.0) * factor, value)
