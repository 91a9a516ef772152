"""Traces: each format by its content, cut and sorted as asked, and what is wrong with a file in sentences."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import RoofcastError
from sim.traffic import Traffic, draw, read_trace

SAMPLES = Path(__file__).parent / "traffic_samples"
HEADER = "arrival_s,prompt_tokens,output_tokens"
MOONCAKE = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}'
READ = {  # file -> format, arrivals, prompts, outputs
    "azure-2023.csv": ("azure-2023", [0, 0.25, 2.1234567], [400, 1200, 80], [40, 12, 300]),
    "azure-2024.csv": ("azure-2024", [0, 0.99007, 1.5], [2162, 2399, 76], [5, 6, 15]),
    "burstgpt.csv": ("burstgpt", [0, 113, 113.5], [472, 417, 30], [18, 276, 9]),
    "mooncake.jsonl": ("mooncake", [0, 0, 3.25], [1300, 512, 1600], [52, 26, 9]),
    "sharegpt.csv": ("sharegpt", [0, 0.5, 2.0], [310, 28, 640], [42, 512, 7]),
    "plain.csv": ("csv", [0, 1, 1], [100, 200, 300], [10, 20, 30]),
    "aliases.csv": ("csv", [0, 1.5], [100, 200], [10, 20]),
}


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file of this content, and returns its path."""

    def call(content: str | bytes) -> Path:
        path = tmp_path / "x"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return call


def refused(path: Path, line: int | None, *words: str, **how) -> None:
    """One problem, in one line, that names the file, the line and these words."""
    with pytest.raises(RoofcastError) as raised:
        read_trace(path, **how)
    [problem] = raised.value.problems
    assert (
        problem.startswith(f"{path}:{line}: " if line else f"{path}: ") and "\n" not in problem and len(problem) < 600
    )
    for word in words:
        assert word in problem


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", READ)
def test_each_format_is_found_by_its_content(name, packed, write):
    content = (SAMPLES / name).read_bytes()
    found = read_trace(write(gzip.compress(content) if packed else content))
    kind, arrival_s, prompt, output = READ[name]
    assert (found.format, len(found), found.n_failed) == (kind, len(prompt), int(kind == "burstgpt"))
    assert found.arrival_s == pytest.approx(arrival_s, abs=1e-9)
    assert (found.prompt_tokens.tolist(), found.output_tokens.tolist()) == (prompt, output)
    assert found.arrival_s.dtype == np.float64 and found.prompt_tokens.dtype == np.int32
    assert (found.hashes is not None) == (kind == "mooncake")


def test_hash_ids_follow_their_requests():
    hashes = read_trace(SAMPLES / "mooncake.jsonl", skip=1).hashes
    assert (hashes.offsets.tolist(), hashes.ids.tolist(), hashes.block_tokens) == ([0, 1, 5], [46, 46, 47, 49, 50], 512)
    cut = draw(Traffic(path="mooncake.jsonl", max_prompt_tokens=1024, duration_s=3), folder=SAMPLES)
    assert (cut.prompt_tokens.tolist(), cut.hashes.ids.tolist()) == ([1024, 512], [46, 47, 46])


def test_a_trace_is_cut_and_its_clock_scaled():
    found = draw(Traffic(path="burstgpt.csv", skip=1, first=2, time_scale=[1, 4]), 4, folder=SAMPLES)
    assert (found.arrival_s.tolist(), found.prompt_tokens.tolist()) == ([0, 0.125], [417, 30])
    assert found.provenance == (
        "2 requests, from request 2 of burstgpt.csv (BurstGPT), 1 failed ones left out, 4 times as fast"
    )
    timed = draw(Traffic(path="burstgpt.csv", duration_s=113), folder=SAMPLES)
    assert timed.arrival_s.tolist() == [0, 113]
    system = draw(Traffic(path="burstgpt.csv", system_prompt_tokens=400), folder=SAMPLES)
    assert system.prompt_tokens.tolist() == [472, 417, 401]


def test_a_trace_that_changes_is_read_again(write):
    for tokens in (100, 2000):
        path = write(f"{HEADER}\n0,{tokens},5\n")
        assert draw(Traffic(path=str(path))).prompt_tokens.tolist() == [tokens]


def test_out_of_order(write):
    path = write(f"{HEADER}\n0,1,1\n5,2,2\n3.5,3,3\n4,4,4\n")
    refused(path, 4, "this request arrives 1.5 s before the one above it", "sort = true")
    assert read_trace(path, sort=True).prompt_tokens.tolist() == [1, 3, 4, 2]
    assert read_trace(path, first=2).prompt_tokens.tolist() == [1, 2]
    lines = [MOONCAKE.replace("600", "100").replace("[1, 2]", "[9]").replace("0,", "7,", 1), MOONCAKE]
    found = read_trace(write("\n".join(lines)), sort=True)
    assert (found.hashes.ids.tolist(), found.hashes.offsets.tolist()) == ([1, 2, 9], [0, 2, 3])


