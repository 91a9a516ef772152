"""Every model on every device, one to eight of them, in its native format and one of 4 bits, through every kernel."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from kernels.types import COMMUNICATION
from sim import catalog, errors
from sim.engines import engines
from sim.layouts import Parallel, fill
from sim.point import Answer, answer, stack
from tests import rows

ENGINES = {"vllm": "int4", "mlx": "mlx4", "llamacpp": "q4_k_m"}  # and a 4-bit format of each, in order of preference
COUNTS = (1, 2, 4, 8)
LOADS = {
    "light": {"concurrency": 8, "prompt_tokens": 1024, "output_tokens": 128, "context_tokens": 1152},
    "heavy": {"concurrency": 1000, "prompt_tokens": 6000, "output_tokens": 200, "context_tokens": 8000},
}
SLACK = 1.0 + 1e-5
BLOCK = 8192


class Case(NamedTuple):
    """One configuration, by name."""

    model: str
    weights: str
    device: str
    count: int
    engine: str
    parallel: Parallel


@functools.cache
def parallels(model_id: str, engine_id: str, count: int, domain: int) -> tuple[Parallel, ...]:
    """The layout that is taken where none is asked for; and attention-DP, with the experts spread over its ranks."""
    engine, row = engines()[engine_id], catalog.models()[model_id]
    asked = [Parallel()]
    if engine.attention_dp and 1 < count <= domain:
        n_experts = max((ffn.n_experts for ffn in row.ffn.values() if ffn.type == "moe"), default=1)
        asked.append(Parallel(tp=1, dp=count, ep=1 if n_experts % count else count))
    return tuple(fill(one, count, engine, row, domain) for one in asked)


@functools.cache
def engine_of(model_id: str, device_id: str, four_bits: bool) -> str | None:
    """The first engine that runs the model on the device in its native format, or in the engine's own of 4 bits."""
    able = (e for e, w in ENGINES.items() if rows.runs(engines()[e], device_id, model_id, w if four_bits else "native"))
    return next(able, None)


def cases() -> Iterator[Case]:
    """All that some engine runs, on as many devices as the catalogue knows how to join."""
    for device_id in catalog.devices():
        for model_id in catalog.models():
            for four_bits in (False, True):
                engine_id = engine_of(model_id, device_id, four_bits)
                for count in COUNTS if engine_id else ():
                    machine = rows.machine(device_id, count)
                    if machine is not None:
                        weights = ENGINES[engine_id] if four_bits else "native"
                        for shape in parallels(model_id, engine_id, count, machine.link.domain_devices):
                            yield Case(model_id, weights, device_id, count, engine_id, shape)


class Distinct:
    """Trees by name, each kept once, and the index of each."""

    def __init__(self) -> None:
        self.indices: dict[Any, int] = {}
        self.trees: list[Any] = []

    def index(self, name: Any, tree: Any) -> int:
        """Where the tree of this name is kept."""
        if name not in self.indices:
            self.indices[name] = len(self.trees)
            self.trees.append(tree)
        return self.indices[name]


@dataclass(frozen=True)
class Sweep:
    """All cases, columns of their answers, and of the peaks of their devices."""

    cases: list[Case]
    found: Answer
    bandwidth: np.ndarray
    peak: np.ndarray
    context_tokens: int

    @property
    def fits(self) -> np.ndarray:
        """Cases that can be served."""
        return (self.found.why & errors.INFEASIBLE) == 0

    def worst(self, wrong: np.ndarray) -> list[Case]:
        """A few of the cases where something is wrong."""
        return [self.cases[i] for i in np.flatnonzero(wrong)[:5]]


@dataclass(frozen=True)
class Arguments:
    """Stacked models and machines, and which of them each case takes, with its layout."""

    cases: list[Case]
    models: Any
    machines: Any
    which: np.ndarray
    layout: Any

    def points(self, take: np.ndarray, load: dict[str, Any]) -> Any:
        """Points of these cases under a load."""
        engine = jax.tree.map(lambda leaf: leaf[self.which[take, 1]], self.machines[1])
        points = rows.point(
            jax.tree.map(lambda leaf: np.broadcast_to(leaf, len(self.which))[take], self.layout), engine, **load
        )
        return jax.tree.map(lambda leaf: np.broadcast_to(leaf, len(take)), points)


@pytest.fixture(scope="module")
def arguments() -> Arguments:
    """All cases, lowered once for each distinct model and machine."""
    every, models, machines, which = list(cases()), Distinct(), Distinct(), []
    for case in every:
        name = case.model, case.weights, case.engine
        machine = case.device, case.count, case.engine
        which.append((models.index(name, rows.model(*name)), machines.index(machine, rows.device(*machine))))
    shapes = {n: np.asarray([getattr(c.parallel, n) for c in every]) for n in ("tp", "pp", "dp", "ep", "replicas")}
    return Arguments(every, stack(models.trees), stack(machines.trees), np.asarray(which), rows.layout(**shapes))


@jax.jit
def _block(models, machines, points, which) -> Answer:
    pick = [jax.tree.map(lambda leaf, i=i: leaf[which[:, i]], tree) for i, tree in enumerate((models, machines))]
    return jax.vmap(answer)(pick[0], *pick[1], points)


