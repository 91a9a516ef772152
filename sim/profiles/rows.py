"""Rows of a profile, as its TOML file has them."""

from __future__ import annotations

import functools
import re
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    create_model,
    model_validator,
)

from sim import catalog
from sim.engines import EfficiencyRow, Kernel, architecture
from sim.errors import RoofcastError, sentence
from sim.schema import Row
from sim.toml_errors import contradict

ANY = "*"
KINDS = tuple(f"{mixer}{ffn}" for mixer in ("gqa", "mla", "dsa", "linear") for ffn in ("", "+moe"))
LEVELS = ("engine", "arch", "device", "engine_arch", "engine_device", "engine_kind")
MOST_SHIFT = 10.0
LESS_CERTAIN = {"request_us": 3.0, "lockstep_frac": 2.0, "state_": 2.0}  # than others, whose priors were measured
KERNELS: tuple[str, ...] = get_args(Kernel)
Quantity = Literal["tpot_s", "ttft_s", "itl_s", "e2e_s", "decode_step_s", "prefill_s", "output_tokens_per_s",
                   "total_tokens_per_s"]  # fmt: skip

Text = Annotated[str, Field(min_length=1, max_length=500)]
Bounded = Annotated[float, Field(ge=-MOST_SHIFT, le=MOST_SHIFT)]
Deviation = Annotated[float, Field(gt=0, le=MOST_SHIFT)]
Pair = Annotated[tuple[Bounded, Deviation], Field(strict=False)]
Level = Annotated[float, Field(gt=0, lt=1)]
Place = tuple[str, str, str]
Entry = tuple[str, str]  # a field of an efficiency row, and one of its weight kernels or ""


def _shiftable() -> dict[str, bool]:
    """Numeric fields of an efficiency row, without those of power, which nothing times: field -> by weight kernel."""
    by_kernel = {name: get_origin(field.annotation) is dict for name, field in EfficiencyRow.model_fields.items()}
    optional = {name for name, field in EfficiencyRow.model_fields.items() if field.default is None}
    numbers = {name: kernels for name, kernels in by_kernel.items() if kernels or name in optional}
    return {name: kernels for name, kernels in numbers.items() if not name.endswith("_power_frac")}


FIELDS = _shiftable()


class Table(Row):
    """A table of a profile: no guessing of types, no infinities."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


def _fingerprints(text: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9+/]{8})*", text):
        raise ValueError("expected fingerprints as `roofcast calibrate` writes them, 8 characters each")
    return text


class Data(Table):
    """A file that the profile was fitted to; fingerprints: of its figures, as `sim.calibration.known` packs them."""

    file: Text
    rows: NonNegativeInt
    used: NonNegativeInt
    quantities: dict[str, NonNegativeInt] = {}
    fingerprints: Annotated[str, AfterValidator(_fingerprints)] = ""


class HeldOutError(Table):
    """Errors of a quantity on rows held out; further keys are named by the statistic: `after_median_frac`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | str] = Field(init=False)

    quantity: Text
    rows: NonNegativeInt


class PriorSd(Table):
    """Standard deviation of a shift at each level, where the profile has no row."""

    engine: NonNegativeFloat
    arch: NonNegativeFloat
    device: NonNegativeFloat
    engine_arch: NonNegativeFloat
    engine_device: NonNegativeFloat
    engine_kind: NonNegativeFloat

    def of(self, level: str, field: str) -> float:
        """Of a shift of a field of an efficiency row at a level."""
        return getattr(self, level) * next((more for name, more in LESS_CERTAIN.items() if name in field), 1.0)


class Interval(Table):
    """How wide the interval of a quantity is: levels -> quantiles of |log error| / s, where s² = noise² + spread²."""

    noise: NonNegativeFloat
    levels: Annotated[tuple[Level, ...], Field(strict=False, min_length=1)]
    widths: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False, min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Interval:
        problems = {}
        for name in ("levels", "widths"):
            if any(low >= high for low, high in pairwise(getattr(self, name))):
                problems[name] = "expected numbers that increase"
        if len(self.levels) != len(self.widths):
            problems["widths"] = f"{len(self.widths)} widths of {len(self.levels)} levels"
        contradict(problems)
        return self

    def width_at(self, level: float, profile: str) -> float:
        """The width of a level, between those of the table; RoofcastError beyond them."""
        if not self.levels[0] <= level <= self.levels[-1]:
            what = f"the profile {profile} has intervals from {self.levels[0]:g} to {self.levels[-1]:g}, not {level:g}"
            raise RoofcastError(sentence(what, "interval"))
        return float(np.interp(level, self.levels, self.widths))


class Evidence(Table):
    """How many measured rows are behind an engine on a device."""

    engine: Text
    device: Text
    rows: NonNegativeInt


class ShiftPlace(Table):
    """Where a shift applies: "*", or an engine's id; an architecture or a device's id; a kind of model.

    An id that is also an architecture's name ("m4") means the architecture.
    """

    engine: Text = ANY
    device: Text = ANY
    kind: Text = ANY

    @property
    def place(self) -> Place:
        """(engine, device, kind)."""
        return self.engine, self.device, self.kind

    def entries(self) -> dict[Entry, tuple[float, float]]:
        """(field, weight kernel or "") -> (shift, standard deviation)."""
        given = {name: value for name in FIELDS if (value := getattr(self, name)) is not None}
        return {
            (name, kernel): pair
            for name, value in given.items()
            for kernel, pair in (value.items() if isinstance(value, dict) else [("", value)])
        }


if TYPE_CHECKING:
    Shift = ShiftPlace
else:
    _FORMS = {False: (Pair | None, None), True: (dict[Kernel, Pair], {})}
    Shift = create_model("Shift", __base__=ShiftPlace, **{name: _FORMS[kernels] for name, kernels in FIELDS.items()})


class Profile(Table):
    """A profile: shifts with their uncertainty, what they were fitted to, and how wrong forecasts with them were."""

    name: Text
    created: Text
    roofcast: str = ""
    base: str = ""
    data: Annotated[tuple[Data, ...], Field(strict=False)] = ()
    error: Annotated[tuple[HeldOutError, ...], Field(strict=False)] = ()
    prior_sd: PriorSd
    interval: dict[Quantity, Interval] = {}
    evidence: Annotated[tuple[Evidence, ...], Field(strict=False)] = ()
    shift: Annotated[tuple[Shift, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _check(self) -> Profile:
        lacks = bool(self.interval) and "tpot_s" not in self.interval
        contradict({"interval": "[interval.tpot_s] is missing, on which other quantities lean"} if lacks else {})
        return self

    @cached_property
    def by_place(self) -> dict[Place, dict[Entry, tuple[float, float]]]:
        """The shifts of each place."""
        return {row.place: row.entries() for row in self.shift}


TABLES: dict[str, type[BaseModel]] = {
    "": Profile, "data": Data, "error": HeldOutError, "prior_sd": PriorSd, "interval": Interval,
    "evidence": Evidence, "shift": Shift,
}  # fmt: skip


@functools.cache
def architectures() -> frozenset[str]:
    """Architectures of the catalogue's devices."""
    return frozenset(architecture(device) for device in catalog.devices().values())


def level_of(engine: str, device: str, kind: str) -> str | None:
    """The level of a shift that applies there, or None where none is pooled so."""
    where = "" if device == ANY else "arch" if device in architectures() else "device"
    parts = ("engine" if engine != ANY else "", where, "kind" if kind != ANY else "")
    name = "_".join(part for part in parts if part)
    return name if name in LEVELS else None
