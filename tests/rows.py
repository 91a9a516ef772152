"""Every row of the catalogue as the kernels see it: models, machines and engines lowered, alone or stacked."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kernels.types import Device, Engine, Layout, Model
from sim import catalog
from sim.catalog import Machine
from sim.engines import EngineRow, engines
from sim.errors import RoofcastError
from sim.formats import row_kernels, weight_plan
from sim.lower import lower_device, lower_engine, lower_model
from sim.point import Point


@functools.cache
def model(model_id: str, weights: str, engine_id: str) -> Model:
    """A model in a weight format with a 16-bit KV cache."""
    row = catalog.models()[model_id]
    return lower_model(row, weight_plan(row, weights), "16", engines()[engine_id])


@functools.cache
def machine(device_id: str, count: int) -> Machine | None:
    """So many of a device, with its largest memory; None where the catalogue knows no link for so many."""
    device = catalog.machine(device_id).device
    try:
        return catalog.machine_of(device, count)
    except RoofcastError:
        return None


@functools.cache
def device(device_id: str, count: int, engine_id: str) -> tuple[Device, Engine]:
    """A machine, and an engine on it."""
    built = machine(device_id, count)
    assert built is not None
    return lower_device(built, engines()[engine_id]), lower_engine(engines()[engine_id], built)


def runs(engine: EngineRow, device_id: str, model_id: str, weights: str) -> bool:
    """Whether an engine runs a model in a weight format on a device."""
    row = catalog.models()[model_id]
    on_device = catalog.devices()[device_id].vendor in engine.vendors
    return on_device and row_kernels(weight_plan(row, weights), row) <= set(engine.kernels)


def point(layout: Layout, engine: Engine, **asked: Any) -> Point:
    """A point with the engine's own limits, at one dollar a second."""
    values = {
        **vars(layout),
        "n_requests": np.inf,
        "length_spread": 0.0,
        **asked,
        "kv_pool_tokens": np.inf,
        "admission_steps": engine.admission_steps,
        "mixes_prefill": engine.mixes_prefill,
        "max_batched_tokens": engine.max_batched_tokens,
        "max_sequences": engine.max_sequences,
        "memory_frac": engine.memory_frac,
        "usd_per_device_s": 1.0,
        "usd_per_joule": 0.0,
    }
    return Point(**{name: np.asarray(value, np.float32)[()] for name, value in values.items()})


def layout(tp: float = 1, pp: float = 1, dp: float = 1, ep: float = 1, replicas: float = 1) -> Layout:
    """Parallelism with nothing in host memory; also from arrays."""
    values = {"tp": tp, "pp": pp, "ep": ep, "dp": dp, "replicas": replicas, "host_layer_frac": 0, "host_expert_frac": 0}
    return Layout(**{name: np.asarray(value, np.float32)[()] for name, value in values.items()})
