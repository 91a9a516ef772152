"""`--profile` and `--interval` from end to end: verbs, command line and scenario files."""

from __future__ import annotations

import csv
import inspect
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim import guide, profiles
from sim.commands import estimate, recommend
from sim.errors import RoofcastError
from sim.intervals import BOUNDED, end
from sim.point import _evaluate_few
from sim.profiles import load
from sim.results import Result

TINY = Path(__file__).parent / "profile.toml"
TEXT = TINY.read_text(encoding="utf-8")
CALL = ("llama-3.1-8b", "h100-sxm")
LOAD: dict[str, Any] = {"engine": "vllm", "concurrency": [1, 8, 64]}
SCENARIO = """
name = "Two cards"
[workload]
prompt_tokens = 500
output_tokens = 100
concurrency = [1, 8]
[[deployment]]
model = "llama-3.1-8b"
hardware = "h100-sxm"
engine = "vllm"
[recommend]
hardware = ["h100-sxm"]
models = ["llama-3.1-8b"]
engines = ["vllm"]
"""


def ask(hardware: str = CALL[1], profile: Any = TINY, **more: Any) -> Result:
    """Three loads of one model."""
    return sim.estimate(CALL[0], hardware, **LOAD, profile=profile, **more)


def half_width(result: Result, name: str = "tpot_s") -> np.ndarray:
    """Log of the high end over the low end, halved."""
    return np.log(result[end(name, "high")] / result[end(name, "low")]) / 2


@pytest.fixture(scope="module")
def wide() -> Result:
    """The 80 % interval of the test's profile."""
    return ask(interval=0.8)


def test_a_profile_moves_forecasts_and_none_does_not() -> None:
    plain, moved = ask(profile="none"), ask()
    assert (moved["tpot_s"] != plain["tpot_s"]).all()
    assert (moved["weights_bytes"] == plain["weights_bytes"]).all()
    assert "profile: tiny of 2026-11-23: calibrated on 191 rows of this pair" in moved.provenance
    assert "profile: none, the catalogue's efficiencies as they are" in plain.provenance


def test_without_a_shipped_profile_none_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "shipped", lambda: None)
    for name, column in ask(profile="none").columns.items():
        np.testing.assert_array_equal(column, ask(profile=None)[name])
    monkeypatch.setattr(profiles, "shipped", lambda: load(TINY))
    assert (ask(profile=None)["tpot_s"] == ask()["tpot_s"]).all()


def test_the_interval_holds_the_forecast(wide: Result) -> None:
    for name in BOUNDED:
        low, high = end(name, "low"), end(name, "high")
        assert (wide[low] < wide[name]).all() and (wide[name] < wide[high]).all()
        np.testing.assert_allclose(wide[low] * wide[high], wide[name] ** 2, 1e-5)
        assert wide.units[low] == wide.units[high] == wide.units[name]
    assert {"tpot_low_s", "output_high_tokens_per_s"} <= set(wide)
    assert not set(ask()) & {"tpot_low_s", "tpot_high_s"}
    np.testing.assert_array_equal(wide["tpot_s"], ask()["tpot_s"])


def test_it_grows_with_the_level(wide: Result) -> None:
    widths = [half_width(ask(interval=level)) for level in (0.5, 0.65)] + [half_width(wide)]
    assert (np.diff(widths, axis=0) > 0).all()
    np.testing.assert_allclose(2 * widths[1], widths[0] + widths[2], 1e-6)


def test_it_has_at_least_the_noise(wide: Result) -> None:
    assert (half_width(wide) > 1.3 * 0.05).all()
    assert (half_width(wide, "ttft_s") > 1.2 * 0.2).all()
    assert (half_width(wide, "itl_s") < 0.2).all()  # with the noise of tpot_s


def test_what_is_one_figure_has_one_interval() -> None:
    table = load(TINY).interval["ttft_s"]
    own = load(TINY).model_copy(update={"interval": load(TINY).interval | {"output_tokens_per_s": table}})
    for profile in (own, load(TINY)):
        found = ask(profile=profile, interval=0.8)
        for name in ("e2e_s", "total_tokens_per_s"):
            np.testing.assert_allclose(half_width(found, name), half_width(found, "output_tokens_per_s"), 1e-4)
        ends = [np.asarray(found[f"output_{which}_tokens_per_s"]) for which in ("low", "high")]
        spans = [LOAD["concurrency"] * found["output_tokens"] / found[f"e2e_{which}_s"] for which in ("high", "low")]
        np.testing.assert_allclose(ends, spans, 1e-4)
    assert (half_width(ask(profile=own, interval=0.8), "e2e_s") > 1.2 * 0.2).all()


def test_what_nothing_varies_is_as_wide_as_the_noise() -> None:
    levels = ("engine", "arch", "device", "engine_arch", "engine_device", "engine_kind")
    still = load(TINY).model_copy(update={"shift": (), "prior_sd": profiles.rows.PriorSd(**dict.fromkeys(levels, 0.0))})
    np.testing.assert_allclose(half_width(ask(profile=still, interval=0.8)), 1.3 * 0.05, 1e-5)


