"""`roofcast calibrate`: what it refuses, what it says, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sim
import tests.measured_world as made
from sim.errors import RoofcastError
from sim.profiles import load
from sim.verbs.calibrate import calibrate

FEW = made.runs(devices=("H200",), engines=("vLLM",))[:3]
SLOW = [(1.0 + 0.1 * n, 0.02 + 0.001 * n) for n in range(len(FEW))]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three rows that can be used."""
    return made.write(tmp_path / "rows.csv", FEW, SLOW)


@pytest.mark.parametrize(
    "words, said",
    [
        ((), "the file of the profile is missing"),
        (("--out", "{rows}"), "is read"),
        (("--out", "{folder}"), "is a directory"),
        (("--out", "{folder}/none/p.toml"), "there is no folder"),
        (("--out", "{folder}/p.toml", "--folds", "1"), "expected a whole number from 2"),
        (("--out", "{folder}/p.toml", "--format", "csv"), "expected table, json"),
        (("--out", "{folder}/p.toml", "--profile", "{folder}/absent.toml"), "absent.toml"),
        (("--report", "{folder}/a.md"), "add --profile none"),
        (("--report", "{folder}/a.md", "--figures", "{folder}/a.md", "--profile", "none"), "the file of --report, too"),
        (("--figures", "{folder}/a.json", "--out", "{folder}/p.toml"), "add --report"),
        (("--out", "/proc/x"), "/proc/x: cannot be written"),
        (("--report", "/proc/x.md", "--profile", "none"), "/proc/x.md: cannot be written"),
        (("--report", "{folder}/a.md", "--figures", "/proc/x", "--profile", "none"), "/proc/x: cannot be written"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_computed(run, rows, tmp_path, words, said) -> None:
    code, out, err = run("calibrate", str(rows), *(word.format(rows=rows, folder=tmp_path) for word in words))
    assert (code, out) == (2, "")
    assert err.startswith("roofcast: ") and said in err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("text", ["", made.HEADER + "\n", "a,b\n1,2\n", None])
def test_files_without_a_usable_row_are_refused(run, tmp_path, text) -> None:
    file = tmp_path / "none.csv"
    if text is not None:
        file.write_text(text)
    code, out, err = run("calibrate", str(file), "--out", str(tmp_path / "p.toml"))
    assert (code, out) == (2, "")
    assert "no row can be used" in err and "none.csv" in err
    assert not (tmp_path / "p.toml").exists()


def test_arguments_of_the_verb_are_checked(rows: Path) -> None:
    assert sim.calibrate is calibrate
    for words, said in (
        ({"paths": []}, "expected the names of files with measurements, found none"),
        ({"paths": 5}, "expected the names of files with measurements, found 5"),
        ({"model": 5}, "expected the name of a model, found 5"),
        ({"kv": [1]}, "no KV format is called"),
        ({"created": 5}, "expected the name of a date, found 5"),
        ({"progress": 5}, "progress: expected a function"),
        ({"folds": 0}, "from 2 to 1000"),
        ({"hardwear": "h100"}, "did you mean hardware"),
        ({"tp": [1, 2]}, "expected one number"),
        ({"name": " "}, "expected the name of a profile"),
    ):
        with pytest.raises(RoofcastError, match=said):
            calibrate(**({"paths": rows} | words))


def test_no_usable_row_says_why_and_what_to_state(run, tmp_path) -> None:
    sample = str(Path(__file__).parent / "samples" / "mlx-lm.txt")
    code, out, err = run("calibrate", sample, "--out", str(tmp_path / "p.toml"))
    assert (code, out) == (2, "")
    assert "no row can be used; hint: model and hardware not stated: state them with --model and --hardware" in err


def test_figures_that_no_fit_takes_are_named(run, tmp_path) -> None:
    sample = str(Path(__file__).parent / "samples" / "aiperf.json")
    words = ("--hardware", "rtx-6000-ada", "--engine", "vllm", "--profile", "none", "--out", str(tmp_path / "p.toml"))
    code, _, err = run("calibrate", sample, *words)
    assert code == 0 and "not read: request_throughput (requests/sec), benchmark_duration (sec)\n" in err
    assert "note: figures of fitted rows that took no part: request_latency.avg: judged only (1)\n" in err


def test_few_rows_and_a_row_with_a_mistake(run, rows: Path, tmp_path: Path) -> None:
    text = rows.read_text()
    rows.write_text(text + text.splitlines()[1].replace("r0,", "r9,") + "\n")
    out = tmp_path / "mine.toml"
    words = ("calibrate", str(rows), "--out", str(out), "--profile", "none", "--format", "json")
    code, said, err = run(*words)
    assert code == 1
    assert f"{rows}:5: the same configuration, load and ttft_ms as in line 2" in err
    assert "no errors on held-out rows: 3 rows are fewer than 5 folds" in err
    body = json.loads(said)
    assert body["errors"] == [] and body["parameters"]["at the prior"] > 0 and len(body["problems"]) == 1
    profile = load(out)
    assert (profile.name, profile.error, profile.interval) == ("mine", (), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml", "rows.csv"]


def test_where_nothing_is_pinned_down_it_names_what_moved(run, tmp_path: Path) -> None:
    rows = tmp_path / "one.csv"
    rows.write_text("model,hardware,engine,concurrency,prompt_tokens,output_tokens,quantity,value\n"
                    "llama-3.1-8b,h100-sxm,vllm,16,1000,200,tpot_ms,9\n")  # fmt: skip
    words = ("calibrate", str(rows), "--out", str(tmp_path / "p.toml"), "--profile", "none")
    code, out, _ = run(*words)
    body = json.loads(run(*words, "--format", "json")[1])
    assert code == 0 and body["parameters"]["pinned"] == 0 < len(body["moved"])
    assert "These rows pin down no single one; moved together nonetheless" in out
    for pin in body["moved"]:
        assert pin["before"] == 1 != pin["factor"]
        assert f"from +0.0 % to {round(100 * (pin['factor'] - 1), 1) + 0.0:+.1f} %" in pin["text"]
    assert all(f"  {pin['text']}\n" in out for pin in body["moved"][:12])


def test_the_table_names_what_the_data_pinned_down(run, rows: Path, tmp_path: Path) -> None:
    code, out, err = run("calibrate", str(rows), "--out", str(tmp_path / "p.toml"), "--profile", "none", "--folds", "3")
    assert code == 0
    assert "Errors on rows held out, with the catalogue and with p" in out and "tpot_s" in out
    assert "Parameters: " in out and "at the prior" in out
    assert "fitted without fold 3: step" in err and f"wrote {tmp_path / 'p.toml'}" in err
