"""The printed tables of a sweep: every axis that varies is told, what does not vary once, in 80 columns."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from sim.report.sweep import speed_line, sweep_view
from sim.report.sweep_further import event, sensitivity_table, verified_table
from sim.report.sweep_table import rows_table, same_everywhere
from sim.sweeps.sensitivity import FIGURES
from sim.sweeps.spec import AXES, Spec
from tests.sweep_fakes import figures, sweep_answer, sweep_spec, table

# Of each axis two values, and what the two rows have in place of what `figures` gives.
VARIED: dict[str, tuple[tuple[Any, Any], dict[str, tuple[Any, Any]]]] = {
    "model": (("moe-a", "dense-b"), {"model": ("moe-a", "dense-b")}),
    "weights": (("fp8", "int4"), {"weights": ("fp8", "int4")}),
    "kv": (("16", "8"), {"kv": ("16", "8")}),
    "hardware": (("h100-sxm", "l40s"), {"hardware": ("h100-sxm", "l40s")}),
    "gpus": ((1, 8), {"n_gpus": (1, 8), "replicas": (1, 8)}),
    "engine": (("vllm", "sglang"), {"engine": ("vllm", "sglang")}),
    **{name: ((1, 8), {name: (1, 8), "n_gpus": (1, 8)}) for name in ("tp", "pp", "dp", "replicas")},
    "ep": ((1, 8), {"ep": (1, 8), "dp": (8, 8)}),
    **{name: ((None, value), {name: (None, value)}) for name, value in (
        ("max_num_batched_tokens", 8192.0), ("max_num_seqs", 64.0), ("gpu_memory_utilization", 0.85),
        ("usd_per_gpu_hour", 2.5))},
    "prompt_tokens": ((512, 8192), {"prompt_tokens": (512, 8192)}),
    "output_tokens": ((128, 256), {"output_tokens": (128, 256)}),
    "context_tokens": ((640, 131072), {"context_tokens": (640, 131072)}),
    "concurrency": ((1, 4096), {"concurrency": (1, 4096)}),
    "usd_factor": ((0.5, 2.0), {"usd_factor": (0.5, 2.0)}),
}  # fmt: skip
SEEN = {"gpus": "8 x 1 device", "tp": "TP8", "pp": "PP8", "dp": "DP8", "ep": "EP8", "replicas": "8 x 1 device",
        "kv": "8", "prompt_tokens": "8,192", "context_tokens": "131,072", "concurrency": "4,096", "usd_factor": "0.5",
        "max_num_batched_tokens": "8,192", "max_num_seqs": "64", "usd_per_gpu_hour": "2.5"}  # fmt: skip


def printed(view: RenderableType, width: int = 80) -> str:
    """What a terminal of so many columns shows."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False, emoji=False, markup=False).print(view)
    return out.getvalue()


def pair(axis: str) -> tuple[Spec, list[dict[str, Any]]]:
    """A sweep over one axis, and two rows that differ in nothing else, not even in their figures."""
    values, columns = VARIED[axis]
    spec = Spec(**{"name": "x", "model": ("moe-a",), "hardware": ("h100-sxm",), axis: values, "by": ()})
    basis = figures("moe-a", "h100-sxm", 1)
    return spec, [basis | {name: both[i] for name, both in columns.items()} for i in range(2)]


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_that_varies_is_seen(axis: str) -> None:
    spec, rows = pair(axis)
    text = printed(rows_table(rows, spec, "Top 2", "usd_per_mtok"))
    assert str(SEEN.get(axis, VARIED[axis][0][1])) in text and "all: " in text
    alone = [printed(rows_table([row], spec, "Top 1", "usd_per_mtok")) for row in rows]
    assert alone[0] != alone[1]  # also where the rows shown have one value of the axis
    assert axis not in ("gpus", "tp", "pp", "dp", "replicas") or "1 device" in alone[0]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("by", [(), ("model", "concurrency")])
def test_what_does_not_vary_is_told_once(axis: str, by: tuple[str, ...]) -> None:
    spec, rows = pair(axis)
    spec = Spec(**{**vars(spec), "by": by})
    every, table = same_everywhere(spec), printed(rows_table(rows, spec, "Top 2", "usd_per_mtok"))
    for name, told in (("model", "moe-a"), ("weights", "weights native"), ("output_tokens", "128 output tokens"),
                       ("concurrency", "1 concurrent user")):  # fmt: skip
        if name != axis:
            assert told in every and told not in table
    heads = [line for line in table.splitlines() if "$/Mtok" in line]
    assert len(heads) == 1 and len(heads[0].split()) <= 4


