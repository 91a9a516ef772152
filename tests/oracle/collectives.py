"""Collectives, message by message."""

from __future__ import annotations

import math
from types import SimpleNamespace

Spaces = SimpleNamespace
HALF_MEBIBYTE = 2.0**19


def link_rate(device: Spaces, engine: Spaces, ranks: int) -> float:
    """Bytes per second out of one device: one link where there is a switch, else one to each peer it has a link to."""
    links = [peer for peer in range(1, ranks) if not device.link_mesh_links or peer <= device.link_mesh_links]
    used = len(links) if device.link_mesh_links else 1
    return max(used, 1) * device.link_bytes_per_s * engine.link_frac


def start_up(device: Spaces, engine: Spaces, ranks: int) -> float:
    """The library's latency, with a term for each doubling beyond two ranks; at least the link's own, which a message
    on a bus meets again at every hop.
    """
    seconds, reached = engine.allreduce_s, 2
    while reached < ranks:
        seconds, reached = seconds + engine.allreduce_log2_s, reached * 2
    hops = range(1, max(ranks, 2)) if device.link_bus else range(1)
    return max(seconds, sum(device.link_latency_s for _ in hops))


def ring(n_bytes: float, ranks: int, rate: float) -> float:
    """Seconds of a ring: n − 1 steps that reduce and scatter, n − 1 that gather, each of 1/n of the message."""
    return sum(n_bytes / ranks / rate for _ in range(2 * (ranks - 1)))


def all_reduce(n_bytes: float, ranks: float, device: Spaces, engine: Spaces) -> float:
    """A ring inside each domain; then, where there are several, a ring between them for each device's own part."""
    inside = min(int(ranks), int(device.domain_devices))
    domains = int(ranks) // inside
    seconds = 0.0
    if inside > 1:
        rate = min(link_rate(device, engine, inside), device.allreduce_bytes_per_s)
        seconds += ring(n_bytes, inside, rate) + start_up(device, engine, inside)
        seconds += math.log2(inside) * engine.allreduce_ramp_s / (1.0 + HALF_MEBIBYTE / n_bytes) if n_bytes else 0.0
    if domains > 1:
        seconds += ring(n_bytes / inside, domains, device.scale_out_bytes_per_s * engine.link_frac)
        seconds += start_up(device, engine, inside)
        reached = 1
        while reached < 2 * domains:
            seconds, reached = seconds + device.scale_out_latency_s, reached * 2
    return seconds


def hit(n_choices: float, n_places: int) -> float:
    """Chance that a place is among k uniform choices of n."""
    return 1.0 - (1.0 - 1.0 / n_places) ** n_choices


def all_to_all(n_bytes: float, n_choices: float, ranks: float, device: Spaces, engine: Spaces) -> float:
    """Inside one domain: each token goes to every peer that has one of its experts. Between domains: once to every
    domain that has one, beside the transfers inside a domain.
    """
    if int(ranks) == 1:
        return 0.0
    inside = min(int(ranks), int(device.domain_devices))
    domains = int(ranks) // inside
    near = sum(n_bytes * hit(n_choices, inside) for _ in range(1, inside))
    far = sum(n_bytes * hit(n_choices, domains) for _ in range(1, domains))
    across = far / (device.scale_out_bytes_per_s * engine.link_frac)
    latency = start_up(device, engine, inside) + (device.scale_out_latency_s if domains > 1 else 0.0)
    return max(near / link_rate(device, engine, inside), across) + latency


def point_to_point(n_bytes: float, device: Spaces, engine: Spaces) -> tuple[float, float]:
    """One message over one link: inside a domain, and between domains."""
    near = n_bytes / (device.link_bytes_per_s * engine.link_frac) + device.link_latency_s
    return near, n_bytes / (device.scale_out_bytes_per_s * engine.link_frac) + device.scale_out_latency_s
