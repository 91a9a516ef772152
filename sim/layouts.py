"""Parallel layouts: filling in what the user left open, and refusing what no engine could run."""

from __future__ import annotations

from dataclasses import dataclass

from sim.engines import EngineRow
from sim.errors import RoofcastError, sentence
from sim.schema import ModelRow


@dataclass(frozen=True)
class Parallel:
    """Whole numbers of a layout; None where the user left it open."""

    tp: int | None = None
    pp: int | None = None
    ep: int | None = None
    dp: int | None = None
    replicas: int | None = None

    @property
    def n_devices(self) -> int:
        """tp · pp · dp · replicas, open ones counted as 1."""
        return (self.tp or 1) * (self.pp or 1) * (self.dp or 1) * (self.replicas or 1)


def fill(asked: Parallel, gpus: int, engine: EngineRow, row: ModelRow, domain: int) -> Parallel:
    """A full layout of `gpus` devices: what is open becomes TP inside a link domain, then PP, then replicas.

    llama.cpp and its kin split by layer, so there the devices are pipeline stages that work in turn.
    """
    fixed = asked.n_devices
    if gpus % fixed:
        what = f"tp·pp·dp·replicas = {fixed} does not divide {gpus} devices"
        raise RoofcastError(sentence(what, "gpus", f"take gpus = {fixed}, or another layout"))
    rest = gpus // fixed
    tp, pp, replicas = asked.tp, asked.pp, asked.replicas
    if engine.split == "layer":
        pp, rest = (rest, 1) if pp is None else (pp, rest)
    elif tp is None:
        tp = max(n for n in range(1, min(rest, domain) + 1) if rest % n == 0 and (n == 1 or not tp_problems(row, n)))
        rest //= tp
        if pp is None and asked.replicas is None and rest > 1 and rest <= n_layers(row):
            pp, rest = rest, 1
    if rest > 1:
        if replicas is not None:
            what = f"tp·pp·dp·replicas = {gpus // rest} leaves {rest - 1} of every {rest} devices idle"
            raise RoofcastError(sentence(what, "gpus", f"take gpus = {gpus // rest}, or leave replicas open"))
        replicas = rest
    full = Parallel(tp or 1, pp or 1, asked.ep or 1, asked.dp or 1, replicas or 1)
    check(full, row, engine)
    return full


def n_layers(row: ModelRow) -> int:
    """Layers of the model."""
    return sum(run.count for run in row.layers)


def check(layout: Parallel, row: ModelRow, engine: EngineRow) -> None:
    """Raises RoofcastError with every reason why the engine could not run this layout of this model."""
    tp, pp, ep, dp = layout.tp or 1, layout.pp or 1, layout.ep or 1, layout.dp or 1
    problems = tp_problems(row, tp)
    if engine.split == "layer" and tp > 1:
        problems.append(sentence(f"{engine.name} splits a model by layer, so tp must be 1", "tp", f"take pp = {tp}"))
    if dp > 1 and not engine.attention_dp:
        what = f"{engine.name} has no data-parallel attention, so dp must be 1"
        problems.append(sentence(what, "dp", f"take replicas = {dp}"))
    if pp > n_layers(row):
        what = f"{row.name} has {n_layers(row)} layers, fewer than pp = {pp}"
        problems.append(sentence(what, "pp", f"take pp of at most {n_layers(row)}"))
    experts = [f.n_experts for f in row.ffn.values() if f.type == "moe"]
    if ep > 1 and not experts:
        problems.append(sentence(f"{row.name} has no experts to spread over ep = {ep}", "ep", "take ep = 1"))
    if experts and experts[0] % ep:
        what = f"ep = {ep} does not divide the {experts[0]} experts of {row.name}"
        problems.append(sentence(what, "ep", _divisors(experts[0], "ep")))
    if (tp * dp) % ep:
        problems.append(sentence(f"ep = {ep} does not divide tp·dp = {tp * dp}", "ep", f"take ep = {tp * dp} or 1"))
    if problems:
        raise RoofcastError(*problems)


def tp_problems(row: ModelRow, tp: int) -> list[str]:
    """Why heads cannot be split over `tp` ranks: query heads must divide evenly, KV heads divide or replicate."""
    problems = []
    for kind, mixer in row.attention.items():
        if mixer.type == "none":
            continue
        heads = mixer.n_value_heads if mixer.type == "gdn" else mixer.n_heads
        kv = getattr(mixer, "n_kv_heads", 1)
        if heads % tp:
            what = f"tp = {tp} does not divide the {heads} heads of {row.name} ({kind} attention)"
            problems.append(sentence(what, "tp", _divisors(heads, "tp")))
        elif mixer.type == "gqa" and kv % tp and tp % kv:
            problems.append(sentence(f"tp = {tp} neither divides nor is a multiple of {kv} KV heads", "tp"))
    return problems


def _divisors(whole: int, name: str) -> str:
    """A hint: the first few numbers that divide `whole`."""
    good = [str(n) for n in range(1, whole + 1) if whole % n == 0]
    return f"take {name} of {', '.join(good[:8])}"