def test_numbers_are_never_folded_and_nothing_is_cut_at_80_columns() -> None:
    spec = sweep_spec(concurrency=(1, 4096), limits={"tpot_s": 9.0, "usd_per_hour": 9.0, "user_tokens_per_s": 0.1},
                      prompt_tokens=(512, 130_000), usd_factor=(0.5, 1.0))  # fmt: skip
    basis = {"model": "moe-a-of-a-very-long-name", "usd_factor": 0.5, "tp": 8}
    rows = [figures("moe-a", hardware, 4096) | basis | {"prompt_tokens": n}
            for hardware in ("rtx-4090", "m3-ultra-512gb") for n in (512, 130_000)]  # fmt: skip
    rows[0] |= {"model": "dense-b", "engine": "sglang"}
    text = printed(rows_table(rows, spec, "Top 4", "usd_per_mtok"))
    assert max(map(len, text.splitlines())) <= 80 and "\u2026" not in text
    for row in rows:
        assert f"{row['prompt_tokens']:,} " in text and f"{row['user_tokens_per_s']:.1f}"[:4] in text
    assert "all: 4,096 concurrent users, TP8, KV 16 bit, price factor 0.5" in " ".join(text.split())
    wide = printed(rows_table(rows, spec, "Top 4", "usd_per_mtok"), 200)
    assert "moe-a-of-a-very-long-name" in wide and "sglang" in wide


def test_what_comes_after_the_tables_tells_rows_apart_too() -> None:
    basis = {"model": "moe-a", "hardware": "h100-sxm", "parameter": "price",
             **dict.fromkeys((f"{name}_elasticity" for name in FIGURES), 0.5)}  # fmt: skip
    rows = [basis | {"index": i, "usd_factor": factor, "concurrency": 8} for i, factor in enumerate((0.5, 2.0))]
    text = printed(sensitivity_table(table(rows), "Sensitivities"))
    assert "factor" in text and "   0.5  " in text and "all: model moe-a, hardware h100-sxm, 8 concurrent users" in text
    basis = figures("moe-a", "h100-sxm", 8) | {f"{m}_{end}": 0.1 for m in ("ttft", "tpot")
                                               for end in ("simulated_s", "off_frac")}  # fmt: skip
    rows = [basis | {"tp": 2, "max_num_seqs": 64.0}, basis | {"dp": 2, "max_num_seqs": 256.0}]
    text = printed(verified_table(table(rows), "Verified"))
    assert all(told in text for told in ("TP2", "DP2", "64", "256", "most", "all: model moe-a"))


def test_winners_whose_users_do_not_fit_the_cache_are_marked() -> None:
    spec, rows = pair("concurrency")
    rows = [row | {"max_sequences": 100} for row in rows]
    text = printed(rows_table(rows, spec, "Top 2", "usd_per_mtok"), 200)
    few, many = (line for line in text.splitlines() if line.strip().startswith(("1 ", "4,096 ")))
    assert "*" not in few and many.count("*") == 1
    assert "*: the KV cache holds fewer sequences of the whole context than there are users" in text
    assert "KV cache" not in printed(rows_table(rows[:1], spec, "Top 1", "usd_per_mtok"))


def test_a_whole_answer_stays_within_80_columns() -> None:
    text = printed(sweep_view(sweep_answer()))
    assert "All: weights native, 512 prompt tokens, 128 output tokens" in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("h100-sxm") > 1 and "the weights do not fit" in text


def test_counts_of_one_are_singular() -> None:
    answer = sweep_answer()
    answer.plan.n_rows, answer.plan.n_cells = 1, 2
    assert speed_line(answer).startswith("2 configurations of 1 deployment in ")


@pytest.mark.parametrize(("kind", "before", "after", "said"), [
    ("order changes", "a", "b", "b takes the lead from a"),
    ("stops", "a", "b", "a ceases to keep to the limits; best of the others: b"),
    ("stops", "a", "", "a ceases to keep to the limits; no other does"),
    ("starts", "a", "b", "b begins to keep to the limits; best of the others: a"),
    ("starts", "", "b", "b begins to keep to the limits; no other does"),
])  # fmt: skip
def test_an_event_in_words(kind: str, before: str, after: str, said: str) -> None:
    assert event({"event": kind, "before": before, "after": after}) == said
