"""What the checks need of the rest of the library, each figure computed once: sizes, machines and forecasts."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from sim import catalog
from sim.formats import weight_bytes, weight_plan
from sim.guide.claims import Claim
from sim.params import count
from sim.results import Result
from sim.schema import DeviceRow, ModelRow
from sim.verbs.estimate import estimate

LENGTH = 16  # of an array of users: kernels are compiled once for each length


@dataclass(frozen=True)
class Subject:
    """What is deployed where, by names: the part of a claim that decides a forecast."""

    model: str
    hardware: str
    engine: str
    weights: str
    prompt: int = 512
    output: int = 128
    context: int = 4096

    @property
    def machine(self) -> catalog.Machine:
        """The machine, from the catalogue."""
        return catalog.machine(self.hardware)

    @property
    def memory_bytes(self) -> float:
        """Memory of all devices, as their driver shows it."""
        return float(self.machine.n_devices * self.machine.device.memory_bytes)

    @property
    def weights_bytes(self) -> float:
        """Bytes of the checkpoint in this format."""
        return stored_bytes(self.model, self.weights)

    def label(self) -> str:
        """`Llama 3.3 70B (BF16) on 2x RTX 4090`."""
        return f"{catalog.model(self.model).name} ({format_name(self.weights)}) on {machine_name(self.hardware)}"


def subject(claim: Claim) -> Subject:
    """The deployment that a claim is about; its context is at least its prompt and output."""
    context = max(claim.context, claim.prompt + claim.output)
    return Subject(claim.model, claim.hardware, claim.engine, claim.weights, claim.prompt, claim.output, context)


def other(claim: Claim) -> Subject:
    """The deployment that a claim compares its subject with."""
    this, against = subject(claim), claim.against
    return Subject(
        claim.reference or this.model,
        against.hardware or this.hardware,
        against.engine or this.engine,
        against.weights or this.weights,
        this.prompt,
        this.output,
        this.context,
    )


_PROFILE: ContextVar[str | None] = ContextVar("profile", default=None)


@contextmanager
def resting_on(profile: str | None) -> Iterator[None]:
    """Forecasts within rest on this profile."""
    before = _PROFILE.set(profile)
    try:
        yield
    finally:
        _PROFILE.reset(before)


def forecast(
    what: Subject,
    users: tuple[int, ...] = (1,),
    gpu_layers: tuple[int, ...] | None = None,
    gpu_memory_utilization: float | None = None,
) -> Result:
    """The estimate of a deployment, one element per number of users or of layers on the device.

    Users are padded to one length, so that the kernels are compiled for that length only.
    """
    return _forecast(what, users, gpu_layers, gpu_memory_utilization, _PROFILE.get())


@functools.cache
def _forecast(
    what: Subject,
    users: tuple[int, ...],
    gpu_layers: tuple[int, ...] | None,
    gpu_memory_utilization: float | None,
    profile: str | None,
) -> Result:
    padded = users + users[-1:] * (LENGTH - len(users)) if gpu_layers is None else users
    result = estimate(
        what.model,
        what.hardware,
        engine=what.engine,
        weights=what.weights,
        prompt=what.prompt,
        output=what.output,
        context=what.context,
        concurrency=np.asarray(padded),
        gpu_layers=None if gpu_layers is None else np.asarray(gpu_layers),
        gpu_memory_utilization=gpu_memory_utilization,
        profile=profile,
    )
    n = max(len(users), len(gpu_layers or ()))
    return Result({name: column[:n] for name, column in result.columns.items()}, result.units, result.provenance)


@functools.cache
def stored_bytes(model: str, weights: str) -> float:
    """Bytes of a model's weights in a format, scales included."""
    row = catalog.model(model)
    return weight_bytes(count(row), weight_plan(row, weights))


def needed_bytes(result: Result) -> float:
    """Bytes on the fullest device: weights, cache and state of what runs, activations and the engine's reservation."""
    parts = ("weights_bytes", "kv_bytes", "state_bytes", "activation_bytes", "reserve_bytes")
    return sum(float(result[name].flat[0]) for name in parts)


def format_name(weights: str) -> str:
    """A format's short name: its id in capitals, or `native`."""
    return "native" if weights == "native" else catalog.fmt(weights).id.upper().replace("_G", " g")


def machine_name(hardware: str) -> str:
    """`2x RTX 4090 24GB`: count, short name and memory."""
    machine = catalog.machine(hardware)
    name = short_name(machine.device)
    memory = f"{machine.device.memory_gb:g}GB"
    name = name if name.endswith("GB") else f"{name} {memory}"
    return name if machine.n_devices == 1 else f"{machine.n_devices}x {name}"


def short_name(device: DeviceRow) -> str:
    """A device's name without its maker and without what stands in brackets."""
    return re.sub(r"^(NVIDIA|GeForce|Apple) | \([^)]*\)", "", device.name)


def nearest_model(row: ModelRow) -> str:
    """Name of the real model nearest to one that only the guide names."""
    return catalog.model(row.nearest or row.id).name
