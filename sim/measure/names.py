"""From the names in benchmark files to models, machines, engines and formats of the catalogue."""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path
from typing import Any

from sim import catalog, formats, params
from sim.catalog.lookup import find
from sim.engines import engines
from sim.errors import RoofcastError
from sim.measure.rows import Missing, Unusable
from sim.schema import ModelRow

UNKNOWN_MODEL, UNKNOWN_QUANTIZATION = "unknown model", "unknown quantization"
VENDORS = re.compile(r"^(?:NVIDIA|AMD|Apple|Intel)\b\s*|\b(?:GeForce|Radeon|Instinct)\b\s*")


@functools.cache
def tables() -> dict[str, Any]:
    """The tables of names.toml."""
    return tomllib.loads(Path(__file__).with_name("names.toml").read_text(encoding="utf-8"))


@functools.cache
def model(name: str) -> ModelRow:
    """The model that a row names."""
    row = find(tables()["model"].get(name, name), catalog.models())
    if row is None:
        raise Unusable(UNKNOWN_MODEL, name) if name else Missing({"--model": "model"})
    return row


@functools.cache
def machine(name: str, count: int) -> str:
    """ "4x rtx-4090", "m3-max-40-64gb": so many of the device that a row names; refused where parts of other bandwidth
    share the name. A name with a count of its own ("8x H200") keeps it.
    """
    if name in tables()["hardware_refused"]:
        raise Unusable("ambiguous hardware", name)
    return stated_machine(name, count)


@functools.cache
def stated_machine(name: str, count: int = 1) -> str:
    """The same of the command line's machine, which means what it means to every other command."""
    if not name:
        raise Missing({"--hardware": "hardware"})
    known = tables()["hardware"].get(name, name)
    try:
        found = catalog.machine(known)
        if found.n_devices == 1 and count > 1:
            found = catalog.machine(several(count, known))
    except RoofcastError:
        raise Unusable("unknown hardware", several(count, name)) from None
    if found.n_devices != count > 1:
        raise Unusable("contradictory parallelism", f"{count} devices on {name}")
    device = found.device
    size = f"-{device.memory_gb:g}gb" if device.memory_options_gb else ""
    return several(found.n_devices, device.id + size)


@functools.cache
def n_devices(machine_name: str) -> int:
    """Devices of a machine by its catalogue name."""
    return catalog.machine(machine_name).n_devices


def several(count: int, name: str) -> str:
    """ "4x NAME", or the name of a single device as it is."""
    return f"{count}x {name}" if count > 1 else name


def devices(names: list[str]) -> tuple[str, int]:
    """(name, how many) of the devices that a driver lists; refused where they differ, or where bins share the name."""
    if len(set(names)) > 1:
        raise Unusable("ambiguous hardware", ", ".join(dict.fromkeys(names)))
    return VENDORS.sub("", names[0]).replace(" Generation", "").strip(), len(names)


@functools.cache
def engine(name: str) -> str:
    """The id of the engine whose profile applies: programs on MLX count as MLX, builds of llama.cpp as llama.cpp."""
    if name in tables()["engine"]:
        return tables()["engine"][name]
    row = find(name, engines()) if name else None
    if row is None:
        raise Unusable("engine without profile", name) if name else Missing({"--engine": "engine"})
    return row.id


@functools.cache
def weights(quant: str, engine_id: str, served: str) -> str:
    """The format of a local row; one that is no format of the catalogue, or not stated, is refused."""
    quants = tables()["quant"]
    named = quants.get(engine_id, {}).get(quant, quants["*"].get(quant, quant))
    if named == "native":
        return canonical(model(served), named)
    row = find(named, catalog.formats()) if named else None
    if row is None or row.tensor_only:
        raise Unusable(UNKNOWN_QUANTIZATION, quant) if quant else Missing({"--weights": "weights"})
    return canonical(model(served), row.id)


@functools.cache
def precision(stated: str, served: str) -> str:
    """The format of a serving row. Plain "fp8" of a model published in block-scaled FP8 is the latter."""
    row = model(served)
    known = tables()["precision"].get(stated)
    if known is None:
        raise Unusable(UNKNOWN_QUANTIZATION, stated)
    if row.id in tables()["shipped_quantized"]["models"]:
        known = "native"
    if known == "fp8" and row.native_format.routed_experts == "fp8_block":
        known = "fp8_block"
    return canonical(row, known)


def canonical(row: ModelRow, name: str) -> str:
    """One spelling for one way to store a model: "native" only where no single format says the same."""
    try:
        plan = formats.weight_plan(row, name)
    except RoofcastError:
        raise Unusable(UNKNOWN_QUANTIZATION, name) from None
    if name != "native":
        return plan.name
    roles = (plan.routed if params.is_moe(row) else plan.other).id
    single = formats.weight_plan(row, roles)
    same = [getattr(plan, role) == getattr(single, role) for role in ("attention", "other", "head", "embedding")]
    return single.name if all(same) else "native"


@functools.cache
def kv(stated: str) -> str:
    """ "16", "8" or "4" for what a row says of its KV cache; 16 bits where it says nothing."""
    try:
        return formats.kv_format(stated or None)
    except RoofcastError:
        raise Unusable("unknown KV format", stated) from None
