"""Scenario files: what is read, and that whatever is wrong is refused in sentences that say where."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.config import Scenario, load_scenario
from sim.errors import RoofcastError

VALID: dict[str, Any] = {
    "name": "A test",
    "description": "Two ways to serve one model.",
    "workload": {"prompt_tokens": 1000, "output_tokens": 200, "context_tokens": 4096, "concurrency": [1, 8, 32]},
    "objectives": {"ttft_s": "500ms", "tpot_s": 0.05, "max_usd_per_hour": 10},
    "defaults": {"model": "llama-3.3-70b", "engine": "vllm", "weights": "fp8"},
    "deployment": [
        {"label": "Two", "hardware": "2x-h200", "gpus": 2, "tp": 2, "pp": 1, "dp": 1, "replicas": 1},
        {"label": "One", "hardware": "h200", "kv": "8", "gpu_memory_utilization": 0.9, "usd_per_gpu_hour": 3.5},
    ],
    "recommend": {"hardware": ["h200"], "models": ["llama-3.3-70b"], "top": 3},
}


def toml(value: Any) -> str:
    """A value in TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return value.isoformat() if isinstance(value, datetime.date) else json.dumps(value, ensure_ascii=False)


def document(raw: dict[str, Any]) -> str:
    """A TOML file as people write it: scalars first, then a header for each table."""
    lines = [f"{json.dumps(key)} = {toml(value)}" for key, value in raw.items() if not _is_tables(value)]
    for key, value in raw.items():
        tables = value if isinstance(value, list) else [value]
        for table in tables if _is_tables(value) else []:
            lines.append(f"[[{key}]]" if isinstance(value, list) else f"[{key}]")
            lines += [f"{json.dumps(name)} = {toml(item)}" for name, item in table.items()]
    return "\n".join(lines) + "\n"


def _is_tables(value: Any) -> bool:
    entries = value if isinstance(value, list) and value else [value]
    return all(isinstance(entry, dict) for entry in entries)


def changed(place: tuple[str | int, ...], value: Any = None) -> dict[str, Any]:
    """The valid scenario with one value set, or removed where it is None."""
    raw = copy.deepcopy(VALID)
    table: Any = raw
    for part in place[:-1]:
        table = table.setdefault(part, {}) if isinstance(table, dict) else table[part]
    if value is None:
        del table[place[-1]]
    else:
        table[place[-1]] = value
    return raw


@pytest.fixture
def load(tmp_path: Path):
    def _load(raw: dict[str, Any] | str) -> Scenario:
        path = tmp_path / "x.toml"
        path.write_text(raw if isinstance(raw, str) else document(raw), encoding="utf-8")
        return load_scenario(path)

    return _load


def problems_of(load, raw: dict[str, Any] | str) -> tuple[str, ...]:
    with pytest.raises(RoofcastError) as error:
        load(raw)
    assert all("x.toml: " in problem and "\n" not in problem for problem in error.value.problems)
    return tuple(problem.partition("x.toml: ")[2] for problem in error.value.problems)


def test_reads_defaults_units_and_levels(load):
    scenario = load(VALID)
    assert scenario.workload.levels == (1, 8, 32)
    assert (scenario.objectives.ttft_s, scenario.objectives.tpot_s) == (0.5, 0.05)
    assert [d.weights for d in scenario.deployments] == ["fp8", "fp8"]
    assert load(changed(("deployment", 1, "weights"), "bf16")).deployments[1].weights == "bf16"
    assert scenario.deployments[0].ep is None
    assert scenario.recommend is not None and scenario.recommend.hardware == ("h200",)


def test_label_follows_from_model_and_hardware(load):
    assert load(changed(("deployment", 1, "label"))).deployments[1].label == "llama-3.3-70b on h200"


@pytest.mark.parametrize(
    ("users", "levels"), [(1, (1,)), (2, (1, 2)), (20, (1, 2, 4, 8, 16, 20)), (32, (1, 2, 4, 8, 16, 32))]
)
def test_users_are_evaluated_by_doubling(load, users, levels):
    raw = changed(("workload", "concurrency"))
    raw["workload"]["users"] = users
    assert load(raw).workload.levels == levels


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2.0), ("2 s", 2.0), ("200ms", 0.2), ("1.5ms", 0.0015), ("40us", 4e-5), (3, 3.0), ("90s", 90.0),
     ("30m", 1800.0), ("1.5 min", 90.0), ("1h", 3600.0), ("2d", 172_800.0)],
)  # fmt: skip
def test_seconds_in_words(load, text, seconds):
    assert load(changed(("objectives", "ttft_s"), text)).objectives.ttft_s == pytest.approx(seconds)


