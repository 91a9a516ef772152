"""What a sweep asks: axes, limits, and what to make small. Plain values, so that it can be stored and sent."""

from __future__ import annotations

from dataclasses import dataclass, field

ROW_AXES = (
    "model", "weights", "kv", "hardware", "gpus", "engine", "tp", "pp", "ep", "dp", "replicas",
    "max_num_batched_tokens", "max_num_seqs", "gpu_memory_utilization",
)  # fmt: skip
NAME_AXES = ("model", "weights", "kv", "hardware", "engine")  # of names of the catalogue
LENGTH_AXES = ("prompt_tokens", "output_tokens", "context_tokens")
PRICE_AXES = ("usd_per_gpu_hour", "usd_factor")
AXES = (*ROW_AXES, *LENGTH_AXES, "concurrency", *PRICE_AXES)
OBJECTIVES = (
    "usd_per_mtok", "usd_per_hour", "tpot_s", "ttft_s", "e2e_s", "joules_per_token", "power_w", "n_devices",
)  # fmt: skip
FIGURE_UNITS = {
    "usd_per_mtok": "USD/Mtok", "usd_per_hour": "USD/h", "usd": "USD", "tpot_s": "s", "ttft_s": "s", "e2e_s": "s",
    "joules_per_token": "J/token", "power_w": "W", "n_devices": "1", "user_tokens_per_s": "tokens/s",
    "output_tokens_per_s": "tokens/s",
}  # fmt: skip
AT_MOST = ("ttft_s", "tpot_s", "e2e_s", "usd_per_hour", "usd_per_mtok", "usd", "power_w", "n_devices")
AT_LEAST = ("user_tokens_per_s", "output_tokens_per_s")
PRICED = ("usd_per_mtok", "usd_per_hour", "usd")  # that are unknown where no price is known


@dataclass(frozen=True)
class Spec:
    """A checked sweep; the names are those of the catalogue. None: filled in as in `sim.estimate`.

    limits: by name, "at most" of AT_MOST and "at least" of AT_LEAST; usd: purchase of all devices. minimize: of
    OBJECTIVES, the first of which ranks. by: axes whose every value has its own best cell. usd_per_gpu_hour stands in
    place of the catalogue's price of a device-hour, usd_factor multiplies it. crossover: (axis along which, axis
    between whose values, objective).
    """

    name: str
    model: tuple[str, ...]
    hardware: tuple[str, ...]
    weights: tuple[str, ...] = ("native",)
    kv: tuple[str | None, ...] = (None,)
    gpus: tuple[int | None, ...] = (None,)
    engine: tuple[str | None, ...] = (None,)
    tp: tuple[int | None, ...] = (None,)
    pp: tuple[int | None, ...] = (None,)
    ep: tuple[int | None, ...] = (None,)
    dp: tuple[int | None, ...] = (None,)
    replicas: tuple[int | None, ...] = (None,)
    max_num_batched_tokens: tuple[int | None, ...] = (None,)
    max_num_seqs: tuple[int | None, ...] = (None,)
    gpu_memory_utilization: tuple[float | None, ...] = (None,)
    prompt_tokens: tuple[int, ...] = (512,)
    output_tokens: tuple[int, ...] = (128,)
    context_tokens: tuple[int | None, ...] = (None,)
    concurrency: tuple[int, ...] = (1,)
    usd_per_gpu_hour: tuple[float | None, ...] = (None,)
    usd_factor: tuple[float, ...] = (1.0,)
    pay: str | None = None
    limits: dict[str, float] = field(default_factory=dict)
    minimize: tuple[str, ...] = ("usd_per_mtok", "tpot_s")
    by: tuple[str, ...] = ("model",)
    top: int = 10
    profile: str | None = None
    crossover: tuple[tuple[str, str, str], ...] = ()

    @property
    def axes(self) -> dict[str, tuple]:
        """Values of each axis, in the order in which cells are counted."""
        return {name: getattr(self, name) for name in AXES}
