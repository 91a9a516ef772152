"""The largest dense model that a machine runs: a model of Llama 3's shape, scaled until it no longer fits."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from sim import catalog
from sim.catalog import Machine
from sim.engines import EngineRow, limits, memory_frac
from sim.errors import INFEASIBLE
from sim.formats import weight_bytes, weight_plan
from sim.lower import NO_LIMIT, lower_device, lower_engine, lower_model
from sim.params import count
from sim.point import Point, Setup, evaluate
from sim.schema import LayerRun, ModelRow
from sim.units import GB

SMALL, LARGE = "Llama 3 8B", "Llama 3.3 70B"
STEPS = 12  # bisections from 1 to 1,000 billion parameters: to 0.2 %


def scaled_llama(params: float) -> ModelRow:
    """A dense model of about `params` parameters: layers and width on the power law through Llama 3 8B and 70B.

    Width is rounded to heads of 128 in groups of 8, then layers to the parameters.
    """
    small, large = catalog.model(SMALL), catalog.model(LARGE)
    position = np.log(params / count(small).total) / np.log(count(large).total / count(small).total)
    width = small.hidden_size * (large.hidden_size / small.hidden_size) ** position
    hidden = max(round(width / 1024), 1) * 1024
    one = _row(small, hidden, 1)
    per_layer = count(_row(small, hidden, 2)).total - count(one).total
    layers = max(round((params - count(one).total) / per_layer) + 1, 1)
    return _row(small, hidden, layers)


def _row(base: ModelRow, hidden: int, layers: int) -> ModelRow:
    attention, ffn = next(iter(base.attention)), next(iter(base.ffn))
    mixer = base.attention[attention].model_copy(update={"n_heads": hidden // 128, "n_kv_heads": 8, "head_dim": 128})
    block = base.ffn[ffn].model_copy(update={"intermediate_size": hidden * 7 // 2})
    run = LayerRun(attention=attention, ffn=ffn, count=layers)
    changed = {"hidden_size": hidden, "attention": {attention: mixer}, "ffn": {ffn: block}, "layers": (run,)}
    return base.model_copy(update={**changed, "id": "scaled", "name": "a dense model", "max_context_tokens": 131072})


def largest_dense_params(machine: Machine, runs: EngineRow, weights: str, context: int) -> tuple[float, float]:
    """(parameters of the largest dense model that fits one sequence, bytes per parameter of it)."""
    low, high = 1.0 * GB, 1000.0 * GB
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if _fits(scaled_llama(middle), machine, runs, weights, context) else (low, middle)
    row = scaled_llama(low)
    return float(count(row).total), weight_bytes(count(row), weight_plan(row, weights)) / count(row).total


def _fits(row: ModelRow, machine: Machine, runs: EngineRow, weights: str, context: int) -> bool:
    model = lower_model(row, weight_plan(row, weights), "16", runs)
    setup = Setup(model, lower_device(machine, runs), lower_engine(runs, machine))
    default = limits(runs, machine.device)
    given = {
        "host_layer_frac": 0.0,
        "host_expert_frac": 0.0,
        "prompt_tokens": context - 1,
        "context_tokens": context,
        "kv_pool_tokens": NO_LIMIT,
        "n_requests": NO_LIMIT,
        "max_batched_tokens": default.max_batched_tokens,
        "max_sequences": default.max_sequences,
        "memory_frac": memory_frac(runs, machine.device, default.max_batched_tokens),
    }
    point = Point(**{f.name: np.asarray([given.get(f.name, 1.0)], np.float32) for f in fields(Point)})
    return not int(evaluate(setup, point).why[0]) & INFEASIBLE