def answers(arguments: Arguments, take: np.ndarray, load: dict[str, Any]) -> Answer:
    """Answers of these cases, in blocks of one compiled size."""
    points, parts = arguments.points(take, load), []
    for start in range(0, len(take), BLOCK):
        part = np.arange(start, start + BLOCK) % len(take)
        block = jax.tree.map(lambda leaf, part=part: leaf[part], points)
        out = _block(arguments.models, arguments.machines, block, arguments.which[take[part]])
        parts.append(jax.tree.map(np.asarray, out))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(take)], *parts)


@pytest.fixture(scope="module", params=LOADS)
def sweep(request: pytest.FixtureRequest, arguments: Arguments) -> Sweep:
    """Answers of all cases under one load."""
    found = answers(arguments, np.arange(len(arguments.cases)), LOADS[request.param])
    device = jax.tree.map(lambda leaf: leaf[arguments.which[:, 1]], arguments.machines[0])
    return Sweep(
        arguments.cases,
        found,
        device.bandwidth_bytes_per_s,
        np.max(device.peak_flops_per_s, axis=1),
        LOADS[request.param]["context_tokens"],
    )


def test_more_users_never_lower_the_throughput(arguments: Arguments) -> None:
    take = np.arange(0, len(arguments.cases), 23)
    load = {"prompt_tokens": 1024, "output_tokens": 256, "context_tokens": 1280}
    rates, fits = [], None
    for users in 2 ** np.arange(11):
        found = answers(arguments, take, {**load, "concurrency": users})
        rates.append(found.steady.requests_per_s)
        fits = (found.why & errors.INFEASIBLE) == 0
    ratio = np.asarray(rates)[1:, fits] / np.asarray(rates)[:-1, fits]
    case, users = np.unravel_index(np.argmin(ratio.T), ratio.T.shape)
    assert ratio.min() >= 0.998, (arguments.cases[take[np.flatnonzero(fits)[case]]], 2**users)


def test_every_model_and_device_is_in_the_sweep(sweep: Sweep) -> None:
    assert {case.model for case in sweep.cases} == set(catalog.models())
    assert {case.device for case in sweep.cases} == set(catalog.devices())
    assert len(sweep.cases) > 40_000
    assert 0.3 < sweep.fits.mean() < 0.9


def test_everything_is_finite_where_it_fits(sweep: Sweep) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(sweep.found):
        flat = leaf.reshape(len(sweep.cases), -1)
        wrong = sweep.fits & ~np.all(np.isfinite(flat) & (flat >= 0), axis=1)
        assert not wrong.any(), (jax.tree_util.keystr(path), sweep.worst(wrong))


def test_why_says_what_does_not_fit(sweep: Sweep) -> None:
    mem, why = sweep.found.memory, sweep.found.why
    others = mem.weights_bytes + mem.activation_bytes + mem.reserve_bytes
    sequence = mem.sequence_kv_bytes + mem.sequence_state_bytes
    for bit, over in (
        (errors.WEIGHTS_DO_NOT_FIT, others > mem.usable_bytes * SLACK),
        (errors.KV_DOES_NOT_FIT, (others < mem.usable_bytes / SLACK) & (others + sequence > mem.usable_bytes * SLACK)),
    ):
        assert over.any()
        assert np.all(why[over] & bit), sweep.worst(over & (why & bit == 0))
    roomy = others + sequence < mem.usable_bytes / SLACK
    wrong = roomy & (why & ~errors.CONTEXT_TOO_LONG != 0)
    assert not wrong.any(), sweep.worst(wrong)
    limits = np.asarray([catalog.models()[case.model].max_context_tokens for case in sweep.cases])
    np.testing.assert_array_equal(why & errors.CONTEXT_TOO_LONG != 0, limits < sweep.context_tokens)


def test_no_decode_beats_the_memory(sweep: Sweep) -> None:
    decode = sweep.found.steady.decode
    streamed = decode.bytes[:, :COMMUNICATION].sum(axis=1)
    wrong = sweep.fits & (streamed > decode.total_s * sweep.bandwidth * SLACK)
    assert not wrong.any(), sweep.worst(wrong)


def test_no_prefill_beats_the_compute(sweep: Sweep) -> None:
    prefill = sweep.found.steady.prefill
    wrong = sweep.fits & (prefill.flops[:, :COMMUNICATION].sum(axis=1) > prefill.total_s * sweep.peak * SLACK)
    assert not wrong.any(), sweep.worst(wrong)


def test_utilization_is_a_share(sweep: Sweep) -> None:
    state = sweep.found.steady
    for name in ("mbu_frac", "mfu_frac"):
        value = getattr(state, name)
        wrong = sweep.fits & ((value <= 0) | (value > SLACK))
        assert not wrong.any(), (name, sweep.worst(wrong))


def test_four_bits_need_less_memory_than_sixteen(sweep: Sweep) -> None:
    bf16 = {
        m
        for m, row in catalog.models().items()
        if row.native_format.other == row.native_format.routed_experts == "bf16"
    }
    bytes_of = dict(zip(sweep.cases, sweep.found.memory.weights_bytes, strict=True))
    pairs = [
        (c, c._replace(weights=ENGINES[c.engine])) for c in sweep.cases if c.weights == "native" and c.model in bf16
    ]
    narrower = [bytes_of[b] < bytes_of[a] for a, b in pairs if b in bytes_of]
    assert len(narrower) > 10_000
    assert all(narrower)
