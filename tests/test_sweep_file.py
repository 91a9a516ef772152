"""A sweep's file: ranges and slices count out to the right values, and whatever is wrong is said with its place."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import catalog
from sim.engines import engines
from sim.errors import RoofcastError
from sim.params import is_moe
from sim.sweeps.file import answering, load_sweep
from sim.sweeps.plan import plan
from sim.sweeps.spec import AXES, Spec
from tests.test_config import document

ROOT = Path(__file__).resolve().parents[1]
VALID: dict[str, Any] = {
    "name": "A test",
    "axes": {
        "model": ["llama-3.3-70b", "Qwen3 8B"],
        "hardware": ["8x-h100", "all:amd"],
        "weights": ["native", "fp8"],
        "kv": [16, "fp8"],
        "tp": [4, 8],
        "prompt_tokens": 1000,
        "concurrency": {"from": 1, "to": 64, "n": 4, "scale": "log"},
        "usd_factor": {"from": 0.5, "to": 1.0, "step": 0.25},
    },
    "limits": {"tpot_s": "50ms", "user_tokens_per_s": 20, "n_devices": 8},
    "answers": {"minimize": ["usd_per_mtok", "ttft_s"], "by": "model", "top": 3,
                "crossover": [{"along": "concurrency", "between": "model"}]},
}  # fmt: skip


def changed(*places: tuple[str, Any]) -> dict[str, Any]:
    """VALID with values at places such as "axes.model"; None removes the key."""
    raw = copy.deepcopy(VALID)
    for place, value in places:
        *tables, key = place.split(".")
        table = raw
        for name in tables:
            table = table[name]
        table.pop(key, None) if value is None else table.__setitem__(key, value)
    return raw


def axis(name: str, value: Any) -> tuple[Any, ...]:
    """Values of one axis."""
    return load_sweep(changed((f"axes.{name}", value))).axes[name]


def problems(raw: Any) -> tuple[str, ...]:
    """What is said against it."""
    with pytest.raises(RoofcastError) as caught:
        load_sweep(raw)
    assert all("\n" not in problem and len(problem) < 1000 for problem in caught.value.problems)
    return caught.value.problems


def test_a_file_becomes_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(document(VALID))
    spec = load_sweep(path)
    assert spec == load_sweep(VALID)
    assert spec.model == ("llama-3.3-70b", "qwen3-8b")
    assert spec.hardware[0] == "8x-h100" and set(spec.hardware[1:]) >= {"mi300x", "strix-halo-395"}
    assert (spec.weights, spec.kv, spec.tp) == (("native", "fp8"), ("16", "8"), (4, 8))
    assert (spec.prompt_tokens, spec.concurrency, spec.usd_factor) == ((1000,), (1, 4, 16, 64), (0.5, 0.75, 1.0))
    assert spec.limits == {"tpot_s": 0.05, "user_tokens_per_s": 20.0, "n_devices": 8}
    assert (spec.minimize, spec.by, spec.top) == (("usd_per_mtok", "ttft_s"), ("model",), 3)
    assert spec.crossover == (("concurrency", "model", "usd_per_mtok"),)
    assert json.loads(json.dumps(spec.axes)) == {name: list(values) for name, values in spec.axes.items()}


def test_what_is_left_out_is_as_in_the_spec() -> None:
    given = {"name": "x", "axes": {"model": "qwen3-8b", "hardware": "h200"}}
    assert load_sweep(given) == Spec("x", ("qwen3-8b",), ("h200",))


def test_a_profile_is_found_from_the_files_folder(tmp_path: Path) -> None:
    for name, expected in (("own.toml", str(tmp_path / "own.toml")), ("none", "none"), (None, None)):
        (tmp_path / "a.toml").write_text(document(changed(("profile", name))))
        assert load_sweep(tmp_path / "a.toml").profile == expected


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"from": 1, "to": 8, "step": 3}, (1, 4, 7)),
        ({"from": 1, "to": 7, "step": 3}, (1, 4, 7)),
        ({"from": 1, "to": 5, "n": 3}, (1, 3, 5)),
        ({"from": 1, "to": 3, "n": 50}, (1, 2, 3)),
        ({"from": 1, "to": 1000, "n": 4, "scale": "log"}, (1, 10, 100, 1000)),
        ([8, 1, 8], (8, 1)),
        (range(1, 4), (1, 2, 3)),
        (np.array([2, 4]), (2, 4)),
    ],
)
def test_ranges_of_counts(given: Any, values: tuple[int, ...]) -> None:
    found = axis("concurrency", given)
    assert found == values and all(type(value) is int for value in found)


@given(st.integers(1, 10**4), st.integers(1, 10**5), st.integers(2, 400), st.sampled_from(["linear", "log"]))
def test_a_range_begins_and_ends_as_it_says_and_increases(first: int, more: int, n: int, scale: str) -> None:
    found = axis("concurrency", {"from": first, "to": first + more, "n": n, "scale": scale})
    assert (found[0], found[-1]) == (first, first + more) and len(found) <= n
    assert all(low < high for low, high in pairwise(found))
    prices = axis("usd_factor", {"from": first / 7, "to": (first + more) / 7, "n": n, "scale": scale})
    assert (prices[0], prices[-1], len(prices)) == (first / 7, (first + more) / 7, n)


def test_a_step_that_rounds_still_reaches_the_end() -> None:
    assert axis("usd_factor", {"from": 0.1, "to": 0.7, "step": 0.1})[-1] == pytest.approx(0.7)


def test_slices_are_those_of_the_catalogue() -> None:
    rows = [row for row in catalog.models().values() if row.status == "exists"]
    assert set(axis("model", "all")) == {row.id for row in rows}
    assert set(axis("model", "all:moe")) | set(axis("model", "all:dense")) == {row.id for row in rows}
    assert all(is_moe(catalog.model(name)) for name in axis("model", "all:moe"))
    assert set(axis("model", ["current", "current"])) == {row.id for row in rows if row.current}
    for word, kept in (("all:apple", lambda d: d.vendor == "Apple"), ("all:consumer", lambda d: d.family == "consumer"),
                       ("all:Datacenter", lambda d: d.family == "datacenter")):  # fmt: skip
        devices = {catalog.machine(name).device.id for name in axis("hardware", word)}
        assert devices == {d.id for d in catalog.devices().values() if d.status == "exists" and kept(d)}
    assert {"m3-ultra-96gb", "m3-ultra-512gb"} <= set(axis("hardware", "all"))
    assert axis("engine", "all") == tuple(engines()) and axis("kv", "all") == ("16", "8", "4")
    formats = axis("weights", "all")
    assert formats[0] == "native" and "q4_k_m" in formats and "ggml_q4_k" not in formats


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("axes", None, "axes: required key is missing; hint: write [axes]"),
        ("axes", 3, "axes: expected a table, got 3"),
        ("axes.model", None, "axes.model: required key is missing"),
        ("axes.model", [], "axes.model: expected at least one entry"),
        ("axes.model", 8, "axes.model: expected text in quotes, got 8"),
        ("axes.model", "lama-3.3-70b", 'axes.model: no model is called "lama-3.3-70b"; hint: did you mean'),
        ("axes.model", "all:mo", 'axes.model: no slice of model is called "all:mo"; hint: did you mean all:moe'),
        ("axes.hardware", "all:nvidea", "hint: did you mean all:nvidia"),
        ("axes.hardware", "current", 'no slice of hardware is called "current"'),
        ("axes.hardware", {"from": 1, "to": 2, "n": 2}, "axes.hardware: expected a list, got a table"),
        ("axes.engine", "vlm", "axes.engine: no engine is called"),
        ("axes.weights", "fp9", "axes.weights: no weight format is called"),
        ("axes.kv", 7, "axes.kv: no KV format is called '7'; hint: take 16, 8 or 4"),
        ("axes.concurency", 8, "axes.concurency: unknown key; hint: did you mean concurrency?"),
        ("axes.concurrency", [], "axes.concurrency: expected at least one entry"),
        ("axes.concurrency", [1, 1.5], "axes.concurrency[2]: expected a whole number, got 1.5"),
        ("axes.concurrency", True, "axes.concurrency: expected a whole number, got true"),
        ("axes.concurrency", 0, "axes.concurrency: expected more than 0, got 0"),
        ("axes.concurrency", {"from": 4, "to": 4, "n": 2}, "concurrency.to: the range goes nowhere: 4 is not above"),
        ("axes.concurrency", {"from": 4, "to": 1, "step": 1}, "axes.concurrency.to: the range goes nowhere: 1 is not"),
        ("axes.concurrency", {"from": 1, "to": 8}, "axes.concurrency.step: required key is missing (or n"),
        ("axes.concurrency", {"from": 1, "to": 8, "step": 1, "n": 3}, "axes.concurrency.n: give either step or n"),
        ("axes.concurrency", {"from": 1, "to": 8, "step": 0}, "axes.concurrency.step: expected more than 0"),
        ("axes.concurrency", {"from": 1, "to": 8, "n": 1}, "axes.concurrency.n: expected at least 2"),
        ("axes.concurrency", {"from": 0, "to": 8, "n": 3, "scale": "log"}, "concurrency.from: expected more than 0"),
        ("axes.concurrency", {"from": 1, "to": 8, "step": 2, "scale": "log"}, "concurrency.step: does not go with"),
        ("axes.concurrency", {"from": 1, "to": 8, "n": 3, "scale": "lag"}, "axes.concurrency.scale: "),
        ("axes.concurrency", {"form": 1, "to": 8, "n": 3}, "concurrency.form: unknown key; hint: did you mean from?"),
        ("axes.concurrency", {"from": 1, "to": 4, "step": 0.5}, "axes.concurrency: the range gives 1.5"),
        ("axes.concurrency", {"from": 1, "to": 1e9, "step": 1}, "axes.concurrency.step: the range explodes"),
        ("axes.concurrency", {"from": 1e-300, "to": 1e300, "step": 1e-300}, "concurrency.step: the range explodes"),
        ("axes.usd_factor", {"from": float("nan"), "to": 8, "n": 3}, "axes.usd_factor.from: expected a finite number"),
        ("axes.usd_factor", -1, "axes.usd_factor: expected at least 1e-06"),
        ("axes.usd_per_gpu_hour", 2, "axes.usd_factor: multiplies the catalogue's rate: give either"),
        ("axes.gpu_memory_utilization", 90, "axes.gpu_memory_utilization: expected at most 1, got 90"),
        ("axes.context_tokens", [512, 4096], "axes.context_tokens: 512 is below the longest prompt_tokens +"),
        ("limits.tpot", 1, "limits.tpot: unknown key; hint: did you mean tpot_s?"),
        ("limits.tpot_s", "50", "limits.tpot_s: expected seconds"),
        ("limits.tpot_s", 0, "limits.tpot_s: expected at least 1e-09"),
        ("limits.n_devices", 3, "limits.n_devices: at most 3 contradicts the axes: no deployment has fewer than 4"),
        ("answers.minimize", "usd_mtok", "answers.minimize: nothing to minimize is called 'usd_mtok'; hint: did you"),
        ("answers.minimize", [], "answers.minimize: expected at least one entry"),
        ("answers.by", ["modl"], "answers.by: no axis is called 'modl'; hint: did you mean model?"),
        ("answers.top", 0, "answers.top: expected more than 0"),
        ("answers.top", 10**6, "answers.top: expected at most 10000"),
        ("answers.crossover", [{"along": "users", "between": "model"}], "crossover[1].along: no axis is called"),
        ("answers.crossover", [{"along": "tp", "between": "tp"}], "answers.crossover[1].between: is the same axis"),
        ("answers.crossover", [{"along": "tp", "between": "model"}], "crossover[1].along: nothing crosses along tp"),
        ("answers.crossover", [{"along": "concurrency", "between": "pp"}], "between: the axis pp has one value"),
        ("answers.crossover", [{"along": "tp"}], "answers.crossover[1].between: required key is missing"),
        ("name", None, "name: required key is missing"),
        ("pay", "lease", 'pay: expected "rent" or "buy", got "lease"'),
        ("pay", "bye", 'pay: expected "rent" or "buy", got "bye"; hint: did you mean buy?'),
        ("axis", {}, "axis: unknown key; hint: did you mean axes?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(place: str, value: Any, problem: str) -> None:
    told = problems(changed((place, value)))
    assert any(text.startswith("sweep: ") and problem in text for text in told), told


def test_axes_that_explode_are_named() -> None:
    long = {"from": 1, "to": 90_000, "step": 1}
    raw = changed(("axes.concurrency", long), ("axes.prompt_tokens", long), ("axes.output_tokens", long))
    (text,) = problems(raw)
    assert text.startswith("sweep: axes: ") and "configurations explode the sweep, of at most 1e+13" in text
    assert "concurrency 90,000" in text and "hint: give prompt_tokens fewer values" in text
    raw = changed(("axes.concurrency", long), ("axes.prompt_tokens", {**long, "to": 100}), ("answers.by", AXES))
    assert any("answers.by: " in text and "groups explode" in text for text in problems(raw))


@pytest.mark.parametrize(
    ("names", "more", "kept"),
    [
        (["h100", "h100-sxm", "H100 SXM 80GB"], {}, 1),
        (["8x-h100", "8x h100-sxm", "DGX H100"], {}, 1),
        (["h100", "8x-h100"], {}, 2),
        (["h100", "8x-h100"], {"gpus": [1, 2]}, 1),
        (["m3-ultra-96gb", "m3-ultra-256gb"], {"gpus": [1]}, 2),
    ],
)
def test_a_machine_counts_once_by_however_many_names(names: list[str], more: dict[str, Any], kept: int) -> None:
    axes = {"model": "gpt-oss-20b", "hardware": names, **more}
    assert load_sweep({"name": "x", "axes": axes}).hardware == tuple(names[:kept])


def test_a_caller_answers_otherwise_than_the_file() -> None:
    spec = load_sweep(VALID)
    assert answering(spec) == spec
    own = answering(spec, by=["hardware", "model", "model"], top=3, profile="none")
    assert (own.by, own.top, own.profile) == (("hardware", "model"), 3, "none")
    assert answering(spec, by="weights").by == ("weights",) and answering(spec, by=()).by == ()
    with pytest.raises(RoofcastError) as caught:
        answering(spec, by=["modl", 3], top=True)
    assert caught.value.problems == (
        "by: no axis is called 'modl'; hint: did you mean model?",
        f"by: no axis is called '3'; hint: axes are {', '.join(AXES)}",
        "top: expected a whole number from 1 to 10000, found True",
    )


def test_groups_that_a_caller_asks_for_may_explode_as_well() -> None:
    many = {"from": 1, "to": 90_000, "step": 1}
    spec = load_sweep(changed(("axes.concurrency", many), ("axes.prompt_tokens", {**many, "to": 100})))
    with pytest.raises(RoofcastError, match=r"^sweep --by: 9e.06 groups explode the sweep.*give concurrency fewer"):
        answering(spec, by=("concurrency", "prompt_tokens"), dash="sweep --")


def test_a_budget_below_the_cheapest_deployment_contradicts_the_axes() -> None:
    given = [("axes.usd_factor", None), ("axes.usd_per_gpu_hour", [2.5, 3.0]), ("limits.usd_per_hour", 9.0)]
    (text,) = problems(changed(*given))
    assert "limits.usd_per_hour: at most 9 contradicts the axes: the cheapest deployment costs 10" in text
    assert load_sweep(changed(*given[:2], ("limits.usd_per_hour", 10.0))).limits["usd_per_hour"] == 10.0


def test_all_problems_of_a_file_are_said_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "x"\n[axes]\nmodel = []\nhardware = "h200"\ntp = { from = 8, to = 1, step = 1 }\n'
                    'sise = 3\n[limits]\ntpot = 1\n')  # fmt: skip
    told = problems(path)
    assert [f"(line {n})" in text for n, text in zip((5, 3, 6, 8), told, strict=True)] == [True] * 4


def test_names_are_checked_beside_what_is_of_the_wrong_kind() -> None:
    raw = changed(
        ("axes.model", ["qwen3-8b", "lama-3.3-70b"]), ("axes.tp", [4, 1.5]), ("axes.prompt_tokens", "many"),
        ("axes.context_tokens", 600), ("axes.usd_per_gpu_hour", 2.0), ("axis", {}), ("limits.n_devices", 3),
        ("answers.by", ["tp", "modl"]), ("answers.top", 0),
        ("answers.crossover", [{"along": "prompt_tokens", "between": "tp"}, {"along": "users", "between": "model"},
                               {"along": "concurrency", "between": "pp"}]),
    )  # fmt: skip
    said = (
        "axes.tp[2]: expected a whole number, got 1.5", "axes.prompt_tokens: expected a whole number",
        "answers.top: expected more than 0", "axis: unknown key", "axes.usd_factor: multiplies the catalogue's rate",
        'axes.model: no model is called "lama-3.3-70b"', "answers.by: no axis is called 'modl'",
        "crossover[2].along: no axis is called 'users'", "crossover[3].between: the axis pp has one value",
    )  # fmt: skip
    told = problems(raw)
    assert [len([text for text in told if what in text]) for what in said] == [1] * len(said), told
    assert len(told) == len(said), told  # nothing is said of what only lacks what was wrong


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios" / "sweeps").glob("*.toml")), ids=lambda path: path.stem)
def test_ready_made_sweeps_are_valid(path: Path) -> None:
    spec = load_sweep(path)
    assert plan(spec).n_cells > 10


def test_a_scenario_is_told_from_a_sweep() -> None:
    (only,) = problems(next((ROOT / "scenarios").glob("*.toml")))
    assert "deployment: this is of a scenario (line" in only and "hint: take roofcast run, or" in only


@pytest.mark.parametrize("source", [3, None, "", "/no/such.toml", "/dev"])
def test_what_is_no_file_is_refused(source: Any) -> None:
    assert problems(source)
