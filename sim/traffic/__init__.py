"""Requests that arrive at a service: drawn from a description of the traffic, or replayed from a trace.

`Traffic` is the `[traffic]` table of a scenario file; `draw` makes arrays of requests of it; `read_trace` reads the
traces that others publish. Nothing here knows of models or machines.
"""

from __future__ import annotations

from sim.traffic.draw import draw
from sim.traffic.requests import Hashes, Requests
from sim.traffic.tables import TABLES, Lengths, Traffic
from sim.traffic.trace import Trace, read_trace

__all__ = ["TABLES", "Hashes", "Lengths", "Requests", "Trace", "Traffic", "draw", "read_trace"]
