"""From the names of checkpoints and GGUF files to a model and the format of its weights."""

from __future__ import annotations

import functools
import re

from sim import catalog, params
from sim.catalog.lookup import find
from sim.measure.names import UNKNOWN_QUANTIZATION, model, tables
from sim.measure.rows import Missing, Unusable
from sim.schema import ModelRow

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_GGUF_TYPE = re.compile(r"[-._](?:UD-)?(I?Q\d\w*|BF16|F16|F32|MXFP4(?:_MOE)?)$", re.IGNORECASE)
_DYNAMIC = re.compile(r"[-._]UD-", re.IGNORECASE)
_SAME_SIZE = 0.02  # parameters as tools count them, with or without buffers, differ by less


@functools.cache
def checkpoint(name: str) -> tuple[ModelRow, str]:
    """(model, format) of a checkpoint ("nvidia/Llama-3.1-8B-Instruct-FP8"); "native" where the name says none."""
    owner, _, rest = name.rstrip("/").rpartition("/")
    stated = "native"
    while (row := find(tables()["model"].get(rest, rest), catalog.models())) is None:
        ending = next((e for e in tables()["suffix"] if rest.lower().endswith("-" + e)), None)
        if ending is None:
            raise Missing({"--model": "model"}, {"model": name} if name else None)
        stated, rest = tables()["suffix"][ending] or stated, rest[: -len(ending) - 1]
    if stated == "native":
        stated = next((f for e, f in tables()["suffix"].items() if f and rest.lower().endswith("-" + e)), stated)
    if stated == "fp8" and owner in tables()["fp8_by_block"]["owners"]:
        stated = "fp8_block"
    return row, stated


@functools.cache
def gguf_model(file_name: str, type_name: str, n_params: float) -> ModelRow:
    """The model of a GGUF file: by its name, else by what llama.cpp calls its type ("llama 8B Q4_K - Medium")."""
    stem = _stem(file_name)
    row = _by_name(_GGUF_TYPE.sub("", stem)) or _by_size(type_name, n_params)
    if row is None:
        found = type_name or stem
        raise Missing({"--model": "model"}, {"model": found} if found else None)
    return row


@functools.cache
def gguf_quantization(file_name: str, type_name: str) -> str:
    """Its quantization, likewise. Dynamic mixes ("UD-Q4_K_XL") are not what their names say, and refused."""
    stem = _stem(file_name)
    quant = _type_format(type_name) or _name_format(stem)
    if not (stem or type_name):
        raise Missing({"--weights": "weights"})
    if _DYNAMIC.search(stem) or not quant:
        raise Unusable(UNKNOWN_QUANTIZATION, stem or type_name)
    return quant


def _stem(file_name: str) -> str:
    name = file_name.replace("\\", "/").rpartition("/")[2]
    return _SHARD.sub("", re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE))


def _by_name(stem: str) -> ModelRow | None:
    try:
        return checkpoint(stem)[0] if stem else None
    except Unusable:
        return None


def _by_size(type_name: str, n_params: float) -> ModelRow | None:
    """The model of the named architecture whose parameters are as many as the tool counted."""
    architecture = type_name.partition(" ")[0]
    for name in tables()["gguf"].get(architecture, ()):
        row = model(name)
        if abs(params.count(row).text_total / max(n_params, 1.0) - 1) < _SAME_SIZE:
            return row
    return None


def _name_format(stem: str) -> str:
    found = _GGUF_TYPE.search(stem)
    return found[1].upper() if found else ""


def _type_format(type_name: str) -> str:
    """What follows the size in a type's name: "Q4_K - Medium", "Q8_0", "IQ4_XS - 4.25 bpw", "mostly Q4_0"."""
    known = tables()["quant"]["llamacpp_type"]
    for wording, quant in known.items():
        if wording in type_name:
            return quant
    found = re.search(r"\b(I?Q\d\w*|BF16|F16|MXFP4)\b(?: - [\d.]+ bpw)?$", type_name)
    return found[1] if found else ""
