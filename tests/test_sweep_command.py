"""`roofcast sweep`: what reaches the verb, what is printed and drawn of its answer, and bad input of every kind."""

from __future__ import annotations

import csv
import io
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from sim.errors import RoofcastError
from sim.report.sweep_lines import leaders, tick, turns
from sim.report.sweep_plot import best_grid, sweep_plot
from sim.sweeps.spec import Spec
from tests.sweep_fakes import LEVELS, MACHINES, SIZES, sweep_answer, sweep_spec, table

Run = Callable[..., tuple[int, str, str]]
FILE = """
name = "Two models"
[axes]
model = ["qwen3-8b", "qwen3-30b-a3b"]
hardware = ["h100-sxm", "m3-ultra-96gb"]
engine = ["vllm", "mlx"]
concurrency = [1, 8, 64]
[answers]
by = ["model", "concurrency"]
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A small sweep's file."""
    (tmp_path / "a.toml").write_text(FILE)
    return str(tmp_path / "a.toml")


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A fake in the place of the verb; what it was given is kept, what it returns can be set."""
    kept = SimpleNamespace(answer=sweep_answer(), spec=None, given=None)

    def sweep(source: Spec | str, *, progress: Any, **given: Any) -> Any:
        progress("configurations", 1, 2)
        kept.spec, kept.given = source, given
        if isinstance(kept.answer, BaseException):
            raise kept.answer
        return kept.answer

    monkeypatch.setitem(sys.modules, "sim.verbs.sweep", SimpleNamespace(sweep=sweep))
    return kept


def test_the_file_and_the_options_reach_the_verb(run: Run, path: str, verb: SimpleNamespace, tmp_path: Path) -> None:
    assert run("sweep", path)[0] == 0
    assert verb.given == {} and verb.spec == path
    words = ["--by", "hardware,model,model", "--top", "3", "--profile", "none", "--verify", "--keep", "all"]
    assert run("sweep", path, *words, "--out", "kept", "--cluster", "4")[0] == 0
    given = {"by": ["hardware", "model", "model"], "top": 3, "profile": "none"}
    assert verb.spec == path and verb.given == given | {"out": "kept", "keep": "all", "cluster": 4, "verify": True}
    assert run("sweep", path, "--cluster", "tcp://scheduler:8786")[0] == 0
    assert verb.given == {"cluster": "tcp://scheduler:8786"}


def test_tables_say_what_is_best_and_why_others_fail(run: Run, path: str, verb: SimpleNamespace) -> None:
    code, out, err = run("sweep", path)
    assert code == 0 and err == "note: prices: made up\n"
    assert "63 configurations of 9 deployments in 500 ms, 126/s; compiled before that in 3.00 s" in out
    for title in ("Best $/Mtok of each model and concurrent users", "Top 5 by $/Mtok", "Pareto front of $/Mtok and"):
        assert title in out
    missed = next(line for line in out.splitlines() if line.startswith("TPOT above 100 ms"))
    assert missed.split() == ["TPOT", "above", "100", "ms", "█" * 8, "33.3%", "21", "21"]
    assert "the weights do not fit" in out and max(map(len, out.splitlines())) <= 100


def test_tables_that_were_asked_for_follow(run: Run, path: str, verb: SimpleNamespace) -> None:
    row = {"along": "concurrency", "between": "model", "objective": "usd_per_mtok", "event": "order changes",
           "at": 12345.67, "low": 4.0, "high": 131072.0, "before": "moe-a", "after": "dense-b"}  # fmt: skip
    found = table([row])
    slopes = [{"index": 7, "model": "moe-a", "hardware": "h100-sxm", "parameter": name,
               "output_tokens_per_s_elasticity": 0.8, "usd_per_mtok_elasticity": -0.8,
               "tpot_s_elasticity": -0.7, "ttft_s_elasticity": None}
              for name in ("bandwidth", "price")]  # fmt: skip
    verb.answer = sweep_answer(crossovers=found, sensitivities=table(slopes))
    out = run("sweep", path)[1]
    told = out.partition("$/Mtok by model along concurrent users\n")[2].splitlines()
    assert told[1].split() == ["4", "131,072", "12,345.7", "dense-b", "takes", "the", "lead", "from", "moe-a"]
    told = out.partition("Sensitivities: percent more tok/s for one percent more\n")[2].splitlines()
    assert told[0] == "all: model moe-a, hardware h100-sxm"
    assert (told[1].split(), told[2].split()) == (["bandwidth", "price"], ["+0.80", "+0.80"])
    drawn = {line.split()[3]: told[i + 3].split() for i, line in enumerate(told) if "percent more" in line}
    assert drawn == {"$/Mtok": ["-0.80"] * 2, "TPOT": ["-0.70"] * 2, "TTFT": ["-"] * 2}
    body = json.loads(run("sweep", path, "--format", "json")[1])
    assert body["crossovers"]["rows"] == found.rows()


def test_what_was_simulated_stands_beside_the_closed_form(run: Run, path: str, verb: SimpleNamespace) -> None:
    row = {"model": "moe-a", "hardware": "h100-sxm", "weights": "fp8", "prompt_tokens": 512, "output_tokens": 128,
           "concurrency": 16, "ttft_s": 0.11, "ttft_simulated_s": 0.1, "ttft_off_frac": 0.1,
           "tpot_s": 0.02, "tpot_simulated_s": np.nan, "tpot_off_frac": np.nan}  # fmt: skip
    verb.answer = sweep_answer(verified=table([row, row | {"concurrency": 32}]))
    *_, line, last = run("sweep", path, "--verify")[1].splitlines()
    assert last.split()[0] == "32"
    assert line.split() == ["16", "110", "ms", "100", "ms", "+10.0%", "20.0", "ms", "-", "-"]  # fmt: skip


def test_json_has_every_table_and_csv_every_row(run: Run, path: str, verb: SimpleNamespace) -> None:
    body = json.loads(run("sweep", path, "--format", "json")[1])
    assert (body["configurations"], body["compile_s"]) == (63, 3.0) and list(body["refused"].values()) == [7]
    assert [len(body[name]["rows"]) for name in ("best", "top", "front", "failures")] == [36, 5, 7, 2]
    rows = list(csv.DictReader(io.StringIO(run("sweep", path, "--format", "csv")[1])))
    assert [row["answer"] for row in rows] == ["best"] * 36 + ["top"] * 5 + ["front"] * 7
    assert float(rows[36]["usd_per_mtok"]) == body["top"]["rows"][0]["usd_per_mtok"]


def test_many_rows_are_cut_with_their_number(run: Run, path: str, verb: SimpleNamespace) -> None:
    verb.answer = sweep_answer(sweep_spec(by=("concurrency",), concurrency=tuple(range(1, 81)), limits={}))
    assert "and 40 more: --format csv has all" in run("sweep", path)[1]


def test_nothing_feasible_is_exit_1_and_says_what_kills(run: Run, path: str, verb: SimpleNamespace) -> None:
    verb.answer = sweep_answer(sweep_spec(limits={"tpot_s": 1e-9}))
    code, out, _ = run("sweep", path)
    assert code == 1 and "No configuration keeps to the limits." in out
    assert "TPOT above 1.00 ns" in out and "100%" in out and "Pareto" not in out


def test_what_the_verb_refuses_is_a_sentence(run: Run, path: str, verb: SimpleNamespace) -> None:
    verb.answer = RoofcastError("out: holds another sweep")
    assert run("sweep", path, "--out", "kept") == (2, "", "roofcast: out: holds another sweep\n")


def test_ctrl_c_says_what_is_kept(run: Run, path: str, verb: SimpleNamespace) -> None:
    verb.answer = KeyboardInterrupt("3 of 9 blocks are in kept")
    before = signal.getsignal(signal.SIGINT)
    told = "roofcast: interrupted\nnote: 3 of 9 blocks are in kept\n"
    assert run("sweep", path, "--out", "kept") == (130, "", told)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def broadcasting() -> Iterator[None]:
    """The sweep's kernels rely on broadcasting between ranks: a term has only the axes that it depends on."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("broadcasting")
