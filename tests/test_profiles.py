"""Calibrated profiles: files, what their shifts do to an engine, and draws of what they leave open."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import catalog, profiles
from sim.engines import EfficiencyRow, efficiency, engines
from sim.errors import RoofcastError
from sim.lower import lower_engine
from sim.profiles import Profile, evidence, kind_of, load, named
from sim.profiles.rows import FIELDS, KERNELS, KINDS, Shift
from sim.profiles.shifts import drawn, moved, shifted
from sim.profiles.write import write

TINY = Path(__file__).parent / "profile.toml"
ROOT = TINY.parents[1]
TEXT = TINY.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tiny() -> Profile:
    """The profile of the tests."""
    return load(TINY)


def device(name: str) -> Any:
    """A device's row."""
    return catalog.devices()[name]


def test_a_file_that_was_written_reads_back_and_is_written_alike(tiny: Profile, tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    data = {"file": 'a "b".csv', "fingerprints": "0f/+AZaz", "rows": 3, "used": 2, "quantities": {"ttft_s": 1}}
    error = {"quantity": "tpot_s", "rows": 2, "before_median_frac": 0.123456, "split": "five folds"}
    raw = tiny.model_dump(exclude_none=True) | {"data": [data], "error": [error], "base": "other"}
    profile = Profile.model_validate(raw | {"shift": raw["shift"][::-1]})
    write(profile, first)
    again = load(first)
    write(again, second)
    assert first.read_bytes() == second.read_bytes()
    assert list(tmp_path.iterdir()) == [first, second]
    assert {row.place: row for row in again.shift} == {row.place: row for row in tiny.shift}
    assert again.data == profile.data and again.interval == tiny.interval and again.prior_sd == tiny.prior_sd
    assert "before_median_frac = 0.1235\n" in first.read_text()


def test_written_floats_have_four_digits(tiny: Profile, tmp_path: Path) -> None:
    row = Shift(engine="vllm", layer_us=(-1 / 3, 1e-5 / 3), step_us=(-0.0, 2.0))
    write(tiny.model_copy(update={"shift": (row,)}), tmp_path / "a.toml")
    assert "layer_us = [-0.3333, 3.333e-06]\nstep_us = [0.0, 2.0]\n" in (tmp_path / "a.toml").read_text()


@pytest.mark.parametrize("name", ["no-folder/a.toml", ".", ""])
def test_what_cannot_be_written_is_a_sentence(tiny: Profile, tmp_path: Path, name: str) -> None:
    with pytest.raises(RoofcastError):
        write(tiny, f"{tmp_path}/{name}" if name else "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('created = "2026-11-23"', "", "p.toml: created: required key is missing"),
        ("prior_sd]", "prior_s]", "p.toml: prior_sd: required key is missing; hint: write [prior_sd]"),
        ("arch = 0.2\n", "", "prior_sd.arch: required key is missing (line 5)"),
        ("arch = 0.2\n", "arch = -0.2\n", "prior_sd.arch: expected at least 0, got -0.2 (line 7)"),
        ("arch = 0.2\n", "arch = nan\n", "prior_sd.arch: expected a finite number, got nan (line 7)"),
        ("step_us = [0.1", "stap_us = [0.1", "shift 1.stap_us: unknown key (line 31); hint: did you mean step_us"),
        ("step_us = [0.1", "decode_power_frac = [0.1", "shift 1.decode_power_frac: unknown key (line 31)"),
        ("fp8 =", "fp9 =", "shift 1.weight_bw_frac.fp9: unknown key (line 32); hint: did you mean fp8"),
        ("fp8 =", "zzz =", "hint: known are bf16, fp8, int8"),
        ("[0.1, 0.02]\nw", "[0.1, 0]\nw", "shift 1.step_us[2]: expected more than 0, got 0 (line 31)"),
        ("[0.1, 0.02]\nw", "[0.1, -1.0]\nw", "shift 1.step_us[2]: expected more than 0, got -1.0"),
        ("[0.1, 0.02]\nw", "[nan, 1.0]\nw", "shift 1.step_us[1]: expected a finite number, got nan"),
        ("[0.1, 0.02]\nw", "[1e9, 1.0]\nw", "shift 1.step_us[1]: expected at most 10, got 1000000000.0"),
        ("[0.1, 0.02]\nw", "[0.1]\nw", "shift 1.step_us[2]: required key is missing"),
        ("[0.1, 0.02]\nw", "0.1\nw", "shift 1.step_us: expected a list, got 0.1"),
        ("[0.1, 0.02]\nw", '["a", 0.1]\nw', 'shift 1.step_us[1]: expected a number, got "a"'),
        ('engine = "sglang"', 'engine = "sglan"', 'shift 7.engine: no engine is called "sglan" (line 59); hint: did'),
        ('device = "hopper"\nl', 'device = "hoper"\nl', 'shift 2.device: no device is called "hoper" (line 35); hint:'),
        ('kind = "gqa"', 'kind = "moe"', 'shift 6.kind: no kind is called "moe"'),
        ('engine = "sglang"', 'kind = "gqa"', "shift 7: no level of a profile has these of engine, device and kind"),
        ('engine = "sglang"', "", "shift 7: no level of a profile has these of engine, device and kind"),
        ('engine = "sglang"', 'engine = "vllm"', "shift 7: has engine, device and kind of shift 1 (line 58); hint"),
        ('device = "h100-sxm"\nrows', 'device = "h1000"\nrows', 'evidence 1.device: no device is called "h1000"'),
        ("rows = 191", "rows = 1.5", "evidence 1.rows: expected a whole number, got 1.5"),
        ("[interval.tpot_s]", "[interval.tpot]", "interval.tpot: unknown key (line 13); hint: did you mean tpot_s"),
        ("[interval.tpot_s]", "[interval.itl_s]", "interval: [interval.tpot_s] is missing"),
        ("noise = 0.05", "nois = 0.05", "interval.tpot_s.nois: unknown key (line 14); hint: did you mean noise?"),
        ("[0.6, 1.3, 2.6]", "[0.6, 1.3]", "interval.tpot_s.widths: 2 widths of 3 levels (line 16)"),
        ("[0.6, 1.3, 2.6]", "[0.6, 2.6, 1.3]", "interval.tpot_s.widths: expected numbers that increase"),
        ("levels = [0.5", "levels = [0", "interval.tpot_s.levels[1]: expected more than 0, got 0"),
        ("name =", "name", "p.toml: not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TEXT
    path = tmp_path / "p.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RoofcastError) as caught:
        load(path)
    assert said in str(caught.value)
    assert all("\n" not in problem and "pydantic" not in problem for problem in caught.value.problems)


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(TEXT.replace("step_us", "stap_us").replace("rows = 191", "rows = -1"))
    with pytest.raises(RoofcastError) as caught:
        load(tmp_path / "p.toml")
    assert len(caught.value.problems) == 2


def test_names_of_profiles(tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named("none") is None
    assert named(tiny) is tiny
    path = tmp_path / "p.toml"
    shutil.copy(TINY, path)
    assert named(str(path)) == tiny and named(path) is named(str(path))
    path.write_text(TEXT.replace('"tiny"', '"changed"'))
    assert named(path).name == "changed"
    monkeypatch.setattr(profiles, "shipped", lambda: tiny)
    assert named(None) is tiny
    for bad in (str(tmp_path / "q.toml"), str(tmp_path), "", "a\0b", 5, True):
        with pytest.raises(RoofcastError):
            named(bad)  # type: ignore[arg-type]


def test_the_shipped_profile_is_read_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "SHIPPED", tmp_path / "profile.toml")
    assert profiles.shipped.__wrapped__() is None
    shutil.copy(TINY, tmp_path / "profile.toml")
    assert profiles.shipped.__wrapped__().name == "tiny"


def test_shifts_of_all_levels_add_up(tiny: Profile) -> None:
    row = device("h100-sxm")
    merged, _ = efficiency("vllm", row)
    new = shifted(merged, tiny, "vllm", row, "gqa")
    assert new["layer_us"] == pytest.approx(merged["layer_us"] * math.exp(-0.2 + 0.05 + 0.4), rel=1e-12)
    odds = {
        name: of["weight_bw_frac"]["bf16"] / (1 - of["weight_bw_frac"]["bf16"])
        for name, of in (("a", merged), ("b", new))
    }
    assert math.log(odds["b"] / odds["a"]) == pytest.approx(0.1 + 0.2 - 0.4, rel=1e-9)
    assert new["sharpness"] - 1 == pytest.approx((merged["sharpness"] - 1) * math.exp(0.3), rel=1e-12)
    assert new["kv_bw_frac"] > merged["kv_bw_frac"]
    untouched = set(merged) - {"layer_us", "step_us", "weight_bw_frac", "sharpness", "kv_bw_frac"}
    assert {name: new[name] for name in untouched} == {name: merged[name] for name in untouched}
    assert shifted(merged, None, "vllm", row, "gqa") is merged
    assert shifted(merged, tiny, "vllm", row, "mla+moe")["layer_us"] == pytest.approx(
        merged["layer_us"] * math.exp(-0.15)
    )


def test_the_engine_is_lowered_with_them(tiny: Profile) -> None:
    runs, machine = engines()["vllm"], catalog.machine("h100-sxm")
    plain, new = lower_engine(runs, machine), lower_engine(runs, machine, tiny, "gqa")
    assert new.layer_s / plain.layer_s == pytest.approx(math.exp(0.25), rel=1e-6)
    assert new.weight_bw_frac.dtype == np.float32 and new.memory_frac == plain.memory_frac


def test_a_device_named_as_its_architecture_is_shifted_once(tiny: Profile) -> None:
    profile = tiny.model_copy(update={"shift": (Shift(device="m4", layer_us=(0.5, 0.1)),)})
    profile = Profile.model_validate(profile.model_dump(exclude_none=True))
    merged, _ = efficiency("mlx", device("m4"))
    assert shifted(merged, profile, "mlx", device("m4"), "gqa")["layer_us"] == merged["layer_us"] * math.exp(0.5)


@given(
    name=st.sampled_from(sorted(FIELDS)),
    base=st.floats(0.01, 0.999),
    shift=st.floats(-60, 60),
)
def test_figures_stay_in_their_bounds(name: str, base: float, shift: float) -> None:
    over = name == "sharpness"
    value = np.float32(moved(name, base + over, shift))
    assert 1 < value < np.inf if over else 0 < value < (1 if name.endswith("_frac") else np.inf)
    further = moved(name, base + over, shift + 1)
    assert further >= moved(name, base + over, shift)


def test_what_has_no_log_stays(tiny: Profile) -> None:
    assert (moved("layer_us", 0.0, 3.0), moved("routing_skew", 0.0, 3.0)) == (0, 0)
    assert (moved("sharpness", 1.0, 3.0), moved("kv_bw_frac", 1.0, 3.0)) == (1, 1)


def test_every_number_of_an_efficiency_row_can_be_shifted() -> None:
    words = {"engine", "device", "source", "confidence", "decode_power_frac", "prefill_power_frac"}
    assert set(FIELDS) == set(EfficiencyRow.model_fields) - words
    assert {*FIELDS, "engine", "device", "kind"} == set(Shift.model_fields)


def test_draws_have_the_stated_spread(tiny: Profile) -> None:
    row = device("h100-sxm")
    merged, _ = efficiency("vllm", row)
    center = shifted(merged, tiny, "vllm", row, "gqa")
    draws = drawn(merged, tiny, "vllm", row, "gqa", 32)
    prior = tiny.prior_sd
    open_levels = [prior.device, prior.engine_arch, prior.engine_device]  # of layer_us; the other three have a row
    logs = np.log([draw["layer_us"] / center["layer_us"] for draw in draws])
    assert logs.mean() == pytest.approx(0, abs=1e-9)
    assert logs.std() == pytest.approx(math.sqrt(sum(sd**2 for sd in open_levels) + 3 * 0.02**2), rel=1e-6)
    every = math.sqrt(sum(sd**2 for sd in prior.model_dump().values()))
    assert np.log([draw["moe_layer_us"] for draw in draws]).std() == pytest.approx(every, rel=1e-6)
    assert {tuple(draw["weight_bw_frac"]) for draw in draws} == {tuple(merged["weight_bw_frac"])}


def test_draws_are_normal_and_independent(tiny: Profile) -> None:
    row = device("h100-sxm")
    merged, _ = efficiency("sglang", row)
    draws = drawn(merged, tiny, "sglang", row, "gqa", 4000)
    logs = np.log([[draw[name] for name in ("layer_us", "step_us", "routing_skew")] for draw in draws])
    scores = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    assert np.allclose(np.corrcoef(scores.T), np.eye(3), atol=1e-6)
    assert np.allclose((np.abs(scores) < 1.2816).mean(axis=0), 0.8, atol=0.02)


def test_draws_are_the_same_in_every_process(tiny: Profile) -> None:
    code = (
        "from sim.profiles import load; from sim.profiles.shifts import drawn; from sim.engines import efficiency\n"
        "from sim import catalog; row = catalog.devices()['h200']; merged, _ = efficiency('vllm', row)\n"
        f"print([d['layer_us'] for d in drawn(merged, load({str(TINY)!r}), 'vllm', row, 'gqa', 4)])"
    )
    told = [subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True) for _ in range(2)]
    merged, _ = efficiency("vllm", device("h200"))
    here = [d["layer_us"] for d in drawn(merged, tiny, "vllm", device("h200"), "gqa", 4)]
    assert told[0].stdout == told[1].stdout == f"{here}\n"
    other = [d["layer_us"] for d in drawn(merged, tiny, "vllm", device("h200"), "mla", 4)]
    assert other != here


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("llama-3.1-8b", "gqa"),
        ("gpt-oss-120b", "gqa+moe"),
        ("deepseek-r1", "mla+moe"),
        ("deepseek-v3.2", "dsa+moe"),
        ("deepseek-v4-flash", "dsa+moe"),
        ("qwen3.6-27b", "linear"),
        ("nemotron-3-super-120b-a12b", "linear+moe"),
    ],
)
def test_kinds_of_models(model: str, kind: str) -> None:
    assert kind_of(catalog.models()[model]) == kind
    assert {kind_of(row) for row in catalog.models().values()} <= set(KINDS)


@pytest.mark.parametrize(
    ("engine", "name", "said"),
    [
        ("vllm", "h100-sxm", "calibrated on 191 rows of this pair"),
        ("vllm", "h200", "calibrated on other devices of hopper"),
        ("vllm", "b200", "calibrated on devices of other kinds"),
        ("sglang", "h100-sxm", "not calibrated for this engine: priors"),
    ],
)
def test_evidence(tiny: Profile, engine: str, name: str, said: str) -> None:
    assert evidence(tiny, engine, device(name)) == said


def test_kernels_are_those_of_the_efficiency_rows() -> None:
    merged, _ = efficiency("vllm", device("h100-sxm"))
    assert set(merged["weight_bw_frac"]) == set(KERNELS)
