"""The command line: exit codes, sentences for bad input, data on stdout and the rest on stderr, a cheap start."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sim
from sim.cli import COMMANDS, main
from sim.errors import RoofcastError
from tests.fakes import estimate_result, fits_result, recommend_result

HEAVY = ("jax", "numpy", "pydantic", "matplotlib", "rich")
Call = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Puts fakes in the place of the verbs; what they return can be set, and what they were given is kept."""
    calls: Call = {"estimate": estimate_result(), "fits": fits_result(True), "recommend": recommend_result(1)}
    answers = dict(calls)

    def fake(name: str) -> Callable[..., Any]:
        def verb(*args: Any, **given: Any) -> Any:
            calls[name] = (args, given)
            if isinstance(answers[name], BaseException):
                raise answers[name]
            return answers[name]

        return verb

    for name in answers:
        monkeypatch.setitem(vars(sim), name, fake(name))
    calls["answers"] = answers
    return calls


def test_help_of_every_command(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for name in COMMANDS:
        assert f"  {name}" in out
        code, text, err = run(*name.split(), "--help")
        assert (code, err) == (0, "")
        assert text.startswith(f"usage: roofcast {name}")
        assert COMMANDS[name][1] in text


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"roofcast {sim.__version__}\n", "")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["estimate", "--help"], ["nonsense"]])
def test_start_imports_nothing_slow(words: list[str]) -> None:
    code = f"import sys, sim.cli; sim.cli.main({words}); print(*set({HEAVY}) & set(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == ""


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "usage: roofcast COMMAND"),
        ("estimat a b", "roofcast: unknown command 'estimat'; hint: did you mean estimate"),
        ("--hepl", "roofcast: unknown option '--hepl'"),
        ("estimate", "roofcast: estimate: the following arguments are required: MODEL, HARDWARE"),
        ("estimate a b c", "roofcast: estimate: unexpected argument 'c'"),
        ("estimate a b --tpp 2", "roofcast: estimate: unknown option --tpp; hint: did you mean --tp"),
        ("estimate a b --conc 2", "roofcast: estimate: unknown option --conc"),
        ("estimate a b --tp", "roofcast: estimate: --tp: expected one argument"),
        ("estimate a b --tp -1", "roofcast: estimate --tp: expected a whole number from 1"),
        ("estimate a b --tp 2.5", "got '2.5'"),
        ("estimate a b --tp 1e30", "got '1e30'"),
        ("estimate a b --concurrency 1,x", "roofcast: estimate --concurrency: expected whole numbers from 1"),
        ("estimate a b --concurrency -1,8", "got '-1,8'"),
        ("estimate a b --concurrency ,", "separated by commas, as in 1,8,32, got ','"),
        ("estimate a b --concurrency=", "separated by commas, as in 1,8,32, got ''"),
        ("estimate a b --prompt 9999m", "got '9999m'"),
        ("estimate a b --price -2", "roofcast: estimate --price: expected an amount of USD above 0"),
        ("estimate a b --price nan", "got 'nan'"),
        ("estimate a b --gpu-memory-utilization 1.5", "expected a fraction from 0 to 1"),
        ("estimate a b --gpu-memory-utilization 0", "expected a fraction above 0, as in 0.9, got '0'"),
        ("estimate a b --format jsn", "expected table, json, csv, got 'jsn'; hint: did you mean json?"),
        ("estimate a b --format csv --explain", "roofcast: estimate: --explain has no CSV form; hint: take --format"),
        ("estimate a b --plot a.gif", "roofcast: a.gif: expected a .png or .svg file"),
        ("recommend", "roofcast: recommend: the following arguments are required: --users"),
        ("recommend --users 1 --ttft 2", "expected a duration with its unit, as in 200ms or 2s, got '2'"),
        ("recommend --users 1 --models a,,b", "expected names separated by commas, got 'a,,b'"),
        ("run no-such-file.toml", "roofcast: no-such-file.toml: no such file"),
        ("guide --check no-such-file.md", "roofcast: no-such-file.md: cannot be read"),
        ("models qwen3-8c", 'roofcast: no model is called "qwen3-8c"; hint: did you mean'),
        ("hardware h1000", 'roofcast: no machine is called "h1000"'),
        ("engines vlm", 'roofcast: no engine is called "vlm"; hint: did you mean vllm'),
        ("models add no-such-file.json", "roofcast: no-such-file.json: no such file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(run: Run, verbs: Call, line: str, sentence: str) -> None:
    code, out, err = run(*line.split())
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


def test_all_problems_are_reported_at_once(run: Run) -> None:
    _, _, err = run("estimate", "a", "b", "--tp", "0", "--kv-blocks", "x", "--tpp", "3", "--concurrency", "")
    lines = err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("roofcast: estimate") for line in lines)