def test_a_dry_run_says_what_it_will_take_and_stops(run: Run, path: str, verb: SimpleNamespace) -> None:
    code, out, _ = run("sweep", path, "--dry-run")
    assert code == 0 and verb.spec is None
    lines = {line.split("  ")[0]: line.split()[-1] for line in out.splitlines() if "  " in line}
    assert (lines["deployments"], lines["configurations"], lines["blocks"]) == ("4", "12", "1")
    assert "concurrency  3       1, 8, 64" in out and "prompt_tokens" not in out
    assert "4 combinations cannot be built:" in out
    body = json.loads(run("sweep", path, "--dry-run", "--format", "json")[1])
    assert body["axes"] == {"model": 2, "hardware": 2, "engine": 2, "concurrency": 3}
    assert body["configurations"] == 12 and sum(body["refused"].values()) == 4
    assert 1e8 < body["memory_bytes"] < 2e10 and 0 < body["build_s"] < body["seconds"] < 60 and body["compile_s"] >= 0
    (row,) = csv.DictReader(io.StringIO(run("sweep", path, "--dry-run", "--format", "csv")[1]))
    assert row["configurations"] == "12"


@pytest.mark.slow
@pytest.mark.usefixtures("broadcasting")
def test_a_whole_sweep(run: Run, path: str, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    code, out, err = run("sweep", path, "--verify", "--format", "json", "--plot", str(picture))
    body = json.loads(out)
    assert (code, body["configurations"]) == (0, 12) and f"wrote {picture}" in err and picture.stat().st_size > 10_000
    assert len(body["best"]["rows"]) == 2 * 2 * 3 and len(body["top"]["rows"]) == 10
    costs = [row["usd_per_mtok"] for row in body["top"]["rows"]]
    assert costs == sorted(costs)
    front, verified = body["front"]["rows"], body["verified"]["rows"]
    assert {row["model"] for row in verified} <= {row["model"] for row in front}
    assert all(abs(row["tpot_off_frac"]) < 0.3 and row["ttft_simulated_s"] > 0 for row in verified)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--top", "0"], "sweep --top: expected a whole number from 1"),
        (["--top", "100000"], "sweep --top: expected a whole number from 1 to 10000, found 100000"),
        (["--by", "modl"], "sweep --by: no axis is called 'modl'; hint: did you mean model?"),
        (["--by", ","], "sweep --by: expected names separated by commas"),
        (["--keep", "frnt"], "sweep --keep: expected front, feasible, all, got 'frnt'; hint: did you mean front?"),
        (["--cluster", "0"], "sweep --cluster: expected a whole number from 1"),
        (["--cluster", "-2"], "sweep --cluster: expected a whole number from 1"),
        (["--cluster", "scheduler"], "sweep --cluster: expected a number of worker processes, or an address"),
        (["--plot", "x.gif"], "x.gif: expected a .png or .svg file"),
        (["--format", "parquet"], "sweep --format: expected table, json, csv, got 'parquet'"),
        (["--dry"], "sweep: unknown option --dry; hint: did you mean"),
        (["more"], "sweep: unexpected argument 'more'"),
    ],
)
def test_bad_options(run: Run, path: str, verb: SimpleNamespace, words: list[str], problem: str) -> None:
    code, out, err = run("sweep", path, *words)
    assert (code, out, verb.spec) == (2, "", None) and err.count("\n") == 1 and f"roofcast: {problem}" in err


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "name = 3\n[axes]\nmodel = []\nhardware = 'h100000'\n",
            ["name: expected text", "model: expected at least one"],
        ),
        (
            "name = 'x'\n[axes]\nmodel = 'qwen3-8b'\nhardware = 'h100000'\n",
            ['axes.hardware: no machine is called "h1000'],
        ),
        ("name = 'x'\n[axes\n", ["not valid TOML"]),
        (FILE + "[limits]\ntpot = 1\n", ["limits.tpot: unknown key"]),
        (FILE.replace("[1, 8, 64]", "{ from = 1, to = 1, step = 1 }"), ["the range goes nowhere"]),
        ("\0", ["not valid TOML"]),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_bad_files(
    run: Run, tmp_path: Path, verb: SimpleNamespace, text: str, problems: list[str], dry: list[str]
) -> None:
    (tmp_path / "bad.toml").write_text(text)
    code, out, err = run("sweep", str(tmp_path / "bad.toml"), *dry)
    assert (code, out, verb.spec) == (2, "", None) and all(problem in err for problem in problems)
    assert all(line.startswith(f"roofcast: {tmp_path}/bad.toml: ") for line in err.splitlines())