def test_zones_of_one_file_may_differ(write):
    rows = ("2024-03-31 01:59:59.5+01:00,1,1", "2024-03-31 03:00:00+02:00,2,2", "2024-03-31 01:00:01Z,3,3")
    found = read_trace(write("timestamp,prompt_tokens,output_tokens\n" + "\n".join(rows)))
    assert found.arrival_s == pytest.approx([0, 0.5, 1.5])


def test_a_header_alone_in_its_gzip_member(write):
    parts = ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "2023-11-16 09:00:00,4,5\n")
    assert len(read_trace(write(b"".join(gzip.compress(part.encode()) for part in parts) + bytes(512)))) == 1


@pytest.mark.parametrize(
    "row, words",
    [
        ("1,-3,5", ("prompt_tokens is -3, expected a whole number from 1 to 10,000,000",)),
        ("1,0,5", ("prompt_tokens is 0", "leave the row out")),
        ("1,3,0", ("output_tokens is 0",)),
        ("1,10000001,5", ("prompt_tokens is 10000001, expected",)),
        ("1,1e300,5", ("prompt_tokens is '1e300', expected",)),
        ("1,3.5,5", ("prompt_tokens is 3.5",)),
        ("1,,5", ("prompt_tokens is empty",)),
        ("1,abc,5", ("prompt_tokens is 'abc'",)),
        ("nan,3,5", ("arrival_s is 'nan', expected seconds, or a time such as",)),
        ("inf,3,5", ("arrival_s is 'inf'",)),
        ("soon,3,5", ("arrival_s is 'soon'",)),
        ("1,3", ("the row has 2 cells, and the header 3", "it may be cut off")),
        ("1,3,5,7", ("the row has 4 cells",)),
        ('1,"3,5', ("the row has 2 cells",)),
    ],
)
def test_a_row_of_csv_that_is_wrong(write, row, words):
    refused(write(f"{HEADER}\n0,1,1\n\n{row}\n2,1,1\n"), 4, *words)


@pytest.mark.parametrize("stamp", ["now", "NaT", "2024-13-01 00:00:00", "2024-01-01 00:00:00+99:99", "1704067200", ""])
def test_a_date_that_is_none(write, stamp):
    header, row = "TIMESTAMP,ContextTokens,GeneratedTokens", "2024-01-01 00:00:00,4,5"
    refused(write(f"{header}\n{row}\n{stamp},4,5\n"), 3, "TIMESTAMP is ", "expected seconds, or a time such as")


@pytest.mark.parametrize(
    "line, words",
    [
        (MOONCAKE[:40], ("this line is cut off or no JSON", "first = N")),
        ("[1, 2]", ("this line is no object",)),
        (MOONCAKE.replace("input_length", "input_len"), ("the field input_length is missing", "did you mean")),
        (MOONCAKE.replace(', "hash_ids": [1, 2]', ""), ("the field hash_ids is missing",)),
        (MOONCAKE.replace("[1, 2]", "[1]"), ("hash_ids has 1 entries", "2 blocks", "512 tokens")),
        (MOONCAKE.replace("[1, 2]", "[1, 2.5]"), ("hash_ids is no list of whole numbers",)),
        (MOONCAKE.replace("[1, 2]", f"[1, {2**70}]"), ("hash_ids are beyond 64 bits",)),
        (MOONCAKE.replace("600", "-600"), ("input_length is -600",)),
        (MOONCAKE.replace("600", "true"), ("input_length is True",)),
        (MOONCAKE.replace('"output_length": 5', '"output_length": ' + "9" * 400), ("output_length is 999",)),
        (MOONCAKE.replace(": 0,", ": null,"), ("timestamp is None",)),
        ("[" * 100_000, ("this line is cut off or no JSON",)),
    ],
)
def test_a_line_of_json_that_is_wrong(write, line, words):
    path = write(f"{MOONCAKE}\n{line}\n")
    refused(path, 2, *words)
    assert len(read_trace(path, first=1)) == 1


def test_several_faults_are_told_at_once(write):
    with pytest.raises(RoofcastError) as raised:
        read_trace(write(f"{HEADER}\n0,1,0\n1,0,1\nx,1,1\n1,0,0\n"))
    assert [problem.split(": ")[0][-2:] for problem in raised.value.problems] == [":2", ":3", ":4"]