REFUSED = [
    (("workload", "prompt_token"), 5, "workload.prompt_token: unknown key (line 8); hint: did you mean prompt_tokens"),
    (("workload", "prompt_tokens"), None, "workload.prompt_tokens: required key is missing (line 3)"),
    (("workload", "prompt_tokens"), -1, "workload.prompt_tokens: expected more than 0, got -1"),
    (("workload", "prompt_tokens"), 0, "workload.prompt_tokens: expected more than 0, got 0"),
    (("workload", "prompt_tokens"), 10**30, "workload.prompt_tokens: expected at most"),
    (("workload", "prompt_tokens"), True, "workload.prompt_tokens: expected a whole number, got true"),
    (("workload", "prompt_tokens"), 1.5, "workload.prompt_tokens: expected a whole number, got 1.5"),
    (("workload", "prompt_tokens"), "4k", 'workload.prompt_tokens: expected a whole number, got "4k"'),
    (("workload", "context_tokens"), 1199, "workload.context_tokens: 1199 is below prompt_tokens + output_tokens"),
    (("workload", "users"), 5, "workload.users: give either users or concurrency, not both"),
    (("workload", "concurrency"), None, "workload.concurrency: required key is missing (or users in its place)"),
    (("workload", "concurrency"), [], "workload.concurrency: expected at least one entry"),
    (("workload", "concurrency"), [1, 8, 8], "workload.concurrency: levels must increase"),
    (("workload", "concurrency"), [1, -8], "workload.concurrency[2]: expected more than 0, got -8"),
    (("workload", "concurrency"), {"low": 1}, "workload.concurrency: expected a whole number, got a table"),
    (("workload",), 3, "workload: expected a table, got 3"),
    (("workload",), None, "workload: required key is missing"),
    (("name",), " ", "name: expected one line of text that is not empty"),
    (("name",), None, "name: required key is missing"),
    (("objectives", "ttft_s"), "fast", 'objectives.ttft_s: expected seconds, such as 2, "200ms", "2s" or "1h"'),
    (("objectives", "ttft_s"), float("nan"), "objectives.ttft_s: expected a finite number, got nan"),
    (("objectives", "tpot_s"), float("inf"), "objectives.tpot_s: expected a finite number, got inf"),
    (("objectives", "tpot_s"), 5e-324, "objectives.tpot_s: expected at least 1e-09, got 5e-324"),
    (("deployment", 0, "router"), "randm", 'deployment "Two".router: expected "round-robin", "least-outs'),
    (("objectives", "max_usd_per_hour"), -3, "objectives.max_usd_per_hour: expected at least 1e-06, got -3"),
    (("objective",), {"ttft_s": 1}, "objective: unknown key (line"),
    (("default",), {"tp": 1}, "default: unknown key (line"),
    (("deployment",), None, "deployment: required key is missing"),
    (("deployment",), [], "deployment: expected at least one entry"),
    (("deployment",), {"model": "llama-3.3-70b"}, "deployment: expected a list, got a table"),
    (("deployment", 0), 7, "deployment 1: expected a table, got 7"),
    (("deployment", 0, "tpp"), 2, 'deployment "Two".tpp: unknown key'),
    (("deployment", 0, "hardware"), None, 'deployment "Two".hardware: required key is missing'),
    (("deployment", 0, "gpus"), 3, 'deployment "Two".gpus: 3 must equal tp 2 x pp 1 x dp 1 x replicas 1 = 2'),
    (("deployment", 0, "cpu_moe_frac"), 1.5, 'deployment "Two".cpu_moe_frac: expected at most 1'),
    (("deployment", 0, "label"), "One", 'deployment: more than one is labelled "One"'),
    (("deployment", 0, "label"), "a\nb", "deployment 1.label: expected one line of text that is not empty"),
    (("deployment", 0, "hardware"), "h2000", 'deployment "Two".hardware: no machine is called "h2000"'),
    (("deployment", 0, "kv"), "17", 'deployment "Two".kv: no KV format is called'),
    (("defaults",), "fp8", "defaults: expected a table"),
    (("defaults", "modle"), "llama-3.3-70b", "defaults.modle: unknown key (line"),
    (("defaults", "model"), "llama-3.3-71b", 'defaults.model: no model is called "llama-3.3-71b"'),
    (("defaults", "engine"), "vlm", 'defaults.engine: no engine is called "vlm" (line'),
    (("defaults", "weights"), "fp9", "defaults.weights: no weight format is called"),
    (("recommend", "models"), ["lama"], 'recommend.models: no model is called "lama"'),
    (("recommend", "top"), 0, "recommend.top: expected more than 0, got 0"),
]


