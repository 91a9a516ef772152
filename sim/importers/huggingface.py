"""Imports a Hugging Face config.json as a row of the catalogue, or refuses it with the keys that are not understood.

The family is found by `model_type` in hf_architectures; a family that is not there is refused, never taken for another.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sim.errors import RoofcastError, did_you_mean, sentence
from sim.files import open_input
from sim.importers.hf_architectures import ARCHITECTURES, WRAPPER_KEYS, WRAPPERS, Architecture
from sim.importers.hf_attention import Kinds
from sim.importers.hf_quant import native_format, read_scheme
from sim.importers.hf_reader import Reader, shown
from sim.importers.hf_toml import to_toml
from sim.importers.hf_vision import count_vision
from sim.schema import LayerRun, ModelRow, NativeFormat

__all__ = ["import_config", "row_from_config", "to_toml"]

MAX_FILE_BYTES = 20_000_000
_NESTED = ("text_config", "llm_config", "language_config")
_QUANT_FILE = "hf_quant_config.json"
_LOW_PRECISION = re.compile(r"fp8|fp4|int8|int4|awq|gptq|w[48]a", re.IGNORECASE)


def import_config(path: str | os.PathLike[str], *, name: str | None = None) -> ModelRow:
    """The model of a config.json, and of a hf_quant_config.json beside it; `name` or else the file's or folder's."""
    config = _read_json(path)
    beside = Path(path).with_name(_QUANT_FILE)
    quant = _read_json(beside) if beside.is_file() else None
    return row_from_config(config, str(path), name or _name_of(Path(path)), hf_quant=quant)


def row_from_config(config: dict[str, Any], where: str, name: str, hf_quant: dict[str, Any] | None = None) -> ModelRow:
    """The model that a parsed config.json describes. Raises RoofcastError with every problem found, by key."""
    outer = Reader(config, f"{where}: ")
    text, kind = _text_reader(outer)
    architecture = ARCHITECTURES[kind]
    text.only(architecture.only)
    mixers, blocks = architecture.attention(text), architecture.ffn(text)
    notes: list[str] = []
    try:
        fields = _size(outer, text, architecture, mixers, blocks, notes)
        formats = _formats(outer, text, architecture, (mixers, blocks), hf_quant, notes)
        text.refuse_unknown(architecture.irrelevant, f"a {kind} config")
        if outer is not text:
            outer.refuse_unknown(WRAPPER_KEYS, f"a {outer.values['model_type']} config")
        outer.raise_if_any()
        if formats.routed_experts == formats.other == formats.embeddings and _LOW_PRECISION.search(name):
            notes.append(f"the name speaks of low precision, but neither config.json nor {_QUANT_FILE} does")
        return ModelRow(
            id=_slug(name),
            name=name,
            **fields,
            native_format=formats,
            sources=(f"config.json of {name}",),
            confidence="vendor",
            note="; ".join(dict.fromkeys(notes)),
        )
    except ValidationError as error:
        outer.raise_if_any()
        raise RoofcastError(*_row_problems(error, where)) from None


def _row_problems(error: ValidationError, where: str) -> list[str]:
    return [sentence(item["msg"], f"{where}: {'.'.join(map(str, item['loc']))}") for item in error.errors()]


def _text_reader(outer: Reader) -> tuple[Reader, str]:
    """Reader of the language model's own config, and the family it is of."""
    nested = next((key for key in _NESTED if outer.has(key)), None)
    kind = _family(outer, outer.raw("model_type"), WRAPPERS if nested else ARCHITECTURES)
    text = outer.child(nested) if nested else outer
    if text is None:
        raise RoofcastError(*outer.problems)
    if nested:
        kind = _family(text, text.raw("model_type") or WRAPPERS[kind][0], WRAPPERS[kind])
    text.defaults = ARCHITECTURES[kind].defaults
    return text, kind


def _family(c: Reader, kind: Any, known: Collection[str]) -> str:
    if isinstance(kind, str) and kind in known:
        return kind
    near = did_you_mean(kind, known) if isinstance(kind, str) else ""
    what = "required key is missing" if kind is None else f"architecture {shown(kind)} is not understood"
    c.refuse("model_type", what, near or "understood are " + ", ".join(sorted(known)))


