"""From a checked deployment to what the event simulator needs of it: the seconds of its steps, and its rules."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import numpy as np

from kernels.economics import n_devices
from kernels.loop import in_flight
from kernels.memory import memory
from kernels.steady import highest_peak
from kernels.step_table import StepTable, step_table
from kernels.types import Device, Engine, Layout, Workload
from sim import errors
from sim.config import ROUND_ROBIN
from sim.errors import RoofcastError, sentence
from sim.point import split
from sim.request import Request
from sim.serving.lanes import Rules

MOST_BLOCKS = 2**31 - 2**20  # counted in 32 bits; a cache of more never runs out


@dataclass(frozen=True)
class Served:
    """One deployment of a request, ready for traffic."""

    table: StepTable
    rules: Rules
    front_s: float  # of the engine's front end, once a request: added to every TTFT and E2E
    replicas: int
    n_devices: int
    context_tokens: int  # longest sequence it takes
    blocks_from: str  # "stated" or "memory"
    device: Device
    engine: Engine
    peak_flops_per_s: float  # of the fastest unit that multiplies weights
    usd_per_device_s: float
    usd_per_joule: float
    router: str = ROUND_ROBIN  # between replicas: one of ROUTERS
    notes: tuple[str, ...] = ()  # sentences on what is approximate of it

    def with_replicas(self, n: int) -> Served:
        """The same with so many replicas."""
        return replace(self, replicas=n, n_devices=self.n_devices // self.replicas * n)


def served(
    request: Request, index: int = 0, prefix_tokens: int = 0, router: str = ROUND_ROBIN, evicts: bool = False,
    watermark: float = 0.0,
) -> Served:  # fmt: skip
    """The deployment of one point of a request. prefix_tokens: of a system prompt that all requests share; evicts: an
    engine that would reserve prompt and output takes blocks as tokens come, and preempts (MAX_UTILIZATION); watermark:
    share of the blocks that admission leaves free while something runs.

    Attention-DP ranks and micro-batches of a pipeline are one scheduler here, with the sum of their budgets, places and
    blocks; `notes` says so. Layers computed by the host are not looked at. RoofcastError where it does not fit.
    """
    point = jax.tree.map(lambda a: np.asarray(a)[index], request.points)
    engine, layout, load = split(request.setup.engine, point)
    with jax.enable_x64(True):
        table = jax.tree.map(np.asarray, step_table(request.setup.model, request.setup.device, engine, layout))
    stated = bool(np.isfinite(load.kv_pool_tokens))
    n_blocks = (
        _stated_blocks(request, load, int(layout.dp)) if stated else _blocks_of_memory(request, engine, layout, load)
    )
    return Served(
        table=table,
        rules=_rules(request, engine, layout, load, min(n_blocks, MOST_BLOCKS), prefix_tokens, evicts, watermark),
        front_s=float(engine.request_s),
        replicas=int(layout.replicas),
        n_devices=int(n_devices(layout)),
        context_tokens=int(request.setup.model.max_context_tokens),
        blocks_from="stated" if stated else "memory",
        device=request.setup.device,
        engine=engine,
        peak_flops_per_s=float(highest_peak(request.setup.model, request.setup.device)),
        usd_per_device_s=float(point.usd_per_device_s),
        usd_per_joule=float(point.usd_per_joule),
        router=router,
        notes=_notes(request, layout, load),
    )


def _notes(request: Request, layout: Layout, load: Workload) -> tuple[str, ...]:
    """What is approximate of a deployment, where it is."""
    notes, model, context = [], request.setup.model, float(load.context_tokens)
    if request.engine.id == "sglang":
        what = "which requests it retracts (here the last admitted), and its new_token_ratio, are not modelled"
        notes.append(f"SGLang with a full KV cache: {what}; it may admit fewer, or retract others")
    if request.engine.last_token_alone:
        what = "is no step of its own here, as it is in the engine: TTFT is short by about one decode step"
        notes.append(f"{request.engine.name}: the last token of a prompt {what}")
    if (ways := int(layout.dp)) > 1:
        off = "over 20 measured runs TTFT came out about 60 % too short"
        notes.append(f"attention-DP: {ways} ranks are one scheduler here, with the sum of their budgets: {off}")
    windows = (model.local_entry_bytes > 0) & (model.window_tokens < context)
    if np.any(model.attn_layers * (windows | (model.state_bytes > 0))):
        what = "sliding windows or recurrent states, averaged over one sequence of that length"
        notes.append(f"KV blocks: each counts as at a context of {context:,.0f} tokens ({what})")
    return tuple(notes)


def _rules(
    request: Request, engine: Engine, layout: Layout, load: Workload, n_blocks: int, prefix: int, evicts: bool,
    watermark: float,
) -> Rules:  # fmt: skip
    ways = float(layout.dp)
    places = float(engine.max_sequences) * ways
    reserves = bool(engine.reserves_context) and not evicts
    if request.engine.slots:  # the context is split over slots, each allocated up front
        own = -(-int(load.context_tokens) // int(engine.block_tokens))
        places = min(places, max(n_blocks // own, 1))
    return Rules(
        block_tokens=int(engine.block_tokens),
        n_blocks=n_blocks,
        max_batched_tokens=int(float(engine.max_batched_tokens) * ways * float(in_flight(engine, layout))),
        max_sequences=int(places),
        mixes_prefill=bool(engine.mixes_prefill),
        reserves=reserves,
        whole_gate=not evicts,
        watermark_blocks=int(watermark * (n_blocks + request.engine.null_blocks)),
        prefix_tokens=prefix,
        admission_steps=int(engine.admission_steps),
        caches_prefix=request.engine.caches_prefix,
    )


def _stated_blocks(request: Request, load: Workload, ranks: int) -> int:
    """Usable blocks of those the user counts, of all attention-DP ranks: each has as many, and one of them is the
    engine's own where it keeps a null block.
    """
    stated = round(float(load.kv_pool_tokens) / request.engine.block_tokens)
    usable = stated - request.engine.null_blocks
    if usable < 1:
        what = f"{stated} leaves no block for requests, since {request.engine.name} keeps {request.engine.null_blocks}"
        raise RoofcastError(sentence(what, "kv_blocks", "take the count of the engine's log"))
    return usable * ranks


def _blocks_of_memory(request: Request, engine: Engine, layout: Layout, load: Workload) -> int:
    """Blocks that the pool holds, each at the bytes that a block of a sequence of the asked context takes on average
    (windows and states make short sequences dearer), over the attention-DP ranks.
    """
    device = request.setup.device
    mem = memory(request.setup.model, device, engine, layout, load)
    per = -(-float(load.context_tokens) // float(engine.block_tokens))
    each = (float(mem.sequence_kv_bytes) + float(mem.sequence_state_bytes)) / per
    pool = float(mem.pool_bytes)
    if pool <= 0 or float(mem.host_bytes) > float(device.host_memory_bytes):
        raise RoofcastError(sentence(errors.why_reasons(errors.WEIGHTS_DO_NOT_FIT)[0], "hardware"))
    found = MOST_BLOCKS if each == 0 else int(pool / each)
    n_blocks = (found - request.engine.null_blocks) * int(layout.dp)
    if n_blocks < per:
        raise RoofcastError(sentence(errors.why_reasons(errors.KV_DOES_NOT_FIT)[0], "hardware"))
    return n_blocks