def test_where_less_was_measured_it_is_wider(wide: Result, tmp_path: Path) -> None:
    known = "\n".join(f"{name} = [0.0, 0.01]" for name in ("kv_bw_frac", "step_us", "sequence_us", "layer_us"))
    rows = "".join(
        f'[[shift]]\nengine = "{engine}"\ndevice = "{device}"\n{known}\nweight_bw_frac = {{bf16 = [0.0, 0.01]}}\n'
        for engine, device in (("*", "hopper"), ("*", "h100-sxm"), ("vllm", "h100-sxm"), ("vllm", "hopper"))
    )
    path = tmp_path / "p.toml"
    path.write_text(TEXT.partition("[[shift]]")[0] + rows)
    narrow, other = (half_width(ask(hardware, profile=path, interval=0.8)) for hardware in ("h100-sxm", "b200"))
    assert (narrow < other).all()


def test_it_compiles_nothing_more() -> None:
    ask(profile="none")
    before = _evaluate_few._cache_size()
    ask(interval=0.8)
    assert _evaluate_few._cache_size() == before


def test_where_nothing_fits_it_is_absent() -> None:
    result = sim.estimate("llama-3.3-70b", "h100-sxm", engine="vllm", profile=TINY, interval=0.8)
    assert not result["fits"] and np.isnan(result["tpot_low_s"]) and result.rows()[0]["tpot_high_s"] is None


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (0, "interval: expected a level between 0 and 1, as in 0.8, found 0"),
        (1, "found 1"),
        (80, "found 80; hint: take 0.8"),
        (2, "found 2; hint: take a fraction between 0 and 1, such as 0.8"),
        (-0.5, "found -0.5"),
        (math.nan, "found nan"),
        (math.inf, "found inf"),
        ("abc", "found 'abc'"),
        (True, "found True"),
        ([0.8, 0.9], "found [0.8, 0.9]"),
        (0.99, "the profile tiny has intervals from 0.5 to 0.95, not 0.99"),
        (0.1, "the profile tiny has intervals from 0.5 to 0.95, not 0.1"),
    ],
)
def test_bad_levels(level: Any, said: str) -> None:
    with pytest.raises(RoofcastError) as caught:
        ask(interval=level)
    assert len(caught.value.problems) == 1 and said in str(caught.value)


def test_no_interval_without_a_profile_that_has_them(tmp_path: Path) -> None:
    bare = tmp_path / "p.toml"
    bare.write_text("\n\n".join(part for part in TEXT.split("\n\n") if not part.startswith("[interval")))
    for profile, said in ((bare, "the profile tiny has no intervals"), ("none", "there is no profile")):
        with pytest.raises(RoofcastError, match=said):
            ask(profile=profile, interval=0.8)


@pytest.mark.parametrize("level", ["0", "1", "80", "nan", "abc", "", "-1", "101%"])
def test_bad_levels_on_the_command_line(run: Callable, level: str) -> None:
    code, out, err = run("estimate", *CALL, "--interval", level)
    assert (code, out) == (2, "")
    assert err == f"roofcast: estimate --interval: expected a level between 0 and 1, as in 0.8, got '{level}'\n"


