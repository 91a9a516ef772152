"""Where a calibrated shift applies: an engine on a device, and the structural kind of the model."""

from __future__ import annotations

from dataclasses import dataclass

from sim.profiles import kind_of
from sim.request import Request
from sim.schema import DeviceRow


@dataclass(frozen=True)
class Context:
    """What selects the shifts of a deployment."""

    engine: str
    device: DeviceRow
    kind: str


def context(request: Request) -> Context:
    """The context of a checked call."""
    return Context(request.engine.id, request.machine.device, kind_of(request.model))
