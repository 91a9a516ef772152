"""Numbers, tables and pictures: three significant digits with a unit, readable at 100 columns, files that are there."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from matplotlib.transforms import Bbox
from rich.console import RenderableType

from sim.errors import RoofcastError
from sim.report.explain import explain_view
from sim.report.labels import free_place
from sim.report.number import bare, prefixed, show, significant
from sim.report.plot import throughput_plot
from sim.report.roofline import roofline_plot
from sim.report.table import PIPE_WIDTH, Column, console, grid, varying
from sim.report.verdict import estimate_view, fits_view, memory_lines, recommend_view
from tests.fakes import estimate_result, fits_result, operations_result, recommend_result

PEAKS = {"fp16": 990e12, "fp8": 1980e12, "int8": 1980e12}
FACTORS = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def drawn(view: RenderableType) -> str:
    out = io.StringIO()
    console(out).print(view)
    return out.getvalue()


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("ttft_s", 0.0123, "12.3 ms"),
        ("ttft_s", 0.0009999, "1.00 ms"),
        ("ttft_s", 1234.5, "1,230 s"),
        ("seconds", 2.5e-6, "2.50 µs"),
        ("weights_bytes", 7.06e10, "70.6 GB"),
        ("weights_bytes", 999.7e9, "1.00 TB"),
        ("free_bytes", -66e9, "-66.0 GB"),
        ("memory_gb", 80, "80.0 GB"),
        ("link.gb_per_s", 450.0, "450 GB/s"),
        ("peak_tflops.fp16", 989.0, "989 TFLOP/s"),
        ("usd_per_mtok", 0.00234, "$0.00234/Mtok"),
        ("price_usd", 25123.0, "$25,100"),
        ("mfu_frac", 0.4567, "45.7%"),
        ("joules_per_token", 0.0123, "12.3 mJ/token"),
        ("total_params", 70.55e9, "70.5B"),
        ("max_context_tokens", 131072, "131,072 tokens"),
        ("user_tokens_per_s", 1234.5, "1,230 tok/s"),
        ("concurrency", 4096, "4,096"),
        ("fits", True, "yes"),
        ("bound", "memory", "memory"),
        ("bound", "", "-"),
        ("ttft_s", math.nan, "-"),
        ("ttft_s", None, "-"),
        ("kv_bytes", 0.0, "0 B"),
    ],
)
def test_show(column: str, value: object, text: str) -> None:
    assert show(column, value) == text


def test_bare_leaves_out_the_unit() -> None:
    assert bare("user_tokens_per_s", 1234.5) == "1,230"
    assert bare("max_context_tokens", 131072) == "131,072"
    assert bare("usd_per_mtok", None) == "-"


@given(st.floats(-1e15, 1e15).filter(lambda value: abs(value) > 1e-9))
def test_significant_keeps_three_digits_and_never_an_exponent(value: float) -> None:
    text = significant(value)
    assert re.fullmatch(r"-?[\d,]+(\.\d+)?", text)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=5.1e-3)
    digits = text.replace(",", "").lstrip("-0.").replace(".", "")
    assert len(digits) == 3 or set(digits[3:]) == {"0"}


@given(st.floats(1e-9, 1e20))
def test_prefixed_reads_back(value: float) -> None:
    number, unit = prefixed(value, "B").split(" ")
    assert float(number.replace(",", "")) * FACTORS[unit.removesuffix("B")] == pytest.approx(value, rel=5.1e-3)
    assert float(number.replace(",", "")) < 1000


@given(st.floats(width=32), st.sampled_from(["a_s", "a_bytes", "a_usd", "a_frac", "a"]))
def test_show_takes_every_float(value: float, column: str) -> None:
    assert show(column, value)


def test_estimate_view_has_memory_verdict_and_loads() -> None:
    text = drawn(estimate_view(estimate_result(), "Model A on Card B"))
    assert "Verdict: fits\n" in text
    for part in ("weights", "35.4 GB", "KV cache", "1.00 GB to 32.0 GB", "131,072 tokens", "dense FFN (memory)"):
        assert part in text
    assert "recurrent state" not in text
    assert max(map(len, text.splitlines())) <= PIPE_WIDTH


def test_estimate_view_says_why_and_what_helps() -> None:
    none = drawn(estimate_view(estimate_result(unfit=(0, 1, 2), why=1), "x"))
    assert "Verdict: does not fit" in none
    assert "the weights do not fit; hint:" in none
    assert "TTFT" not in none
    some = drawn(estimate_view(estimate_result(unfit=(2,)), "x"))
    assert "Verdict: fits for 2 of 3 rows" in some
    assert re.search(r"^ +64 .* - .* does not fit", some, re.MULTILINE)


def test_swept_lengths_get_a_column() -> None:
    one = estimate_result(prompt=512)
    grown = estimate_result(concurrency=[[1], [8]], prompt=[512, 4096])
    columns = (Column("prompt_tokens", "prompt"), Column("n_gpus", "GPUs"))
    assert varying(one, columns) == []
    assert [column.name for column in varying(grown, columns)] == ["prompt_tokens"]
    heading = next(line for line in drawn(estimate_view(grown, "x")).splitlines() if "TTFT" in line)
    assert heading.split()[0] == "tokens" and "context" not in heading


def test_memory_lines_name_a_state_only_where_there_is_one() -> None:
    result = estimate_result()
    assert "recurrent state" not in dict(memory_lines(result))
    result.columns["state_bytes"] = np.full(3, 5e6)
    assert dict(memory_lines(result))["recurrent state"] == "5.00 MB"


def test_fits_view_names_the_nearest_that_fits() -> None:
    text = drawn(fits_view(fits_result(False, True), "x"))
    assert "bf16: the weights do not fit; nearest that fits: 2 devices" in text
    assert "fp8:" not in text


def test_recommend_view_counts_the_rejected() -> None:
    assert "model-a" in drawn(recommend_view(recommend_result(1), "x"))
    text = drawn(recommend_view(recommend_result(0), "20 users"))
    assert "20 users: nothing keeps to the limits" in text
    assert "1,234 rejected: the weights do not fit" in text


def test_explain_view_shares_sum_to_all() -> None:
    text = drawn(explain_view(operations_result()))
    assert "One step of decode" in text and "One step of prefill" in text
    assert len(re.findall(r"^sum .* 100%", text, re.MULTILINE)) == 2


def test_markup_in_names_is_text() -> None:
    assert "[red]x[/red] :smile:" in drawn(grid((Column("name", "name"),), [{"name": "[red]x[/red] :smile:"}]))


@pytest.mark.parametrize("label", ["x" * 300, "a label of many words, " * 15], ids=["one word", "words"])
def test_a_long_label_leaves_room_for_the_figures(label: str) -> None:
    figures = {f"n{i}": f"{i}.25 GB" for i in range(5)}
    text = drawn(grid((Column("label", "deployment"), *(Column(n, n) for n in figures)), [{"label": label, **figures}]))
    assert all(figure in text for figure in figures.values())
    assert "".join(text.split()).count("x") >= label.count("x")  # and it is told whole


def draw_both(folder: Path, suffix: str) -> list[bytes]:
    curves, roof = folder / f"curves.{suffix}", folder / f"roof.{suffix}"
    throughput_plot({"A": estimate_result(), "B": estimate_result(unfit=(2,))}, curves, "title")
    roofline_plot(operations_result(), PEAKS, 3.35e12, "title", roof)
    return [curves.read_bytes(), roof.read_bytes()]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures_are_written_and_the_same_twice(tmp_path: Path, suffix: str) -> None:
    once = draw_both(tmp_path, suffix)
    assert min(map(len, once)) > 10_000
    assert draw_both(tmp_path, suffix) == once


def test_pictures_are_not_blank(tmp_path: Path) -> None:
    for picture in draw_both(tmp_path, "png"):
        assert np.ptp(imread(io.BytesIO(picture))[..., :3]) > 0.5


LITTLE = {
    "one load": estimate_result(8),
    "nothing fits": estimate_result(unfit=(0, 1, 2)),
    "no price": estimate_result(price=np.nan),
}


@pytest.mark.parametrize("name", LITTLE)
def test_pictures_of_little(tmp_path: Path, name: str) -> None:
    throughput_plot({name: LITTLE[name]}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000


@pytest.mark.parametrize(("name", "hint"), [("a.gif", ".png or .svg"), ("a", ".png or .svg"), ("no/a.png", "mkdir -p")])
def test_pictures_refuse_what_they_cannot_write(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(RoofcastError, match=re.escape(hint)):
        throughput_plot({"A": estimate_result()}, tmp_path / name)


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 700)), min_size=1, max_size=12))
def test_labels_do_not_overlap(points: list[tuple[float, float]]) -> None:
    room, taken = Bbox.from_extents(-100, -100, 1600, 1000), []
    for point in points:
        taken.append(free_place(point, (120.0, 18.0), room, taken))
    assert not any(a.overlaps(b) for i, a in enumerate(taken) for b in taken[:i])
