"""Error tables: the scores of forecasts by quantity, model, hardware, engine, batch and depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields

import numpy as np

from sim import catalog
from sim.errors import RoofcastError, did_you_mean, expect_names, sentence
from sim.measure import Measurement
from sim.results import Result
from sim.scores import Score, score

BATCHES = ((1, "1"), (8, "2-8"), (32, "9-32"), (128, "33-128"))  # up to and including
DEPTHS = ((1024, "<1k"), (4096, "1k-4k"), (16384, "4k-16k"))  # up to and excluding
PHASES = ("prefill_s", "ttft_s")
ALL = "all"


def stated_quantity(row: Measurement) -> str:
    """The quantity as the file states it: "decode_tokens_per_s" where a file gives the rate of a decode step."""
    if not row.inverse:
        return row.quantity
    return f"{row.quantity.removesuffix('_s').removesuffix('_step')}_tokens_per_s"


def stated_value(row: Measurement, value: float) -> float:
    """A value of `row.quantity` as one of `stated_quantity(row)`, in seconds or tokens/s."""
    return row.in_file_unit(value) if row.inverse else value


def batch_band(row: Measurement) -> str:
    """The band of the sequences in flight."""
    return next((name for most, name in BATCHES if row.concurrency <= most), ">128")


def cached_tokens(row: Measurement) -> float:
    """Tokens of a sequence that are cached on average while what is measured runs."""
    grows = row.prompt if row.quantity in PHASES else row.output
    return (row.depth if row.quantity in PHASES else row.prompt) + grows / 2


def depth_band(row: Measurement) -> str:
    """The band of the tokens cached."""
    return next((name for end, name in DEPTHS if cached_tokens(row) < end), ">=16k")


BY: dict[str, Callable[[Measurement], str]] = {
    ALL: lambda row: ALL,
    "quantity": stated_quantity,
    "engine": lambda row: row.engine,
    "kind": lambda row: "MoE" if row.moe else "dense",
    "batch": batch_band,
    "depth": depth_band,
    "hardware": lambda row: catalog.machine(row.machine).device.id,
    "model": lambda row: row.model,
}
POOLED = (ALL,)  # over all quantities
ORDERS = {"batch": [name for _, name in BATCHES], "depth": [name for _, name in DEPTHS]}


def check_by(by: Sequence[str] | str | None) -> tuple[str, ...]:
    """The tables asked for, all of them for None; RoofcastError for one that is not known."""
    names = expect_names(by, "tables")
    unknown = [name for name in names or () if name not in BY]
    if unknown:
        hint = did_you_mean(unknown[0], BY) or f"take of {', '.join(BY)}"
        raise RoofcastError(sentence(f"no error table is called {unknown[0]}", "by", hint))
    return tuple(dict.fromkeys(names)) if names else tuple(BY)


def error_tables(
    rows: Sequence[Measurement], forecast: np.ndarray, inside: np.ndarray | None, by: Sequence[str]
) -> Result:
    """Scores of each group of each table, a line for each quantity in it, the largest first.

    forecast: (M,) in the quantities' units; inside: (M,) whether the interval holds the measurement. Errors are of the
    quantity as the file states it: e = forecast / measured − 1, be that of seconds or of tokens/s.
    """
    measured = np.asarray([stated_value(row, row.value) for row in rows])
    stated = np.asarray([stated_value(row, value) for row, value in zip(rows, forecast.tolist(), strict=True)])
    log_error = np.log(stated) - np.log(measured)
    lines = []
    for table in by:
        members: dict[tuple[str, str], list[int]] = {}
        for index, row in enumerate(rows):
            quantity = ALL if table in POOLED else stated_quantity(row)
            members.setdefault((BY[table](row), quantity), []).append(index)
        for group, quantity in sorted(members, key=_order(table, members)):
            chosen = members[group, quantity]
            found = score(log_error[chosen], measured[chosen], None if inside is None else inside[chosen])
            unranked = {"rank": float("nan")} if quantity == ALL else {}
            lines.append({"by": table, "group": group, "quantity": quantity} | asdict(found) | unranked)
    names = ("by", "group", "quantity", *(field.name for field in fields(Score)))
    columns = {name: np.asarray([line[name] for line in lines]) for name in names}
    return Result(columns, {name: "" if name in names[:3] else "1" for name in names})


def _order(table: str, members: dict[tuple[str, str], list[int]]) -> Callable[[tuple[str, str]], tuple]:
    """Bands in their own order, other groups by their rows; within a group, its quantities by theirs."""
    totals: dict[str, int] = {}
    for (group, _), indices in members.items():
        totals[group] = totals.get(group, 0) + len(indices)
    known = ORDERS.get(table, [])

    def key(pair: tuple[str, str]) -> tuple:
        place = known.index(pair[0]) if pair[0] in known else len(known)
        return (place, -totals[pair[0]], pair[0], -len(members[pair]), pair[1])

    return key