def test_a_file_that_is_not_there(run: Run, path: str) -> None:
    code, _, err = run("sweep", path.replace("a.toml", "b.toml"))
    assert code == 2 == run("sweep")[0] and err.endswith("b.toml: no such file\n")  # a.toml is no slip of it


def test_names_that_no_engine_runs_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("name='x'\n[axes]\nmodel='qwen3-8b'\nhardware='h200'\nengine='mlx'\n")
    code, _, err = run("sweep", str(tmp_path / "a.toml"), "--dry-run")
    assert code == 2 and "no combination of the axes can be run" in err


def test_the_heat_map_holds_the_best_of_each_pair() -> None:
    answer = sweep_answer(sweep_spec(by=("concurrency", "model")))
    found = best_grid(answer.best, answer.plan.spec)
    assert found is not None and (found.x, found.y) == ("concurrency", "model")
    assert (tuple(found.xs), tuple(found.ys)) == (LEVELS, tuple(SIZES))
    assert np.isnan(found.values[:, -1]).all() and np.isfinite(found.values[:, :-1]).all()
    for row in (row for row in answer.best.rows() if row["objective"] == "usd_per_mtok"):
        at = found.ys.index(row["model"]), found.xs.index(row["concurrency"])
        assert found.values[at] == row["usd_per_mtok"]


