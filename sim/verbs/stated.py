"""What a caller states of files that do not say it themselves, checked once and not for every row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from sim import catalog, measure
from sim.engines import engine
from sim.errors import RoofcastError, expect_text, sentence, shown
from sim.formats import kv_format

NAMES = ("model", "hardware", "engine", "weights", "kv")


def look_ups(stated: Mapping[str, Any]) -> list[Callable[[], Any]]:
    """Finds what each of NAMES stands for; a RoofcastError of each says which slip is in it."""
    by_name: dict[str, Callable[[str], Any]] = {
        "model": catalog.model, "hardware": catalog.machine, "engine": engine, "weights": _format, "kv": kv_format,
    }  # fmt: skip
    given = {name: stated[name] for name in NAMES if stated.get(name) is not None}
    return [functools.partial(by_name[of], name) for of, name in given.items()]


def check_progress(progress: Any) -> None:
    """Raises RoofcastError where progress is to be told to what cannot be called."""
    if not callable(progress):
        raise RoofcastError(sentence(f"expected a function, found {shown(progress)}", "progress"))


def _format(name: str) -> Any:
    known = ("native", *measure.names.tables()["precision"])
    return name if expect_text(name, "a weight format") in known else catalog.fmt(name)