def test_problems_of_a_verb_have_a_line_each(run: Run, verbs: Call) -> None:
    verbs["answers"]["estimate"] = RoofcastError("one", "two")
    assert run("estimate", "a", "b") == (2, "", "roofcast: one\nroofcast: two\n")


def test_a_bug_is_not_dressed_as_bad_input(verbs: Call) -> None:
    verbs["answers"]["estimate"] = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        main(["estimate", "a", "b"])


def test_interrupt(run: Run, verbs: Call) -> None:
    verbs["answers"]["estimate"] = KeyboardInterrupt()
    assert run("estimate", "a", "b") == (130, "", "roofcast: interrupted\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    words = [sys.executable, "-m", "sim", "models", "--format", "csv"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(words, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_exit_code_1_where_nothing_fits(run: Run, verbs: Call) -> None:
    verbs["answers"] |= {
        "estimate": estimate_result(unfit=(0, 1, 2)),
        "fits": fits_result(False),
        "recommend": recommend_result(0),
    }
    assert run("estimate", "a", "b")[0] == 1
    assert run("fits", "llama-3.3-70b", "h100")[0] == 1
    assert run("recommend", "--users", "1")[0] == 1
    verbs["answers"]["estimate"] = estimate_result(unfit=(0, 1))
    assert run("estimate", "a", "b")[0] == 0


def test_estimate_passes_on_what_is_given_and_nothing_else(run: Run, verbs: Call) -> None:
    run("estimate", "a", "b")
    assert verbs["estimate"] == (("a", "b"), {})
    line = "--pay buy --gpus 4 --tp 2 --pp 2 --ep 1 --dp 1 --replicas 2 --weights fp8 --kv 8 --engine vllm --price $2.5"
    more = "--kv-blocks 9 --max-num-batched-tokens 8k --max-num-seqs 64 --gpu-memory-utilization 90% --cpu-moe-frac 0.5"
    run("estimate", "a", "b", *line.split(), *more.split(), "--concurrency", "8", "--context", "128k")
    assert verbs["estimate"][1] == {
        **{"gpus": 4, "tp": 2, "pp": 2, "ep": 1, "dp": 1, "replicas": 2, "weights": "fp8", "kv": "8", "engine": "vllm"},
        **{"pay": "buy", "price": 2.5, "kv_blocks": 9, "max_num_batched_tokens": 8192, "max_num_seqs": 64},
        **{"gpu_memory_utilization": 0.9, "cpu_moe_frac": 0.5, "concurrency": 8, "context": 131072},
    }


def test_lists_become_axes_with_concurrency_last(run: Run, verbs: Call) -> None:
    run("estimate", "a", "b", "--concurrency", "1,8,32", "--prompt", "512,4k", "--output", "64")
    given = verbs["estimate"][1]
    assert given["prompt"].tolist() == [[512], [4096]]
    assert given["concurrency"].tolist() == [[1, 8, 32]]
    assert given["output"] == 64


def test_ngl_is_gpu_layers(run: Run, verbs: Call) -> None:
    run("estimate", "llama-3.3-70b", "b", "-ngl", "38")
    assert verbs["estimate"][1] == {"gpu_layers": 38}


def test_limits_of_recommend(run: Run, verbs: Call) -> None:
    times = ["--ttft", "500ms", "--tpot", "0.05s"]
    run("recommend", "--users", "20", *times, "--budget", "1000", "--budget-per-hour", "3", "--hardware", "a,b")
    limits = {"users": 20, "ttft_s": 0.5, "tpot_s": 0.05, "usd": 1000.0, "usd_per_hour": 3.0, "hardware": ["a", "b"]}
    assert verbs["recommend"] == ((), limits)


@pytest.mark.parametrize("command", ["estimate", "fits", "recommend", "simulate"])
def test_options_are_arguments_of_the_verbs(command: str) -> None:
    from sim.commands import deployment, estimate, fits, recommend, simulate

    commands = {"estimate": estimate, "fits": fits, "recommend": recommend, "simulate": simulate}
    keywords = commands[command]._KEYWORDS.values()
    more = {*deployment.SWEPT} if command == "estimate" else set()
    assert {*keywords, *more} <= set(inspect.signature(getattr(sim, command)).parameters)


def test_stdout_is_data_and_stderr_the_notes(run: Run, verbs: Call) -> None:
    code, out, err = run("estimate", "a", "b")
    assert code == 0
    assert out.startswith("Model A, fp8, on Card B with vLLM, 2 devices, TP 2\n")
    assert err == "note: figures: made up\n"
    assert all(line == line.rstrip() for line in out.splitlines())


def test_json(run: Run, verbs: Call) -> None:
    verbs["answers"]["estimate"] = estimate_result(unfit=(1,))
    _, out, err = run("estimate", "a", "b", "--format", "json", "--explain")
    body = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert err == ""
    assert body["rows"][1]["ttft_s"] is None
    assert body["provenance"] == ["figures: made up"]
    assert {row["phase"] for row in body["operations"]["rows"]} == {"decode", "prefill"}


@pytest.mark.parametrize(
    "line", ["estimate a b", "fits a b", "recommend --users 1", "models", "hardware h100", "engines"]
)
def test_csv(run: Run, verbs: Call, line: str) -> None:
    code, out, _ = run(*line.split(), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert rows and all(None not in row and None not in row.values() for row in rows)


def test_explain_plot_and_roofline(run: Run, verbs: Call, tmp_path: Path) -> None:
    plot, roof = str(tmp_path / "a.png"), str(tmp_path / "b.svg")
    code, out, err = run("estimate", "a", "h100", "--explain", "--plot", plot, "--roofline", roof)
    assert code == 0
    assert "One step of decode, per GPU" in out
    assert f"note: wrote {plot}\nnote: wrote {roof}\n" in err
    assert Path(plot).stat().st_size > 10_000 and Path(roof).stat().st_size > 10_000


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "styled"), [("", True), ("1", False)])
def test_color_only_on_a_terminal_and_without_no_color(
    verbs: Call, monkeypatch: pytest.MonkeyPatch, no_color: str, styled: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    for stream, expected in ((Terminal(), styled), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["estimate", "a", "b"]) == 0
        assert ("\x1b[" in stream.getvalue()) == expected


def test_run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loads = {"label": np.array(["A"]), "max_concurrency": np.array([64]), "verdict": np.array(["yes, at every level"])}
    rates = {
        name: np.array([1.0]) for name in ("ttft_s", "tpot_s", "output_tokens_per_s", "usd_per_hour", "usd_per_mtok")
    }
    summary = sim.Result({**loads, **rates}, {}, ("figures: made up",))
    answer = SimpleNamespace(
        scenario=SimpleNamespace(name="A small team"),
        results={"A": estimate_result()},
        summary=summary,
        recommendation=None,
    )
    monkeypatch.setitem(vars(sim), "run", lambda path: answer)
    code, out, _ = run("run", "x.toml", "--plot", str(tmp_path / "a.png"))
    assert code == 0 and (tmp_path / "a.png").exists()
    assert "A small team" in out and "A: yes, at every level" in out
    body = json.loads(run("run", "x.toml", "--format", "json")[1])
    assert body["scenario"] == "A small team" and len(body["results"]["A"]["rows"]) == 3
    rows = list(csv.DictReader(io.StringIO(run("run", "x.toml", "--format", "csv")[1])))
    assert [row["label"] for row in rows] == ["A"] * 3
    summary.columns["max_concurrency"] = np.array([0])
    assert run("run", "x.toml")[0] == 1