def test_a_third_axis_of_groups_is_minimized_over() -> None:
    answer = sweep_answer(sweep_spec(by=("model", "hardware", "concurrency")))
    found = best_grid(answer.best, answer.plan.spec)
    assert found is not None and (found.x, found.y, tuple(found.xs)) == ("hardware", "model", tuple(MACHINES))
    least = min(r["usd_per_mtok"] for r in answer.best.rows() if (r["model"], r["hardware"]) == ("moe-a", "rtx-4090"))
    assert found.values[0, 2] == least


@pytest.mark.parametrize("by", [(), ("model",), ("weights", "model")])
def test_no_heat_map_of_one_axis_of_names(by: tuple[str, ...]) -> None:
    assert best_grid(sweep_answer().best, sweep_spec(by=by)) is None


def test_lines_that_lead_come_first_and_turns_are_where_the_lead_changes() -> None:
    nan = np.nan
    lines = np.array([[9.0, 9, 9, 9], [1, 2, 3, nan], [4, 3, 2, nan], [nan, nan, nan, nan], [1.5, 2.5, 3, nan]])
    assert leaders(lines) == [1, 2, 0, 4, 3] and turns(lines) == [2, 3]


def test_ticks_are_short() -> None:
    told = [tick("usd_per_mtok", 0.05), tick("tpot_s", 0.02), tick("concurrency", 1024), tick("power_w", 1500)]
    assert told == ["$0.05", "20 ms", "1,024", "1.5 kW"]


@pytest.mark.parametrize("spec", [
    {}, {"by": ("model", "hardware")}, {"by": ()}, {"by": ("concurrency",), "concurrency": tuple(range(1, 90))},
    {"limits": {"tpot_s": 1e-9}}, {"minimize": ("tpot_s",)}, {"by": ("concurrency", "hardware"), "limits": {}},
])  # fmt: skip
def test_pictures_are_written_and_the_same_each_time(tmp_path: Path, spec: dict[str, Any]) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file in files:
        sweep_plot(sweep_answer(sweep_spec(**spec)), file)
    first, second = (file.read_bytes() for file in files)
    assert first[:4] == b"\x89PNG" and first == second
    with pytest.raises(RoofcastError, match="no folder"):
        sweep_plot(sweep_answer(), tmp_path / "none" / "a.png")