@pytest.mark.parametrize("profile", ["no-such.toml", "", "/"])
def test_bad_profiles_on_the_command_line(run: Callable, profile: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(SCENARIO)
    lines = (["estimate", *CALL], ["run", str(tmp_path / "x.toml")], ["recommend", "--users", "1"], ["guide"])
    for line in lines:
        code, out, err = run(*line, "--profile", profile)
        assert (code, out) == (2, "")
        assert err.startswith("roofcast: ") and err.count("\n") == 1


def test_the_command_line_says_what_python_does(run: Callable, wide: Result) -> None:
    line = [*CALL, "--engine", "vllm", "--concurrency", "1,8,64", "--profile", str(TINY), "--interval", "80%"]
    code, out, _ = run("estimate", *line, "--format", "json")
    body = json.loads(out)
    assert code == 0
    assert body["rows"] == wide.rows()
    assert body["units"]["tpot_low_s"] == "s" and body["provenance"][-1].startswith("interval: 80 %")
    rows = list(csv.DictReader(io.StringIO(run("estimate", *line, "--format", "csv")[1])))
    assert [float(row["tpot_high_s"]) for row in rows] == wide["tpot_high_s"].tolist()


def test_the_interval_in_the_table_and_in_the_plot(run: Callable, tmp_path: Path) -> None:
    line = [*CALL, "--engine", "vllm", "--concurrency", "1,2048", "--profile", str(TINY), "--plot"]
    plain, banded = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    assert " interval\n" not in run("estimate", *line, plain)[1]
    code, out, err = run("estimate", *line, banded, "--interval", "0.8")
    assert code == 0 and "note: interval: 80 %" in err
    assert "\n80 % interval\n" in out
    assert out.partition("80 % interval")[2].count(" to ") == 10
    assert Path(plain).read_bytes() != Path(banded).read_bytes()


def test_every_verb_takes_a_profile() -> None:
    for verb in (sim.estimate, sim.recommend, sim.run, guide.check):
        assert inspect.signature(verb).parameters["profile"].default is None
    for command in (estimate, recommend):
        assert "profile" in command._KEYWORDS


def test_scenario_files_name_a_profile_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    shutil.copy(TINY, tmp_path / "mine.toml")
    path.write_text('profile = "mine.toml"\ninterval = 0.8\n' + SCENARIO)
    answer = sim.run(path)
    (result,) = answer.results.values()
    assert any(note.startswith("profile: tiny of ") for note in answer.summary.provenance)
    assert any(note.startswith("profile: tiny of ") for note in answer.recommendation.provenance)
    assert result["tpot_low_s"][0] < result["tpot_s"][0]
    narrow = sim.run(path, interval=0.5)
    (other,) = narrow.results.values()
    for wider, narrower in ((result, other), (answer.recommendation, narrow.recommendation)):
        assert (half_width(narrower) < half_width(wider)).all()
    with pytest.raises(RoofcastError, match=r"^interval: there is no profile to take intervals from"):
        sim.run(path, profile="none")
    path.write_text('profile = "none"\n' + SCENARIO)
    bare = sim.run(path)
    (plain,) = bare.results.values()
    assert (plain["tpot_s"] != result["tpot_s"]).all()
    assert "tpot_low_s" not in plain and "tpot_low_s" not in bare.recommendation


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('profile = "nine.toml"', "x.toml: {folder}/nine.toml: no such file; hint: did you mean mine.toml"),
        ("profile = 5", "x.toml: profile: expected text in quotes, got 5 (line 1)"),
        ('profile = "mine.toml"\ninterval = 80', "x.toml: interval: expected less than 1, got 80 (line 2)"),
        ('profile = "mine.toml"\ninterval = "wide"', 'x.toml: interval: expected a number, got "wide" (line 2)'),
        ('profile = "mine.toml"\ninterval = 0.99', "x.toml: interval: the profile tiny has intervals from 0.5"),
        ('profil = "mine.toml"', "x.toml: profil: unknown key (line 1); hint: did you mean profile"),
    ],
)
def test_bad_profiles_of_scenario_files(tmp_path: Path, lines: str, said: str) -> None:
    shutil.copy(TINY, tmp_path / "mine.toml")
    (tmp_path / "x.toml").write_text(f"{lines}\n{SCENARIO}")
    with pytest.raises(RoofcastError) as caught:
        sim.run(tmp_path / "x.toml")
    assert len(caught.value.problems) == 1 and said.format(folder=tmp_path) in str(caught.value)


def test_recommend_ranks_by_the_profile() -> None:
    asked: dict[str, Any] = {"users": 4, "hardware": ["h100-sxm"], "models": ["llama-3.1-8b", "gpt-oss-20b"]}
    plain, moved = (sim.recommend(**asked, engines=["vllm"], profile=name) for name in ("none", TINY))
    by_model = [dict(zip(r["model"].tolist(), r["tpot_s"].tolist(), strict=True)) for r in (plain, moved)]
    assert by_model[0].keys() == by_model[1].keys() == {"llama-3.1-8b", "gpt-oss-20b"}
    for name, tpot_s in by_model[1].items():
        assert tpot_s != by_model[0][name]
        row = moved.rows()[moved["model"].tolist().index(name)]
        same = sim.estimate(name, row["hardware"], engine="vllm", weights=row["weights"], tp=row["tp"], pp=row["pp"],
                            ep=row["ep"], replicas=row["replicas"], concurrency=4, prompt=1024, output=256,
                            profile=TINY)  # fmt: skip
        assert float(same["tpot_s"]) == pytest.approx(tpot_s, rel=1e-5)


def test_recommend_has_the_ends_that_estimate_has(run: Callable) -> None:
    asked = {"users": 4, "hardware": ["2x h100-sxm"], "models": [CALL[0]], "engines": ["vllm"], "profile": TINY}
    found = sim.recommend(**asked, interval=0.8)
    plain = sim.recommend(**asked)
    assert set(found) - set(plain) == {f"{name}_{side}_{unit}" for side in ("low", "high") for name, unit in (
        ("ttft", "s"), ("tpot", "s"), ("user", "tokens_per_s"), ("output", "tokens_per_s"))}  # fmt: skip
    assert found["model"].tolist() == plain["model"].tolist() and "interval" not in plain.details
    assert any(note.startswith("interval: 80 %") for note in found.provenance)
    for row in found.rows():
        same = {name: row[name] for name in ("engine", "weights", "kv", "tp", "pp", "ep", "replicas")}
        one = sim.estimate(
            row["model"], "2x h100-sxm", concurrency=4, prompt=1024, output=256, profile=TINY, interval=0.8, **same
        )
        for name in ("tpot_s", "tpot_low_s", "tpot_high_s", "output_low_tokens_per_s", "ttft_high_s"):
            assert row[name] == pytest.approx(float(one[name]), rel=1e-5)
