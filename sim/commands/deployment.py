"""Arguments that say what is deployed where, shared by the commands that take a model and a machine."""

from __future__ import annotations

import argparse
from typing import Any

from sim.commands.parsing import Parser, amount, count, counts, fraction, level, positive_fraction

SWEPT = ("prompt", "output", "context", "concurrency")


def add_subject(parser: Parser) -> None:
    """Declare MODEL and HARDWARE."""
    parser.add_argument("model", metavar="MODEL", help="name or id, as in roofcast models")
    parser.add_argument("hardware", metavar="HARDWARE", help='name or id, as in roofcast hardware, or "2x RTX 4090"')


def add_layout(parser: Parser) -> None:
    """Declare parallelism and offload."""
    group = parser.add_argument_group("layout")
    group.add_argument("--gpus", type=count(), metavar="N", help="devices (default: those of HARDWARE)")
    group.add_argument("--tp", type=count(), metavar="N", help="tensor parallel (default: all devices of a replica)")
    group.add_argument("--pp", type=count(), metavar="N", help="pipeline parallel")
    group.add_argument("--ep", type=count(), metavar="N", help="expert parallel")
    group.add_argument("--dp", type=count(), metavar="N", help="attention data parallel within a replica")
    group.add_argument("--replicas", type=count(), metavar="N", help="independent copies that share the devices")
    group.add_argument(
        "--gpu-layers", "-ngl", type=count(0), metavar="N", help="layers on the devices; the rest in host memory"
    )
    group.add_argument("--cpu-moe-frac", type=fraction, metavar="F", help="share of the routed experts in host memory")


def add_engine(parser: Parser) -> None:
    """Declare formats, engine and the engine's own limits."""
    group = parser.add_argument_group("formats and engine")
    group.add_argument("--weights", metavar="FORMAT", help="bf16, fp8, int4, q4_k_m, ... (default: as published)")
    group.add_argument("--kv", metavar="FORMAT", help="KV cache at 16, 8 or 4 bit (default: the engine's)")
    group.add_argument("--engine", metavar="NAME", help="as in roofcast engines (default: one that runs it)")
    group.add_argument("--max-num-batched-tokens", type=count(), metavar="N", help="tokens of one step")
    group.add_argument("--max-num-seqs", type=count(), metavar="N", help="sequences that run at once")
    group.add_argument(
        "--gpu-memory-utilization", type=positive_fraction, metavar="F", help="share of memory the engine takes"
    )
    group.add_argument("--kv-blocks", type=count(), metavar="N", help="KV blocks, in place of what the memory holds")


def add_load(parser: Parser) -> None:
    """Declare the load and the price; lists are swept."""
    group = parser.add_argument_group("load and price; each LIST is swept: 1,8,32 or 4k,128k, where 1k is 1024")
    group.add_argument("--concurrency", type=counts, metavar="LIST", help="requests in flight (default: 1)")
    group.add_argument("--prompt", type=counts, metavar="LIST", help="prompt tokens of a request (default: 512)")
    group.add_argument("--output", type=counts, metavar="LIST", help="output tokens of a request (default: 128)")
    group.add_argument("--context", type=counts, metavar="LIST", help="tokens that must fit (default: prompt + output)")
    group.add_argument(
        "--num-prompts", dest="n_requests", type=count(), metavar="N",
        help="requests of a benchmark that starts with all at once (default: endless)",
    )  # fmt: skip
    group.add_argument(
        "--admission-steps", type=count(), metavar="N", help="decode steps between the engine's looks at new prompts"
    )
    group.add_argument("--mixed-chunk", type=count(0), metavar="N", help="1 if prompts share steps with decode, else 0")
    group.add_argument("--length-spread", type=fraction, metavar="F", help="range of their lengths over its mean")
    group.add_argument("--pay", metavar="HOW", help="rent, or buy over 4 years plus electricity (default: by device)")
    group.add_argument("--price", type=amount, metavar="USD", help="per GPU-hour (default: the catalogue's)")


def add_profile(group: argparse._ActionsContainer, interval: bool = False) -> None:
    """Declare the profile that forecasts rest on, and the interval about them where it can be had."""
    what = "calibrated profile, or none: the catalogue's figures as they are"
    group.add_argument("--profile", metavar="PATH|none", help=what)
    if interval:
        group.add_argument("--interval", type=level, metavar="LEVEL", help="show where that share lies: 0.8")


def add_draws(parser: argparse._ActionsContainer) -> None:
    """Declare the seed and the number of replications of traffic."""
    parser.add_argument("--seed", type=count(0), metavar="N", help="of arrivals and lengths (default: the file's)")
    parser.add_argument("--replications", type=count(), metavar="N", help="runs of each load, with different seeds")


def grid_axes(args: argparse.Namespace) -> dict[str, Any]:
    """Swept arguments as arrays that broadcast to their product, one axis for each list; concurrency runs fastest."""
    import numpy as np

    given: dict[str, list[int]] = {name: getattr(args, name) for name in SWEPT if getattr(args, name)}
    swept = [name for name, values in given.items() if len(values) > 1]
    shapes = {name: [-1 if other == name else 1 for other in swept] for name in swept}
    return {name: np.reshape(values, shapes[name]) if name in swept else values[0] for name, values in given.items()}