@pytest.mark.parametrize(
    "content, line, words",
    [
        ("", 1, ("is empty",)),
        ("\n \n", 1, ("is empty",)),
        (f"{HEADER}\n", 1, ("holds no request",)),
        ("a,b\n1,2\n", 1, ("the columns arrival_s and prompt_tokens and output_tokens are missing",)),
        ("arrival_s,prompt_tokens\n1,2\n", 1, ("the column output_tokens is missing",)),
        (
            "arrival_s,prompt_token,output_tokens\n1,2,3\n",
            1,
            ("column prompt_tokens is missing", "rename prompt_token"),
        ),
        ("[{}]", 1, ("a list in JSON is not read",)),
        (bytes(range(128)), 1, ("is not text",)),
        (HEADER.encode("utf-16"), 1, ("is not UTF-8 text",)),
        (f"{HEADER}\n0,1,1\0\n", 2, ("is not text",)),
        (b"x" * 17_000_000, 1, ("does not end within 16 MiB",)),
    ],
)
def test_a_file_that_is_wrong(write, content, line, words):
    refused(write(content), line, *words)


def test_a_gzip_file_that_is_cut_off_or_damaged(write):
    rng = np.random.default_rng(0)
    rows = [f"{i},{p},{o}" for i, (p, o) in enumerate(rng.integers(1, 10**6, (9000, 2)))]
    whole = gzip.compress("\n".join([HEADER, *rows]).encode())
    for broken in (whole[:-4], whole[: len(whole) // 2], whole[:9], whole[:60_000] + b"\xff" * 99 + whole[60_099:]):
        with pytest.raises(RoofcastError, match=r"x:\d+: the gzip file is cut off or damaged in this line"):
            read_trace(write(broken))
    found = read_trace(write(whole[:60_000]), first=100)
    assert found.prompt_tokens.tolist() == [int(row.split(",")[1]) for row in rows[:100]]


def test_files_and_ranges_that_are_not_there(tmp_path):
    (tmp_path / "trace.csv").write_text(f"{HEADER}\n0,1,1\n")
    refused(tmp_path / "trac.csv", None, "no such file", "did you mean trace.csv?")
    refused(tmp_path, None, "cannot be read: Is a directory")
    refused(tmp_path / "trace.csv", None, "holds 1 requests, and skip = 1 leaves none", skip=1)
    refused(tmp_path / "trace.csv", 1, "this is csv (CSV), and the format asked for is mooncake", expected="mooncake")
    with pytest.raises(RoofcastError, match="hash_ids say what its prompts share"):
        draw(Traffic(path="mooncake.jsonl", system_prompt_tokens=9), folder=SAMPLES)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode), st.sampled_from([*READ, None]), st.data())
def test_whatever_is_in_a_file_ends_in_requests_or_sentences(tmp_path_factory, junk, name, data):
    content = (SAMPLES / name).read_bytes() if name else b""
    at = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.mktemp("junk") / "x"
    path.write_bytes(content[:at] + junk + content[at + data.draw(st.integers(0, 30)) :])
    try:
        found = read_trace(path)
    except RoofcastError as error:
        assert all(str(path) in problem for problem in error.problems)
    else:
        assert (np.diff(found.arrival_s) >= 0).all() and found.prompt_tokens.min() >= 1 <= found.output_tokens.min()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_large_file_is_read_in_bounded_memory(write, kind):
    n = 200_000
    if kind == "csv":
        path = write("\n".join([HEADER, *(f"{i / 10},{i % 999 + 1},{i % 99 + 1}" for i in range(n))]))
    else:
        entry = {"input_length": 99, "output_length": 9}
        path = write("\n".join(json.dumps({"timestamp": i, **entry}) for i in range(n)))
    tracemalloc.start()
    found = read_trace(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == n and peak_bytes < 60 * n + 40_000_000


RECORDED = {  # file -> format, requests, seconds, mean prompt, mean output
    "azure_llm_2023_code.csv.gz": ("azure-2023", 8819, 3435.948, 2047.85, 27.88),
    "azure_llm_2023_conv.csv.gz": ("azure-2023", 19366, 3501.722, 1154.70, 211.13),
    "mooncake_conversation_trace.jsonl.gz": ("mooncake", 12031, 3536.999, 12035.06, 342.62),
    "mooncake_synthetic_trace.jsonl.gz": ("mooncake", 3993, 1022.025, 15325.48, 149.12),
    "sharegpt_llama-3.1-8b_300.csv": ("sharegpt", 300, 29.137, 857.46, 652.51),
}


@pytest.mark.parametrize("name", RECORDED)
def test_real_traces(shared, name):
    found = read_trace(shared / "traces" / name)
    kind, n, last_s, prompt, output = RECORDED[name]
    assert (found.format, len(found)) == (kind, n) and found.arrival_s[-1] == pytest.approx(last_s, abs=1e-3)
    assert (found.prompt_tokens.mean(), found.output_tokens.mean()) == pytest.approx((prompt, output), abs=0.01)
    if kind == "mooncake":
        assert np.array_equal(np.diff(found.hashes.offsets), -(-found.prompt_tokens // 512))