def _size(
    outer: Reader, text: Reader, architecture: Architecture, mixers: Kinds, blocks: Kinds, notes: list[str]
) -> dict[str, Any]:
    """The fields of a row that say how large the model is."""
    extras = architecture.extras(text, mixers, blocks)
    own = text.values.get("tie_word_embeddings") is not None or not outer.has("tie_word_embeddings")
    text.skip("tie_word_embeddings")
    outer.skip("tie_word_embeddings")
    hidden = text.whole("hidden_size")
    if outer.has("audio_config"):
        notes.append("the audio tower is not counted")
    return {
        "hidden_size": hidden,
        "vocab_size": text.whole("vocab_size"),
        "tie_word_embeddings": (text if own else outer).flag("tie_word_embeddings"),
        "norms_per_layer": architecture.norms + extras.norms,
        "max_context_tokens": text.whole("max_position_embeddings"),
        "attention": mixers[0],
        "ffn": blocks[0],
        "layers": _runs(text, mixers[1], blocks[1]),
        "extra_params": extras.params,
        "lookup_only_params": extras.lookup_only,
        "vision_params": count_vision(outer, outer.values["model_type"], hidden, notes) if outer is not text else 0,
        "n_mtp_layers": text.whole("num_nextn_predict_layers", 0, low=0),
    }


def _runs(text: Reader, mixers: list[str], blocks: list[str]) -> tuple[LayerRun, ...]:
    """Runs of layers that pair the same kinds."""
    text.check(len(mixers) == len(blocks), "num_hidden_layers", "differs between attention and feed-forward blocks")
    runs: list[list[Any]] = []
    for pair in zip(mixers, blocks, strict=False):
        if runs and runs[-1][0] == pair:
            runs[-1][1] += 1
        else:
            runs.append([pair, 1])
    return tuple(LayerRun(attention=mixer, ffn=block, count=n) for (mixer, block), n in runs)


def _formats(
    outer: Reader,
    text: Reader,
    architecture: Architecture,
    kinds: tuple[Kinds, Kinds],
    hf_quant: dict[str, Any] | None,
    notes: list[str],
) -> NativeFormat:
    """Weight format by role, from wherever the quantization is described."""
    quant = None
    for holder in (outer, text):
        for key in ("quantization", "quantization_config"):
            quant = (holder.child(key) if holder.has(key) else None) or quant
    if quant is None and hf_quant is not None:
        quant = Reader(hf_quant, f"{_QUANT_FILE}: ", parent=outer).child("quantization")
        quant = quant if quant and quant.has("quant_algo") else None
    scheme = read_scheme(quant, notes)
    modules = architecture.modules
    if text.choice("expert_dtype", ("fp4", "fp8")) == "fp4":
        scheme = replace(scheme, listed=(*scheme.listed, (modules["experts"].removesuffix(".0"), "mxfp4")))
    (mixers, mixer_of), (blocks, block_of) = kinds
    layers = [(mixers[m].type, _block_type(blocks[b])) for m, b in zip(mixer_of, block_of, strict=False)]
    outer.skip("dtype")
    return native_format(text if text.has("dtype") else outer, scheme, layers, modules, notes)


def _block_type(block: Any) -> str:
    shared = "+shared" if getattr(block, "shared_expert_intermediate_size", 0) else ""
    return block.type + shared + ("+parallel" if getattr(block, "parallel_dense_intermediate_size", 0) else "")


def _read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    where = str(path)
    try:
        if not where:
            raise RoofcastError(sentence("expected the name of a config.json, found ''"))
        if Path(path).is_dir():
            raise RoofcastError(sentence("is a directory, expected a config.json", where, f"name {where}/config.json"))
        with open_input(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise RoofcastError(sentence(f"expected a config.json of at most {MAX_FILE_BYTES:,} bytes", where))
        config = json.loads(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise RoofcastError(sentence("no such file", where)) from None
    except OSError as error:
        raise RoofcastError(sentence(f"cannot be read: {error.strerror}", where)) from None
    except json.JSONDecodeError as error:
        raise RoofcastError(_not_json(where, error)) from None
    except UnicodeDecodeError:
        raise RoofcastError(sentence("not JSON: not UTF-8 text", where)) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, RoofcastError):
            raise
        raise RoofcastError(sentence(f"not readable as JSON: {error}", ascii(where)[1:-1])) from None
    if not isinstance(config, dict):
        raise RoofcastError(sentence(f"expected a JSON object, got {shown(config)}", where))
    return config


def _not_json(where: str, error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return sentence("the file is empty, expected a JSON object", where)
    place = f"line {error.lineno} column {error.colno}"
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
        return sentence(f"the JSON ends too early, at {place}", where, "the file may be truncated; fetch it again")
    return sentence(f"not JSON: {error.msg[:1].lower() + error.msg[1:]} at {place}", where)


def _name_of(path: Path) -> str:
    """The file's name without its ending; that of its folder where the file is a config.json."""
    stem = path.resolve().parent.name if path.stem.lower() == "config" else path.stem
    return stem.encode("utf-8", "replace").decode() or "model"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"
