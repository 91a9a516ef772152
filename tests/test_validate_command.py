"""`roofcast validate`: exit codes, the file of rows, the picture, and what is said where."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import sim
from sim import catalog, measure, profiles
from sim.calibration.known import packed
from sim.profiles.write import write
from sim.results import Result
from tests.test_validate import ROWS, SAMPLES, TINY, table_of

Run = Callable[..., tuple[int, str, str]]
OWN = "model,hardware,engine,quantity,value,prompt_tokens,output_tokens,weights"
ADDED = ["measured_column", "unit", "measured", "predicted", "error_frac", "low", "high", "used", "reason", "detail"]


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """A file with a row of each quantity."""
    return str(table_of(tmp_path / "rows.csv", ROWS))


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_the_tables_of_a_file(run: Run, rows: str) -> None:
    code, out, err = run("validate", rows, "--profile", str(TINY))
    assert code == 0
    assert "Error of forecasts" in out and "9 figures used, 0 rows or figures not\n" in out
    assert "in the 80 %" in out and "llama-3.1-8b" in out and "h100-sxm" in out and "dense" in out
    assert "note: profile: tiny of" in err and "note: interval: 80 %" in err
    some = run("validate", rows, "--profile", "none", "--by", "batch,kind")[1]
    assert "in the 80 %" not in some and "9-32" in some and "h100-sxm" not in some.partition("Error of")[2]


def test_few_figures_are_shown_one_by_one(run: Run, rows: str, tmp_path: Path) -> None:
    out = run("validate", rows, "--profile", str(TINY), "--by", "all")[1]
    told = out.partition("Error of forecasts")[0].splitlines()
    assert told[0] == "Forecasts beside measurements" and len(told) == 3 + len(ROWS) + 1
    first = json.loads(run("validate", rows, "--profile", str(TINY), "--format", "json")[1])["figures"][0]
    words = f"9.00 ms {first['predicted']:.2f} {first['low']:.2f} to {first['high']:.2f}"
    assert told[3].split() == ["llama-3.1-8b", "h100-sxm", "tpot", "16", "x", "1,000+200", *words.split(),
                               f"{100 * first['error_frac']:.2f}%"]  # fmt: skip
    assert "16 x 900+200" in told[9] and "1 x 1,000 " in told[11] and "20,000 tok/s" in told[11]
    plain = run("validate", rows, "--profile", "none", "--by", "all")[1].partition("Error of")[0]
    assert " to " not in plain and "interval" not in plain
    many = str(table_of(tmp_path / "many.csv", [ROWS[0] | {"concurrency": n} for n in range(1, 14)]))
    assert run("validate", many, "--profile", "none", "--by", "all")[1].startswith("Error of forecasts")


def test_rows_that_the_profile_was_fitted_to_are_said_to_be(run: Run, rows: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    figures = measure.read([Path(rows)]).measurements
    line = ("validate", rows, "--by", "all", "--profile")
    for n, how in ((9, "in-sample"), (4, "partly in-sample")):
        data = profiles.rows.Data(file="other.csv", rows=n, used=n, fingerprints=packed(figures[:n]))
        write(profiles.load(TINY).model_copy(update={"data": (data,)}), mine)
        out = run(*line, str(mine))[1]
        assert out.startswith(f"{how}: the profile tiny was fitted to {n} of the 9 rows of rows.csv: errors")
    assert "in-sample" not in run(*line, str(TINY))[1]
    body = json.loads(run(*line, str(mine), "--format", "json")[1])
    assert next(iter(body)) == "in_sample" and len(body["in_sample"]) == 1
    [told] = sim.validate(by="all").details["in_sample"]
    assert re.match(r"in-sample: the profile \S+ was fitted to 4\d\d of the 5\d\d rows of measurements.csv: ", told)
    assert told.endswith("rows held out (docs/accuracy.md)")


def test_formats(run: Run, rows: str) -> None:
    line = ("validate", rows, "--profile", str(TINY), "--interval", "0.5", "--by", "all")
    body = json.loads(run(*line, "--format", "json")[1])
    assert [row["rows"] for row in body["rows"]] == [len(ROWS)] and body["problems"] == [] and body["unused"] == {}
    assert [figure["line"] for figure in body["figures"]] == list(range(2, 2 + len(ROWS)))
    units = ["ms"] * 3 + ["s"] + ["tokens/s"] * 2 + ["ms"] + ["tokens/s"] * 2
    assert [figure["unit"] for figure in body["figures"]] == units
    [total] = csv.DictReader(io.StringIO(run(*line, "--format", "csv")[1]))
    assert float(total["median_frac"]) == body["rows"][0]["median_frac"]


def test_rows_hold_every_row_of_every_file_once(run: Run, tmp_path: Path) -> None:
    names = ("silicon.csv", "local.csv", "serving.csv")
    files, out = [str(SAMPLES / name) for name in names], tmp_path / "out.csv"
    code, _, err = run("validate", *files, "--profile", str(TINY), "--rows", str(out))
    assert code == 0 and f"note: wrote {out}" in err
    written = read(out)
    headers = [list(read(Path(file))[0]) for file in files]
    union = list(dict.fromkeys(name for header in headers for name in header))
    assert list(written[0]) == ["file", "line", *union, *ADDED]
    for file in files:
        expected = {n: row for n, row in enumerate(read(Path(file)), 2)}
        own = [row for row in written if row["file"] == file]
        assert {int(row["line"]) for row in own} == set(expected)
        assert all({name: row[name] for name in expected[2]} == expected[int(row["line"])] for row in own)
    once = Counter((row["file"], row["line"], row["measured_column"]) for row in written)
    assert set(once.values()) == {1}
    for row in written:
        assert row["used"] in ("true", "false") and bool(row["reason"]) == (row["used"] == "false")
        if row["used"] == "true":
            stated = float(row[row["measured_column"]])
            assert float(row["measured"]) == pytest.approx(stated)
            assert float(row["error_frac"]) == pytest.approx(float(row["predicted"]) / stated - 1)
            assert float(row["low"]) < float(row["predicted"]) < float(row["high"])


def test_rows_can_be_validated_again(run: Run, tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    assert run("validate", str(SAMPLES / "local.csv"), "--profile", "none", "--rows", str(first))[0] == 0
    assert run("validate", str(first), "--profile", "none", "--rows", str(second))[0] == 0
    once, again = read(first), read(second)
    assert [row["predicted"] for row in again] == [row["predicted"] for row in once]
    assert [row["predicted_in_file"] for row in again] == [row["predicted"] for row in once]


def test_bad_rows_are_named_and_the_rest_is_used(run: Run, tmp_path: Path) -> None:
    bad = [{"value": "fast"}, {"value": -3}, {"value": 0.001}, {"quantity": "tpot"}, {"concurrency": ""}]
    path = table_of(tmp_path / "rows.csv", [ROWS[0]] + [ROWS[0] | change for change in bad])
    code, out, err = run("validate", str(path), "--profile", "none")
    assert code == 1 and "2 figures used, 4 rows or figures not:" in out
    for line, said in ((3, "value is 'fast'"), (4, "value is '-3'"), (5, "faster than memory allows"),
                       (6, "quantity is tpot; hint: did you mean tpot_ms")):  # fmt: skip
        assert any(f"rows.csv:{line}: " in told and said in told for told in err.splitlines())


def test_a_rejected_figure_of_a_used_row_has_a_line_of_its_own(run: Run, tmp_path: Path) -> None:
    sample, out = Path(__file__).parent / "samples" / "genai-perf.json", tmp_path / "rows.csv"
    asked = ("--hardware", "2x-h100", "--engine", "trtllm", "--profile", "none")
    code, _, err = run("validate", str(sample), *asked, "--rows", str(out))
    assert code == 1 and f"note: {sample}: not read: request_throughput (requests/sec)\n" in err
    written = read(out)
    assert [row["reason"] for row in written] == ["", *["faster than memory allows"] * 3]
    named = {row["detail"].split(".")[0] for row in written[1:]}
    assert named == {"inter_token_latency", "request_latency", "output_token_throughput"}
    assert written[0]["measured_column"] == "time_to_first_token.avg"


def test_many_mistakes_of_a_kind_are_counted(run: Run, tmp_path: Path) -> None:
    path = table_of(tmp_path / "rows.csv", [ROWS[0]] + [ROWS[0] | {"value": "?"}] * 14)
    code, out, err = run("validate", str(path), "--profile", "none")
    assert code == 1 and "- 14 not a number" in out
    told = [line for line in err.splitlines() if line.startswith("roofcast: ")]
    assert len(told) == 11 and told[-1] == "roofcast: and 4 more like it: --format json lists all"
    assert len(json.loads(run("validate", str(path), "--profile", "none", "--format", "json")[1])["problems"]) == 14


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "the format is not known"),
        ("model,hardware,engine,quantity\nx,y,z,tpot_ms\n", "value"),
        ("model,hardware,engine,quantity,value\n", "holds no row below its header"),
        ("model,hardware,engine,quantity,value\nx,y,z,tpot_ms,3\n", "no row can be used; hint: unknown model: x (1)"),
        (
            f"{OWN}\nllama-3.3-70b,rtx-4090,vllm,ttft_ms,9000,64,8,bf16\n",
            "hint: does not fit: the weights do not fit (1)",
        ),
        (f"{OWN}\nllama-3.1-8b,h100,vllm,tpot_ms,9,64,1,fp8\n", "9 of 1 output token: there is no time between tokens"),
    ],
)
def test_files_without_a_usable_row(run: Run, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    code, out, err = run("validate", str(tmp_path / "x.csv"), "--rows", str(tmp_path / "out.csv"))
    assert (code, out) == (2, "") and said in err
    assert "note: wrote" in err and len(err.splitlines()) < 5
    written, lines = read(tmp_path / "out.csv"), text.splitlines()[1:] if "format is not" not in said else []
    assert [row["used"] for row in written] == ["false"] * len(lines)
    assert all(row["reason"] and row["detail"] for row in written)


def test_a_missing_file_leaves_the_others(run: Run, rows: str) -> None:
    code, out, err = run("validate", rows, "no-such.csv", "--profile", "none")
    assert code == 1 and "9 figures used" in out and "roofcast: no-such.csv: cannot be read" in err


def test_what_cannot_be_written_is_refused_before_anything_is_computed(
    run: Run, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim, "validate", None, raising=False)
    for option, path, said in (("--rows", tmp_path, "is a directory"),
                               ("--rows", tmp_path / "no" / "x.csv", "no folder"),
                               ("--rows", "/proc/x", "/proc/x: cannot be written"),
                               ("--plot", "/proc/x.png", "/proc/x.png: cannot be written"),
                               ("--plot", tmp_path / "x.gif", "expected a .png or .svg file")):  # fmt: skip
        code, out, err = run("validate", rows, option, str(path))
        assert (code, out) == (2, "") and said in err


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture(run: Run, rows: str, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    code, _, err = run("validate", rows, "--profile", "none", "--plot", str(path))
    assert code == 0 and f"note: wrote {path}" in err
    assert path.read_bytes()[:5] == {"png": b"\x89PNG\r", "svg": b"<?xml"}[suffix]


def test_the_command_line_states_what_files_do_not_say(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("quantity,value,concurrency,prompt_tokens,output_tokens\ntpot_ms,9,16,1000,200\n")
    assert run("validate", str(path))[0] == 2
    stated = [
        "--model",
        "llama-3.1-8b",
        "--hardware",
        "2x h100-sxm",
        "--engine",
        "vllm",
        "--weights",
        "fp8",
        "--tp",
        "2",
    ]
    body = json.loads(run("validate", str(path), *stated, "--profile", "none", "--format", "json")[1])
    [figure] = body["figures"]
    assert [figure[name] for name in ("machine", "weights", "tp", "kv")] == ["2x h100-sxm", "fp8", 2, "16"]


def test_bad_options(run: Run, rows: str) -> None:
    for words, said in ((["--by", "models"], "did you mean model"), (["--interval", "80"], "between 0 and 1"),
                        (["--engine", "vlm"], "did you mean vllm"), (["--profile", "no.toml"], "no such file"),
                        (["--tp", "0"], "validate --tp: expected a whole number")):  # fmt: skip
        code, out, err = run("validate", rows, *words)
        assert (code, out) == (2, "") and said in err


def test_help(run: Run) -> None:
    code, out, _ = run("validate", "--help")
    assert code == 0 and out.startswith("usage: roofcast validate [FILE...] [options]")
    for option in ("--rows", "--plot", "--by", "--profile", "--interval", "--model", "--concurrency", "--format"):
        assert option in out


@pytest.fixture(scope="module")
def shipped() -> Result:
    """The table that Roofcast ships, beside its forecasts."""
    return sim.validate(profile="none")


def test_the_shipped_table_is_whole(shipped: Result) -> None:
    assert shipped.details["in_sample"] == ()
    assert 300 <= len(shipped.rows()) <= 600
    assert f"{len(shipped.rows())} published figures" in (SAMPLES.parents[1] / "docs/measurements.md").read_text()
    assert shipped["used"].all() and shipped.details["problems"] == []
    for columns in shipped.details["columns"]:
        assert columns["source_title"] and columns["id"]
        assert columns["source_url"].startswith("https://") or columns["id"] in columns["source_title"]
        assert columns["model"] in catalog.models() and columns["quantity"] and columns["stat"] and columns["tier"]


def test_the_shipped_table_covers(shipped: Result) -> None:
    assert {row.quantity for row in measure.read([measure.SHIPPED]).measurements} == set(measure.rows.Quantity.__args__)
    assert len(set(shipped["model"].tolist())) >= 60 and len(set(shipped["machine"].tolist())) >= 60
    assert {"vllm", "sglang", "trtllm", "llamacpp", "mlx"} <= set(shipped["engine"].tolist())
