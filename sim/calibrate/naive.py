"""The naive roofline that a forecast must beat: weights over bandwidth, FLOPs over the peak, and nothing else."""

from __future__ import annotations

from sim import catalog, units
from sim.measure.checks import active_bytes, bandwidth_bytes_per_s
from sim.params import count


def naive_token_s(model: str, machine: str, weights: str, tp: int) -> float:
    """Seconds of a token: active weight bytes over the bandwidth of `tp` devices."""
    return active_bytes(model, weights) / (tp * bandwidth_bytes_per_s(machine))


def naive_prompt_s(model: str, machine: str, tp: int, tokens: float) -> float:
    """Seconds of a prompt: 2 FLOPs an active parameter and token at the 16-bit peak of `tp` devices."""
    peak_flops_per_s = catalog.machine(machine).device.peak_tflops["fp16"] * units.TERA
    return 2.0 * tokens * count(catalog.model(model)).active / (tp * peak_flops_per_s)
