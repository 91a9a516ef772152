"""Bad input: whatever is wrong with a file is a sentence with file and line, and the rest of it is used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.measure import Defaults, Reading, read
from tests.test_readers import SAMPLES

HEADER = "model,hardware,engine,quant,phase,context_depth,output_tokens,tokens_per_s"
ROW = "Llama-3-8B,RTX 4090,llama.cpp,Q4_K_M,decode,0,128,{}"
GOOD = f"{HEADER}\n{ROW.format(100)}\n"


@pytest.fixture
def read_text(tmp_path: Path):
    """Reads a file of this content."""

    def call(content: str | bytes, **stated) -> Reading:
        file = tmp_path / "x"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read([file], Defaults(**stated))

    return call


def told(found: Reading, line: int | None, *words: str) -> None:
    """One problem, in one line, that names the place and these words."""
    [problem] = found.problems
    assert "\n" not in problem and len(problem) < 600
    assert (f"x:{line}: " if line else "x: ") in problem
    for word in words:
        assert word in problem


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file(read_text, content: str) -> None:
    told(read_text(content), 1, "is empty")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    [absent] = read([tmp_path / "none.csv"]).problems
    [folder] = read([tmp_path]).problems
    assert "none.csv: cannot be read: No such file" in absent and "cannot be read: Is a directory" in folder


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 9, b"\x89PNG\r\n\x1a\n" + bytes(99), GOOD.encode("utf-16")[2:]]
)
def test_what_is_not_text(read_text, content: bytes) -> None:
    told(read_text(content), None, "is not text")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("hello", 1),
        ("\n\na,b\n1,2\n", 3),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n", 1),
        (HEADER.split(",")[0] + "\nx\n", 1),
    ],
)
def test_a_format_that_is_not_known(read_text, content: str, line: int) -> None:
    told(read_text(content), line, "the format is not known", "llama-bench")


def test_json_of_no_benchmark(read_text) -> None:
    told(read_text('{"a": 1}'), 1, "no benchmark's result is known by the fields a")
    told(read_text("[]"), 1, "holds no result")


def test_missing_and_repeated_columns(read_text) -> None:
    found = read_text(GOOD.replace("quant", "kwant").replace("engine,", "motor,"))
    told(found, 1, "the columns engine, quant are missing")
    assert [(u.line, u.reason) for u in found.unused] == [(2, "columns missing")]
    assert read_text(GOOD.replace("quant", "kwant"), weights="q4_k_m").problems == []
    told(read_text(GOOD.replace("context_depth", "phase")), 1, "the column phase stands twice")
    told(read_text(HEADER + "\n"), 1, "holds no row below its header")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("model,hardware,engine,prompt_tokens,output_tokens,concurrency,tpot_ms",
         ("columns quantity, value are missing", "the columns model, hardware, engine, quantity, value: add")),
        ("model,hardware,engine,value", ("column quantity is missing",)),
        ("model,quantity,value", ("columns hardware, engine are", "or state --hardware and --engine")),
        ("model,hardware,engine,isl,osl,ttft_ms", ("column concurrency is", "model, hardware, engine, isl, osl, ")),
        ("model,hardware,engine,isl,osl,concurrency,value", ("column metric is missing",)),
        ("model,hardware,engine,quant,context_depth,tokens_per_s", ("column phase is missing",)),
    ],
)  # fmt: skip
def test_missing_columns_are_those_of_the_nearest_format(read_text, header: str, words: tuple[str, ...]) -> None:
    told(read_text(f"{header}\n{'1,' * header.count(',')}1\n"), 1, *words)


@pytest.mark.parametrize("quantity, used", [("tpot_ms", 0), ("itl_ms", 0), ("ttft_ms", 1), ("e2e_s", 1)])
def test_one_output_token_has_no_time_between_tokens(read_text, quantity: str, used: int) -> None:
    header = "model,hardware,engine,quantity,value,prompt_tokens,output_tokens"
    found = read_text(f"{header}\nllama-3.1-8b,h100-sxm,vllm,{quantity},90,64,1\n")
    assert len(found.measurements) == used
    assert [u.reason for u in found.unused] == ["no inter-token time"] * (1 - used)


@pytest.mark.parametrize(
    ("cell", "reason", "words"),
    [
        ("fast", "not a number", "tokens_per_s is 'fast'"),
        ("", "not a number", "tokens_per_s is ''"),
        ("0", "not positive", "tokens_per_s is '0'"),
        ("-3", "not positive", "a time or a rate is above 0"),
        ("inf", "out of range", "check the unit"),
        ("nan", "not a number", "'nan'"),
        ("1e300", "out of range", "check the unit"),
        ("9" * 5000, "out of range", "..."),
        ("100000", "faster than memory allows", "1e-05 s, and at peak reading the active weights once takes 0.00"),
    ],
)
def test_a_bad_figure_is_named_and_the_rest_is_used(read_text, cell: str, reason: str, words: str) -> None:
    found = read_text(f"{HEADER}\n{ROW.format(90)}\n{ROW.format(cell)}\n{ROW.format(110)}\n")
    told(found, 3, words)
    assert [m.line for m in found.measurements] == [2, 4]
    assert [(u.line, u.reason) for u in found.unused] == [(3, reason)]


def test_a_prefill_beyond_the_peak_is_a_cached_prompt(read_text) -> None:
    found = read_text(f"{HEADER},prompt_tokens\n{ROW.format(900000).replace('decode', 'prefill')},4096\n")
    told(found, 2, "faster than compute allows", "a prompt that is cached is no prefill")


def test_milliseconds_taken_for_seconds(read_text) -> None:
    header = "model,hardware,engine,isl,osl,concurrency,tpot_ms"
    found = read_text(f"{header}\nLlama-3.1-8B,H100,vLLM,512,128,1,0.0081\n")
    told(found, 2, "tpot_ms 0.0081 is faster than memory allows", "check the unit (ms or s")


def test_duplicate_and_contradictory_rows(read_text) -> None:
    rows = [90, 90, 95, 30]  # the third repeats the measurement, the last cannot be true as well
    found = read_text("\n".join([HEADER, *(ROW.format(rate) for rate in rows)]))
    assert [m.line for m in found.measurements] == [2, 4]
    assert [(u.line, u.reason) for u in found.unused] == [(3, "duplicate"), (5, "contradictory")]
    assert "x:3: the same configuration, load and tokens_per_s as in line 2; hint: remove one" in found.problems[0]
    assert "x:5: tokens_per_s 30 contradicts the 95 of line 4, of the same configuration and load" in found.problems[1]
    assert "hint: check both; line 4 is used" in found.problems[1]


@pytest.mark.parametrize(
    ("rates", "used"),
    [
        ([90, 45], []),  # exactly twice as fast
        ([90, 45.1], [2, 3]),
        ([45, 90, 45], [2]),  # the third row repeats the first, which makes two against one
        ([90, 92, 44, 45], []),  # two against two
        ([90, 92, 44, 45, 91], [2, 3, 6]),
        ([30, 60, 95], [3, 4]),
        ([20, 60, 150], []),
    ],
)
def test_of_rows_of_one_load_the_outlier_is_left_out(read_text, rates: list[float], used: list[int]) -> None:
    found = read_text("\n".join([HEADER, *(ROW.format(rate) for rate in rates)]))
    assert [m.line for m in found.measurements] == used
    assert len(found.problems) == len(found.unused) == len(rates) - len(used)
    assert used or all("neither is used" in problem for problem in found.problems)


def test_a_larger_batch_that_steps_faster_is_left_out(read_text) -> None:
    header = "model,hardware,engine,isl,osl,concurrency,ttft_ms,tpot_ms"
    times = {1: 8, 4: 9, 16: 10, 64: 14, 512: 5, 8: 9.5}  # ms by users: those of 512 cannot be
    rows = [f"Llama-3.1-8B,H100,vLLM,512,128,{users},{40 + users},{ms}" for users, ms in times.items()]
    found = read_text("\n".join([header, *rows]))
    assert [(u.line, u.reason) for u in found.unused] == [(6, "contradictory")]
    assert {m.line for m in found.measurements} == {2, 3, 4, 5, 7}  # its time to first token is left out, too
    assert "x:6: tpot_ms 5 at concurrency 512 with 512 prompt tokens contradicts the" in found.problems[0]


SERVED = "model,hardware,engine,engine_version,isl,osl,concurrency,tpot_ms"


@pytest.mark.parametrize(
    ("rows", "left_out"),
    [
        ([(4, 30), (8, 9)], [2, 3]),  # none can say which
        ([(8, 8.0), (8, 8.0), (8, 16.0), (8, 8.1), (32, 10.5)], [3, 4]),  # line 3 is line 2 again
        ([(8, 15.9), (32, 10.5), (8, 8.0)], [2]),
        ([(8, 16.0), (32, 10.5), (8, 15.7)], [3]),  # the other at 8 says that the 16.0 is right
        ([(8, 16.0), (32, 10.5), (32, 10.6), (8, 10.0)], [2]),
    ],
)
def test_rows_out_of_order_are_told_apart_by_others_of_their_load(read_text, rows: list, left_out: list[int]) -> None:
    found = read_text("\n".join([SERVED, *(f"Llama-3.1-8B,H100,vLLM,1,512,128,{c},{ms}" for c, ms in rows)]))
    assert [u.line for u in found.unused] == left_out


def test_versions_of_an_engine_tell_rows_out_of_order_apart_too(read_text) -> None:
    runs = [("0.1", 8, 16.5), ("0.2", 8, 8.0), ("0.3", 8, 8.1), ("0.1", 32, 10.5)]
    found = read_text("\n".join([SERVED, *(f"Llama-3.1-8B,H100,vLLM,{v},512,128,{c},{ms}" for v, c, ms in runs)]))
    assert [u.line for u in found.unused] == [2]


def test_the_same_file_twice_is_told_with_both_names(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(GOOD)
    found = read([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert len(found.measurements) == 1 and "b.csv:2: " in found.problems[0] and "a.csv:2" in found.problems[0]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.replace(",", ";").replace(";100", ";100,0"),
        GOOD.replace(",", "\t"),
        GOOD.encode("utf-16"),
        gzip.compress(GOOD.encode()),
        gzip.compress(HEADER.encode() + b"\n") + gzip.compress(ROW.format(100).encode()),
        GOOD.replace("Q4_K_M", '"Q4_K_M"').replace("model,", " Model ,"),
        "\n\n" + GOOD + "\n\n",
    ],
)
def test_other_ways_to_write_the_same(read_text, content: str | bytes) -> None:
    found = read_text(content)
    assert found.problems == [] and [m.value for m in found.measurements] == [pytest.approx(0.01)]


def test_a_gzip_file_that_is_cut_off(read_text) -> None:
    rows = "\n".join(ROW.format(rate / 100) for rate in range(5000, 9000))
    packed = gzip.compress(f"{HEADER}\n{rows}\n".encode())
    found = read_text(packed[: len(packed) // 2])
    assert len(found.measurements) > 500
    assert "the gzip file is damaged or cut off in line" in found.problems[0]


def test_rows_of_another_width_and_open_quotes(read_text) -> None:
    rows = [ROW.format(90), ROW.format(91) + ",9", "short", ROW.format('"92'), ROW.format(93)]
    found = read_text("\n".join([HEADER, *rows]))
    assert [m.line for m in found.measurements] == [2, 6]
    assert [u.line for u in found.unused] == [3, 4, 5] and len(found.problems) == 3
    assert "a quote is opened in this line and not closed" in found.problems[2]


def test_json_that_is_cut_off_keeps_what_is_whole(read_text) -> None:
    text = (SAMPLES / "llama-bench.json").read_text()
    found = read_text(text[: len(text) - 400])
    assert [m.quantity for m in found.measurements] == ["prefill_s"]
    assert "the JSON is cut off or damaged" in found.problems[0]
    lines = (SAMPLES / "llama-bench.jsonl").read_text().splitlines()
    found = read_text("\n".join([lines[0], '{"a": 1,,}', lines[1]]))
    assert [m.line for m in found.measurements] == [1, 3] and "x:2: this line is no JSON" in found.problems[0]


@pytest.mark.parametrize(
    "change",
    [{"completed": "many"}, {"completed": None}, {"total_input_tokens": []}, {"mean_tpot_ms": {"a": 1}},
     {"mean_tpot_ms": -4}, {"mean_ttft_ms": 10**400}, {"server_info": 3}, {"max_concurrency": 0.5}],
)  # fmt: skip
def test_a_result_of_another_shape(read_text, change: dict) -> None:
    run = json.loads((SAMPLES / "sglang.jsonl").read_text().splitlines()[0])
    found = read_text(json.dumps({**run, **change}), hardware="8x b200")
    assert found.measurements == [] and len(found.unused) == 1
    assert all("\n" not in problem and problem.count("x:1: ") == 1 for problem in found.problems)


@given(st.binary(max_size=300), st.sampled_from(sorted(p.name for p in SAMPLES.iterdir())), st.floats(0, 1))
def test_no_damage_ends_in_a_traceback(tmp_path_factory, noise: bytes, name: str, place: float) -> None:
    data = (SAMPLES / name).read_bytes()
    at = int(place * len(data))
    file = tmp_path_factory.mktemp("damaged") / "x"
    file.write_bytes(data[:at] + noise + data[at + len(noise) :])
    found = read([file], Defaults(model="llama-3.1-8b", hardware="8x b200", engine="vllm", prompt=99, output=9))
    assert all(m.value > 0 for m in found.measurements)
    assert all("\n" not in problem for problem in found.problems)


def test_a_first_token_that_fewer_users_and_shorter_prompts_wait_longer_for_is_left_out(read_text) -> None:
    header = "model,hardware,engine,isl,osl,concurrency,ttft_ms"
    runs = [(512, 4, 900), (512, 8, 800), (512, 16, 700), (2048, 4, 110), (2048, 16, 200)]  # cold for the first three
    rows = [f"Llama-3.1-8B,H100,vLLM,{prompt},128,{users},{ms}" for prompt, users, ms in runs]
    found = read_text("\n".join([header, *rows]))
    assert [(u.line, u.reason) for u in found.unused] == [(line, "contradictory") for line in (2, 3, 4)]
    assert "that the server was warm" in found.problems[0]
