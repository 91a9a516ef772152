"""From the name of a machine ("8x h100-sxm", "m3-ultra-96gb", "DGX H100") to its devices, links and host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sim.bounds import MOST_DEVICES
from sim.catalog.lookup import find, resolve
from sim.errors import RoofcastError, clipped, expect_text, sentence
from sim.schema import DeviceRow, HostRow, Link, SystemRow

_COUNT = re.compile(r"\s*(\d+)\s*[x×*]\s*-?\s*(?=\S)", re.IGNORECASE)
_MEMORY = re.compile(r"[\s-]*\b(\d+)\s*GB\+?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Machine:
    """`n_devices` equal devices in `nodes` domains of their link, and what joins the domains; memory option applied."""

    device: DeviceRow
    n_devices: int
    nodes: int
    link: Link
    scale_out_gb_per_s: float | None
    scale_out_latency_us: float | None
    system: SystemRow | None
    host: HostRow | None
    notes: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, float, int]:
        """What tells machines apart: their device, its memory, and how many there are, which settles the link."""
        return self.device.id, self.device.memory_bytes, self.n_devices


def parse_machine(
    name: str, devices: Mapping[str, DeviceRow], systems: Mapping[str, SystemRow], hosts: Mapping[str, HostRow]
) -> Machine:
    """The machine that `name` names: a device or a system, after an optional count, before an optional memory size."""
    expect_text(name, "a machine")
    rows: dict[str, DeviceRow | SystemRow] = {**devices, **systems}
    count, rest = (1, name) if find(name, rows) else _split_count(name)
    row, memory_gb = _named_row(rest, rows)
    n_devices = count
    if isinstance(row, SystemRow):
        n_devices = _devices_of(count, row)
        row = devices[row.device]
    return machine_of(with_memory(row, memory_gb), n_devices, systems, hosts, _notes_of_memory(row, memory_gb))


def machine_of(
    device: DeviceRow,
    n_devices: int,
    systems: Mapping[str, SystemRow],
    hosts: Mapping[str, HostRow],
    notes: tuple[str, ...] = (),
) -> Machine:
    """So many of a device (memory option applied): a known system of that many lends its link, else the device's."""
    system = next((s for s in systems.values() if (s.device, s.n_devices) == (device.id, n_devices)), None)
    link = system.link if system else device.link
    scale_out, latency = _scale_out(device, system, n_devices, link)
    return Machine(
        device=device,
        n_devices=n_devices,
        nodes=-(-n_devices // link.domain_devices),
        link=link,
        scale_out_gb_per_s=scale_out,
        scale_out_latency_us=latency,
        system=system,
        host=hosts[device.host] if device.host else None,
        notes=_guide_notes(device) + notes,
    )


def with_memory(device: DeviceRow, memory_gb: int | None) -> DeviceRow:
    """The device with one of its memory options (None: the largest): bytes, default usable fraction and price follow.

    The row's own price is that of its smallest option, so another option without a price of its own has none.
    """
    if not device.memory_options_gb:
        if memory_gb is not None and memory_gb != device.memory_gb:
            raise RoofcastError(sentence(f"{device.name} has {device.memory_gb:g} GB of memory, not {memory_gb} GB"))
        return device
    chosen = int(device.memory_gb) if memory_gb is None else memory_gb
    if chosen not in device.memory_options_gb:
        options = ", ".join(f"{device.id}-{option}gb" for option in device.memory_options_gb)
        raise RoofcastError(sentence(f"{device.name} was never sold with {chosen} GB", hint=f"choose one of {options}"))
    base_price = device.price_usd if chosen == min(device.memory_options_gb) else None
    applied = {
        "memory_gb": float(chosen),
        "memory_bytes": round(device.memory_bytes * chosen / device.memory_gb),
        "default_usable_frac": device.usable_frac_by_memory_gb.get(str(chosen), device.default_usable_frac),
        "price_usd": device.price_usd_by_memory_gb.get(str(chosen), base_price),
    }
    return device.model_copy(update=applied)


def _split_count(name: str) -> tuple[int, str]:
    match = _COUNT.match(name)
    if match is None:
        return 1, name
    count = _whole(match[1])
    if not 1 <= count <= MOST_DEVICES:
        what = f"expected 1 to {MOST_DEVICES:,} devices, found {clipped(match[1], most=20)}"
        raise RoofcastError(sentence(what, f'machine "{clipped(name)}"'))
    return count, name[match.end() :]


def _whole(digits: str) -> int:
    """The number, and anything too long for Python to read as a number that is too large."""
    return int(digits) if len(digits) <= len(str(MOST_DEVICES)) else MOST_DEVICES + 1


def _named_row(name: str, rows: Mapping[str, DeviceRow | SystemRow]) -> tuple[DeviceRow | SystemRow, int | None]:
    """A name that is known with its memory size ("B200 192GB") counts as such; else the size picks an option."""
    size = _MEMORY.search(name)
    memory_gb = _whole(size[1]) if size else None
    row = find(name, rows)
    if row is not None:
        return row, memory_gb if memory_gb in getattr(row, "memory_options_gb", ()) else None
    return resolve(name[: size.start()] if size else name, rows, "machine"), memory_gb


def _devices_of(count: int, system: SystemRow) -> int:
    if count > 1 and system.n_devices % system.link.domain_devices:
        what = f"{system.id} is part of a node, so {count} of it could be wired in two ways"
        raise RoofcastError(sentence(what, hint=f'count devices: "{count * system.n_devices}x {system.device}"'))
    return count * system.n_devices


def _scale_out(
    device: DeviceRow, system: SystemRow | None, n_devices: int, link: Link
) -> tuple[float | None, float | None]:
    owner = system if system and system.scale_out_gb_per_s else device
    if n_devices > link.domain_devices and owner.scale_out_gb_per_s is None:
        what = f"{n_devices}x {device.id} needs several nodes, and the catalogue knows no link between its nodes"
        hint = f"take at most {link.domain_devices}, or so many in each of several replicas"
        raise RoofcastError(sentence(what, hint=hint))
    return owner.scale_out_gb_per_s, owner.scale_out_latency_us


def _guide_notes(device: DeviceRow) -> tuple[str, ...]:
    if device.status == "exists":
        return ()
    named = f"{device.name} is named by the sizing guide but was never sold"
    return (f"{named}; nearest: {device.nearest}; {device.note}",)


def _notes_of_memory(device: DeviceRow, memory_gb: int | None) -> tuple[str, ...]:
    if memory_gb is not None or len(device.memory_options_gb) < 2:
        return ()
    options = ", ".join(map(str, device.memory_options_gb))
    return (f"{device.id}: no memory size given, took {device.memory_gb:g} GB; options are {options} GB",)
