"""`sim.capacity` and `roofcast capacity`: the search, what it finds beside simulations, output, and bad input."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.config import load_scenario
from sim.errors import RoofcastError
from sim.objectives import Objectives
from sim.serving import trials
from sim.serving.metrics import UNITS
from sim.serving.misses import missed, misses
from sim.serving.search import TOLERANCE_FRAC, Axis
from sim.verbs.capacity import MOST_ROUNDS, Capacity
from tests.test_simulate import DEPLOYMENT, scenario

Run = Callable[..., tuple[int, str, str]]
TRAFFIC = {
    "requests_per_s": [2.0, 30.0], "n_requests": 240, "replications": 3, "seed": 3,
    "prompt": {"mean_tokens": 300.0, "cv": 1.0, "max_tokens": 900}, "output": {"min_tokens": 1, "max_tokens": 120},
}  # fmt: skip
OBJECTIVES = {"ttft_p99_s": "500ms", "tpot_p95_s": "40ms"}
FULL = {**DEPLOYMENT, "label": "full", "usd_per_gpu_hour": 1.0}
FEW = {**FULL, "label": "few", "kv_blocks": 100}


def searched(axis: Axis, holds: Callable[[float], bool]) -> tuple[dict[float, bool], int]:
    """All that a search tries, and in how many rounds."""
    tried: dict[float, bool] = {}
    for n in range(MOST_ROUNDS):
        wanted = axis.next_values(tried)
        if not wanted:
            return tried, n
        tried |= {value: holds(value) for value in wanted}
    raise AssertionError("the search does not end")


@given(st.floats(1e-3, 1e3), st.floats(-7, 12), st.booleans())
def test_a_search_ends_at_the_edge(start: float, octaves: float, rising: bool) -> None:
    edge = start * 2.0 ** (octaves if rising else -octaves)
    axis = Axis(start, min(start, edge) / 2**13, max(start, edge) * 2**13, rising=rising)
    tried, rounds = searched(axis, lambda value: (value <= edge) == rising)
    yes, no = axis.ends(tried)
    assert yes is not None and no is not None and rounds <= 8
    assert min(yes, no) <= edge <= max(yes, no) <= min(yes, no) * (1 + TOLERANCE_FRAC) * (1 + 1e-9)


@given(st.integers(1, 5000), st.integers(1, 5000), st.booleans())
def test_counts_are_found_exactly_while_they_are_few(start: int, edge: int, rising: bool) -> None:
    axis = Axis(start, 1, 100_000, whole=True, rising=rising)
    tried, _ = searched(axis, (lambda n: n <= edge) if rising else (lambda n: n >= edge))
    yes, no = axis.ends(tried)
    assert all(value == int(value) >= 1 for value in tried) and yes is not None
    assert abs(yes - edge) <= edge * TOLERANCE_FRAC
    if edge < 50:
        assert yes == edge and no == (edge + 1 if rising else edge - 1 or None)


def test_a_search_without_an_edge_ends_at_the_ends_of_the_axis() -> None:
    axis = Axis(10.0, 0.01, 1e6)
    tried, _ = searched(axis, lambda value: True)
    assert axis.ends(tried) == (1e6, None)
    tried, _ = searched(axis, lambda value: False)
    assert axis.ends(tried) == (None, 0.01)


def test_the_safer_edge_is_taken_where_there_are_two() -> None:
    assert Axis(1, 1, 9).ends({1: True, 2: True, 3: False, 4: True}) == (2, 3)
    assert Axis(1, 1, 9, rising=False).ends({1: True, 2: False, 3: True, 4: True}) == (3, 2)


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Runs are not lengthened far, which takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "ENOUGH_REQUESTS", 2000)
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capacity") / "x.toml"
    return scenario(path, TRAFFIC, FULL, FEW, objectives=OBJECTIVES)


@pytest.fixture(scope="module")
def answer(file: Path) -> Capacity:
    return sim.capacity(file)


def at(path: Path, load: Any, key: str = "requests_per_s", **changes: Any) -> dict[str, dict[str, Any]]:
    """The row of a simulation at one load, of each deployment."""
    found = load_scenario(path)
    assert found.traffic is not None
    traffic = found.traffic.model_copy(update={key: (load,), **changes})
    results = sim.simulate(found.model_copy(update={"traffic": traffic})).results
    return {label: result.rows()[0] for label, result in results.items()}


def test_what_is_found_is_what_simulations_say(file: Path, answer: Capacity) -> None:
    for row in answer.summary.rows():
        tried = {r["load"]: r for r in answer.results[row["label"]].rows()}
        loads = (row["max_load"], row["next"])
        best, beyond = (at(file, x, n_requests=int(tried[x]["n_requests"]))[row["label"]] for x in loads)
        assert best["keeps"] and not beyond["keeps"]
        assert row["max_load"] < row["next"] <= row["max_load"] * (1 + TOLERANCE_FRAC)
        assert row["ttft_p99_s"] == best["ttft_p99_s"] and row["usd_per_mtok"] == best["usd_per_mtok"]
        assert row["limited_by"] in ("TTFT p99", "TPOT p95", "stability") and row["over_frac"] > 0
        said = f"{'at most ' * row['at_most']}{row['max_load']:g} requests/s; with {row['next']:g} requests/s: "
        assert row["verdict"].startswith(said)
        assert missed(beyond) in row["verdict"]
    full, few = answer.summary["max_load"]
    assert full > few > 0


def test_the_same_seed_finds_the_same_and_the_limits_order_it(file: Path, answer: Capacity, tmp_path: Path) -> None:
    again = sim.capacity(load_scenario(file))
    assert again.summary.to_json() == answer.summary.to_json()
    stricter = scenario(tmp_path / "a.toml", TRAFFIC, FULL, FEW, objectives={**OBJECTIVES, "tpot_p95_s": "20ms"})
    assert (sim.capacity(stricter).summary["max_load"] <= answer.summary["max_load"]).all()


def test_replications_are_said_to_disagree_where_they_do(answer: Capacity, file: Path) -> None:
    for row in answer.summary.rows():
        low, high = row["disagree_from"], row["disagree_to"]
        if low is not None:
            assert "replications disagree" in row["verdict"]
            for load in (low, high):
                found = load_scenario(file)
                assert found.traffic is not None
                n = next(r["n_requests"] for r in answer.results[row["label"]].rows() if r["load"] == load)
                traffic = found.traffic.model_copy(update={"requests_per_s": (load,), "n_requests": int(n)})
                runs = sim.simulate(found.model_copy(update={"traffic": traffic})).runs[row["label"], load]
                kept = [np.percentile(run.ttft_s, 99) <= 0.5 for run in runs]
                kept = [ok and np.nanpercentile(run.tpot_s, 95) <= 0.04 for ok, run in zip(kept, runs, strict=True)]
                assert not all(kept) or row["limited_by"] == "stability"
    assert any(row["disagree_from"] is not None for row in answer.summary.rows())


def test_fewest_replicas_and_not_one_fewer(file: Path) -> None:
    found = sim.capacity(file, fewest=True)
    assert "max_load" not in found.summary
    for row in found.summary.rows():
        n, tried = row["replicas"], {r["load"]: r for r in found.results[row["label"]].rows()}
        assert row["n_devices"] == n >= 1 and tried[n]["keeps"]
        assert n == 1 or not tried[n - 1]["keeps"]
        assert row["usd_per_hour"] == pytest.approx(n)
    full, few = found.summary["replicas"]
    assert few > full


def test_closed_loops_find_users(tmp_path: Path) -> None:
    traffic = {**TRAFFIC, "users": [2], "think_s": 2.0, "n_requests": 60}
    del traffic["requests_per_s"]
    path = scenario(tmp_path / "a.toml", traffic, FULL, objectives={"tpot_p95_s": "20ms"})
    found = sim.capacity(path)
    (row,) = found.summary.rows()
    assert row["max_load"] == int(row["max_load"]) and found.summary.units["max_load"] == "users"
    tried = found.results["full"]
    assert (tried["n_requests"] >= np.maximum(60, 20 * tried["load"])).all()
    n = tried["n_requests"][tried["load"] == row["max_load"]][0]
    same = at(path, int(row["max_load"]), "users", n_requests=int(n))["full"]
    assert same["keeps"] and same["tpot_p95_s"] == row["tpot_p95_s"]


def test_traces_are_replayed_faster(tmp_path: Path) -> None:
    lines = [f"{0.5 * i},{200 + i % 50},{20 + i % 30}" for i in range(200)]
    (tmp_path / "t.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *lines]))
    path = scenario(tmp_path / "a.toml", {"path": "t.csv"}, FULL, objectives=OBJECTIVES)
    (row,) = sim.capacity(path).summary.rows()
    assert row["max_load"] > 2 and " times the recorded rate; with " in row["verdict"]


def test_nothing_keeps_and_everything_does(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    large = {**DEPLOYMENT, "model": "llama-3.3-70b", "label": "large"}
    path = scenario(tmp_path / "a.toml", TRAFFIC, FULL, large, objectives={"ttft_p50_s": "1ms"})
    none, unfit = sim.capacity(path, replications=1).summary.rows()
    assert none["max_load"] == 0 and none["verdict"].startswith("none: even with 0.0")
    assert none["verdict"].endswith(" is above 1.00 ms") and none["limited_by"] == "TTFT p50"
    assert not unfit["fits"] and "the weights do not fit" in unfit["verdict"] and unfit["n_devices"] == 0
    plot = tmp_path / "a.png"
    code, out, _ = run("capacity", str(path), "--fewest", "--plot", str(plot))
    assert code == 1 and "none: even with 1024 replicas: " in out and plot.stat().st_size > 10_000
    few = {**TRAFFIC, "n_requests": 20}  # too few to tell whether a queue grows
    monkeypatch.setattr(trials, "ENOUGH_REQUESTS", 20)
    easy = scenario(tmp_path / "b.toml", few, FULL, objectives={"ttft_s": "1000s"})
    (row,) = sim.capacity(easy).summary.rows()
    assert row["verdict"].startswith("at least 1e+06 requests/s, the highest load that was tried; too short: ")
    limits = {**OBJECTIVES, "max_usd_per_hour": 1.5}
    dear = scenario(tmp_path / "c.toml", TRAFFIC, FEW, objectives=limits)
    (row,) = sim.capacity(dear, fewest=True).summary.rows()
    assert (row["replicas"], row["n_devices"], row["limited_by"]) == (0, 0, "$/h") and row["over_frac"] > 0
    assert row["verdict"].startswith("none: it takes ") and row["verdict"].endswith("/h is above $1.50/h")
    assert row["usd_per_mtok"] is None and row["ttft_p99_s"] is None  # of no replicas there are no figures
    code, out, _ = run("capacity", str(dear), "--fewest")
    assert code == 1 and "none" in out


def test_a_price_that_no_load_lowers_is_told_by_one(tmp_path: Path) -> None:
    path = scenario(tmp_path / "a.toml", TRAFFIC, FULL, objectives={**OBJECTIVES, "max_usd_per_hour": 0.5})
    found = sim.capacity(path)
    (row,) = found.summary.rows()
    assert row["limited_by"] == "$/h" and row["verdict"].endswith(": $1.00/h is above $0.500/h")
    assert row["max_load"] == 0 and found.results["full"]["load"].tolist() == [2.0]


def test_by_what_part_objectives_are_missed() -> None:
    row: dict[str, Any] = dict.fromkeys(UNITS, 1.0)
    row |= {"ttft_p99_s": 1.5, "goodput_frac": 0.6, "queue_growth_requests_per_s": 0.25, "complete": True}
    row["refused_frac"] = 0.05  # a p99 says nothing of one in a hundred
    limits = Objectives(ttft_p99_s=1.0, tpot_s=2.0, goodput_frac=0.8, max_usd_per_hour=4.0)
    parts = {miss.name: miss.part for miss in misses(row, limits)}
    expected = {"stability": 0.25, "TTFT p99": 0.5, "goodput": 0.25, "refused requests": 4.0}
    assert parts == pytest.approx(expected)
    (dear,) = misses(row | {"usd_per_hour": 4.35}, Objectives(max_usd_per_hour=4.0))[1:]
    assert (dear.name, dear.sentence) == ("$/h", "$4.35/h is above $4.00/h")
    (last,) = misses(row | {"complete": False, "n_finished": 0.0}, limits)[1:]
    assert (last.name, last.part) == ("requests that are not served", np.inf)


def test_command_prints_and_draws(run: Run, file: Path, tmp_path: Path, answer: Capacity) -> None:
    plot = tmp_path / "p.svg"
    code, out, err = run("capacity", str(file), "--plot", str(plot))
    assert code == 0 and "full: what was tried" in out and err.endswith(f"note: wrote {plot}\n")
    assert all(f"{value:g}" in out for value in answer.summary["max_load"]) and plot.stat().st_size > 10_000
    rows = list(csv.DictReader(io.StringIO(run("capacity", str(file), "--format", "csv")[1])))
    assert [float(row["max_load"]) for row in rows] == answer.summary["max_load"].tolist()
    body = json.loads(run("capacity", str(file), "--format", "json")[1])
    assert body["summary"]["rows"] == json.loads(answer.summary.to_json())["rows"]
    assert body["tried"]["few"]["units"]["load"] == "requests/s"


BAD = [
    ({"objectives": {}}, [], 'x.toml: objectives: there is no latency to keep to; hint: write ttft_p99_s = "1s"'),
    ({"objectives": {"max_usd_per_hour": 3.0}}, [], "objectives: there is no latency to keep to"),
    ({"objectives": {"ttft_p98_s": 1}}, [], "objectives.ttft_p98_s: unknown key"),
    ({"traffic": {"path": "none.csv"}}, [], "none.csv"),
    ({}, ["--plot", "a.gif"], "a.gif: expected a .png or .svg file"),
    ({}, ["--replications", "0"], "capacity --replications: expected a whole number from 1"),
    ({}, ["--fewer"], "--fewer"),
]


@pytest.mark.parametrize(("change", "options", "says"), BAD, ids=[says for _, _, says in BAD])
def test_bad_input_is_a_sentence(
    run: Run, tmp_path: Path, change: dict[str, Any], options: list[str], says: str
) -> None:
    tables = {"traffic": TRAFFIC, "objectives": OBJECTIVES, **change}
    path = scenario(tmp_path / "x.toml", tables.pop("traffic"), FULL, **tables)
    code, out, err = run("capacity", str(path), *options)
    assert (code, out) == (2, "") and says in err and len(err.splitlines()) == 1 and err.startswith("roofcast: ")


def test_without_traffic_there_is_no_load() -> None:
    path = Path(__file__).parents[1] / "scenarios" / "small-team-rag.toml"
    with pytest.raises(RoofcastError, match=r"small-team-rag\.toml: traffic: there is no traffic to simulate; hint: "):
        sim.capacity(path)
    with pytest.raises(RoofcastError, match="progress: expected a function"):
        sim.capacity(path, progress=3)  # type: ignore[arg-type]
