"""What a sweep's figures rest on: with the same of all of it, the same bytes come out."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

import sim
from sim import catalog, profiles
from sim.errors import shown
from sim.profiles.write import to_toml
from sim.sweeps.plan import Plan
from sim.sweeps.spec import Spec

LAYOUT = 2  # of the folder
PACKAGES = ("jax", "jaxlib", "numpy", "pyarrow")
ROOMS = ("sim", "kernels")
TOLD = ("created", "sweep_file", "profile")  # that may differ: a comment in the file, another name of a profile


def manifest(
    plan: Plan, *, keep: str = "front", file: str | os.PathLike[str] | None = None, seed: int = 0
) -> dict[str, Any]:
    """The manifest of a sweep, as plain JSON. keep: which cells are stored; file: what the sweep was read from."""
    told = None if file is None else {"name": Path(file).name, "sha256": _sha256([Path(file)])}
    found = {
        "layout": LAYOUT,
        "sweep_file": told,
        "sweep": dataclasses.asdict(plan.spec) | {"profile": None},
        "keep": keep,
        "seed": seed,
        "n_cells": plan.n_cells,
        "n_blocks": len(plan.blocks),
        "block_shape": plan.block_shape,
        **grounds(plan.spec),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return json.loads(json.dumps(found))


def grounds(spec: Spec) -> dict[str, Any]:
    """Versions, code, catalogue, profile and platform: what has to be the same wherever blocks are computed."""
    profile = profiles.named(spec.profile)
    return {
        "versions": {"roofcast": sim.__version__} | {name: importlib.metadata.version(name) for name in PACKAGES},
        "code_sha256": _code_sha256(),
        "catalogue_sha256": _catalogue_sha256(),
        "profile": profile.name if profile else profiles.PRIORS,
        "profile_sha256": hashlib.sha256(to_toml(profile).encode() if profile else b"").hexdigest(),
        "platform": jax.default_backend(),
    }


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two manifests, one phrase each; empty where blocks of one serve the other."""
    found = []
    for name in (*here, *(name for name in there if name not in here)):
        old, new = there.get(name), here.get(name)
        if name in TOLD or old == new:
            continue
        if name in ("sweep", "versions") and isinstance(old, Mapping):
            keys = [key for key in {**new, **old} if old.get(key) != new.get(key)]
            found += [f"{key}: {shown(old.get(key))} there, {shown(new.get(key))} here" for key in keys]
        elif name == "profile_sha256":
            found.append(f"profile: {there.get('profile')} there, {here['profile']} here, of other content")
        elif name.endswith("_sha256"):
            found.append(f"the {name.removesuffix('_sha256')} has changed")
        else:
            found.append(f"{name}: {shown(old)} there, {shown(new)} here")
    return found


def identity(of: Mapping[str, Any]) -> bytes:
    """What the manifests of one sweep have in common."""
    return json.dumps({name: of[name] for name in sorted(of) if name not in TOLD}, sort_keys=True).encode()


@functools.cache
def _code_sha256() -> str:
    root = Path(sim.__file__).parents[1]
    return _sha256(path for room in ROOMS for path in (root / room).rglob("*.py"))


def _catalogue_sha256() -> str:
    shipped = [path for path in Path(catalog.__file__).parent.rglob("*") if path.suffix in (".toml", ".csv")]
    own = catalog.user_dir().glob("models/*.toml")
    return _sha256([*(path for path in shipped if path != profiles.SHIPPED), *own])


def _sha256(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