@pytest.mark.parametrize(("place", "value", "sentence"), REFUSED, ids=[f"{p[-1]}={v}" for p, v, _ in REFUSED])
def test_refuses_in_one_sentence(load, place, value, sentence):
    assert any(problem.startswith(sentence) for problem in problems_of(load, changed(place, value)))


def test_gpus_left_partly_open_must_be_a_multiple(load):
    raw = changed(("deployment", 0, "replicas"))
    raw["deployment"][0]["gpus"] = 3
    assert problems_of(load, raw)[0].startswith('deployment "Two".gpus: 3 must be a multiple of tp 2 x pp 1 x dp 1 = 2')


def test_all_problems_at_once(load):
    raw = changed(("workload", "prompt_tokens"), -1)
    raw["objectives"]["tpot_s"] = "slow"
    raw["recommend"]["color"] = "red"
    raw["deployment"][0]["gpus"] = 5
    assert len(problems_of(load, raw)) == 4


def test_line_numbers_point_into_the_file(load):
    text = document(changed(("deployment", 1, "tp"), "two"))
    line = next(i for i, line in enumerate(text.splitlines(), start=1) if '"tp" = "two"' in line)
    assert problems_of(load, text) == (f'deployment "One".tp: expected a whole number, got "two" (line {line})',)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "name: required key is missing"),
        (b"name = 'x'\n[axes]\nmodel = 3\n", "axes: this is of a sweep (line 2); hint: take roofcast sweep"),
        (b"name = ", "not valid TOML: Invalid value (at end of document)"),
        (b"[workload]\n[workload]\n", "not valid TOML"),
        (b"x = " + b"[" * 5000, "not valid TOML"),
        (b"x = " + b"9" * 5000, "not valid TOML"),
        (bytes(range(256)), "this is not UTF-8 text"),
        (b"#" * 2_000_000, "at most 1000000 bytes"),
    ],
    ids=["empty", "a sweep", "truncated", "repeated", "deep", "huge number", "binary", "too large"],
)
def test_refuses_what_is_no_scenario(tmp_path, content, says):
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(RoofcastError, match=r"x\.toml: ") as error:
        load_scenario(path)
    assert says in str(error.value)


def test_refuses_what_is_no_file(tmp_path):
    (tmp_path / "rag.toml").write_text("")
    (tmp_path / "load-and-more.toml").touch()  # which only ends alike
    with pytest.raises(RoofcastError, match=r"no such file; hint: did you mean rag\.toml\?$"):
        load_scenario(tmp_path / "rga.toml")
    with pytest.raises(RoofcastError, match="is a directory, expected a TOML file; hint: name a file in it"):
        load_scenario(tmp_path)
    with pytest.raises(RoofcastError, match="is not the name of a file"):
        load_scenario("a\0b")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 5)
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.sampled_from(["llama-3.3-70b", "h100-sxm", "8x-h200", "2s", "fp8", "vllm", "native"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    *((key,) for key in (*VALID, "extra")),
    *(
        (table, key)
        for table in ("workload", "objectives", "defaults", "recommend")
        for key in (*VALID[table], "users")
    ),
    *(
        ("deployment", i, key)
        for i in (0, 1)
        for key in (*VALID["deployment"][i], "cpu_moe_frac", "gpu_layers", "typo")
    ),
]


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_any_change_of_values_is_read_or_refused(tmp_path_factory, changes):
    raw = copy.deepcopy(VALID)
    for place, value in changes:
        table: Any = raw
        for part in place[:-1]:
            with contextlib.suppress(KeyError, IndexError, TypeError):
                table = table[part]
        if isinstance(table, dict):
            table.pop(place[-1], None) if value is None else table.update({place[-1]: _without_none(value)})
    text = document(raw).encode()
    _read_or_refused(tmp_path_factory.getbasetemp() / "values.toml", text)


@pytest.mark.parametrize("table", ["", "[workload]\n"])
def test_a_key_that_breaks_the_line_is_escaped(tmp_path, table):
    _read_or_refused(tmp_path / "x.toml", f'{table}"a\\nb" = 1\n'.encode())


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_of_bytes_is_read_or_refused(tmp_path_factory, data):
    content = document(VALID).encode()
    start = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, 20))
    inserted = data.draw(st.binary(max_size=4) | st.text(alphabet='[]{}="\n.,#\\0e-', max_size=6).map(str.encode))
    _read_or_refused(
        tmp_path_factory.getbasetemp() / "bytes.toml", content[:start] + inserted + content[start + length :]
    )


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value if item is not None] if isinstance(value, list) else value


def _read_or_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        assert isinstance(load_scenario(path), Scenario)
    except RoofcastError as error:
        assert all(problem.startswith(f"{path}: ") and "\n" not in problem for problem in error.problems)
