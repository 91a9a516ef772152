"""`sim.validate`: forecasts beside measurements are those of `sim.estimate`, and no row of a file vanishes."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim import catalog, measure, profiles
from sim.breakdown import batch_band, depth_band
from sim.calibration.predict import predict
from sim.calibration.table import tabulate
from sim.engines import engine
from sim.errors import RoofcastError
from sim.intervals import N_DRAWS
from sim.lower import drawn_engines
from sim.point import stack
from sim.results import Result

TINY = Path(__file__).parent / "profile.toml"
SAMPLES = Path(__file__).parent / "samples"
COLUMNS = ("model", "hardware", "engine", "concurrency", "prompt_tokens", "output_tokens", "context_depth", "weights",
           "n_requests", "quantity", "value", "stat", "n_devices", "tp", "pp", "ep", "dp", "mixed_chunk")  # fmt: skip
SERVED = {"model": "llama-3.1-8b", "hardware": "h100-sxm", "engine": "vllm", "concurrency": 16, "prompt_tokens": 1000,
          "output_tokens": 200, "n_requests": 160}  # fmt: skip
ROWS: list[dict[str, Any]] = [
    SERVED | {"quantity": "tpot_ms", "value": 9},
    SERVED | {"quantity": "ttft_ms", "value": 120},
    SERVED | {"quantity": "itl_ms", "value": 9},
    SERVED | {"quantity": "e2e_s", "value": 2},
    SERVED | {"quantity": "output_tokens_per_s", "value": 1500},
    SERVED | {"quantity": "total_tokens_per_s", "value": 9000},
    {**SERVED, "prompt_tokens": "", "context_depth": 900, "quantity": "decode_step_ms", "value": 8, "n_requests": ""},
    {**SERVED, "prompt_tokens": "", "context_depth": 900, "quantity": "decode_tokens_per_s", "value": 2000,
     "n_requests": ""},
    {**SERVED, "concurrency": 1, "output_tokens": "", "quantity": "prefill_tokens_per_s", "value": 20000,
     "n_requests": ""},
]  # fmt: skip
ESTIMATE = {"tpot_ms": ("tpot_s", 1e3), "ttft_ms": ("ttft_s", 1e3), "itl_ms": ("itl_s", 1e3), "e2e_s": ("e2e_s", 1.0),
            "output_tokens_per_s": ("output_tokens_per_s", 1.0),
            "total_tokens_per_s": ("total_tokens_per_s", 1.0), "decode_step_ms": ("decode_step_s", 1e3)}  # fmt: skip


def table_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file with the columns of Roofcast's own table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A row of each quantity, with the 80 % interval of the test's profile."""
    return sim.validate(table_of(tmp_path_factory.mktemp("rows") / "rows.csv", ROWS), profile=TINY)


def estimated(row: dict[str, Any]) -> Result:
    """The same load by `sim.estimate`."""
    prompt = int(row.get("context_depth") or row["prompt_tokens"])
    output = int(row["output_tokens"] or 1)
    more = {"n_requests": row["n_requests"]} if row["n_requests"] else {}
    return sim.estimate(row["model"], row["hardware"], engine=row["engine"], concurrency=row["concurrency"],
                        prompt=prompt, output=output, profile=TINY, interval=0.8, **more)  # fmt: skip


@pytest.mark.parametrize("index", range(len(ROWS)))
def test_predictions_are_those_of_estimate_in_the_unit_of_the_file(found: Result, index: int) -> None:
    row, got = ROWS[index], found.rows()[index]
    other, name = estimated(row), row["quantity"]
    if name in ESTIMATE:
        column, scale = ESTIMATE[name]
        told = [scale * other[column], scale * other[low_of(column)], scale * other[high_of(column)]]
    else:
        column = "decode_step_s" if name.startswith("decode") else "prefill_s"
        tokens = row["concurrency"] if name.startswith("decode") else row["prompt_tokens"]
        told = [tokens / other[column], tokens / other[high_of(column)], tokens / other[low_of(column)]]
    np.testing.assert_allclose([got["predicted"], got["low"], got["high"]], [float(v) for v in told], 2e-5)
    assert got["measured"] == pytest.approx(row["value"])
    assert got["error_frac"] == pytest.approx(got["predicted"] / row["value"] - 1)
    assert (got["used"], got["line"], got["column"], got["model"]) == (True, index + 2, "value", "llama-3.1-8b")


def low_of(column: str) -> str:
    """Name of the low end of a column of `sim.estimate`."""
    return column.replace("_tokens_per_s", "_low_tokens_per_s") if "tokens" in column else column[:-2] + "_low_s"


def high_of(column: str) -> str:
    """Name of the high end."""
    return low_of(column).replace("low", "high")


def test_scores_are_those_of_the_rows(found: Result) -> None:
    scores = found.details["scores"]
    assert list(dict.fromkeys(scores["by"].tolist())) == [
        "all", "quantity", "engine", "kind", "batch", "depth", "hardware", "model",
    ]  # fmt: skip
    everything = scores.rows()[0]
    error = np.abs(found["error_frac"])
    assert everything["rows"] == len(ROWS) and everything["rank"] is None
    assert everything["median_frac"] == pytest.approx(np.median(error))
    inside = (found["low"] <= found["measured"]) & (found["measured"] <= found["high"])
    assert everything["coverage_frac"] == pytest.approx(inside.mean())
    single = {row["group"]: row["median_frac"] for row in scores.rows() if row["by"] == "quantity"}
    assert single["decode_tokens_per_s"] == pytest.approx(error[7]) and len(single) == len(ROWS)


def test_bands() -> None:
    row = measure.read([SAMPLES / "local.csv"]).measurements[0]
    users = {n: batch_band(replace(row, concurrency=n)) for n in (1, 2, 8, 9, 32, 33, 128, 129)}
    assert users == {1: "1", 2: "2-8", 8: "2-8", 9: "9-32", 32: "9-32", 33: "33-128", 128: "33-128", 129: ">128"}
    depths = [depth_band(replace(row, prompt=cached, output=0.0)) for cached in (1023, 1024, 4096, 16383, 16384)]
    assert depths == ["<1k", "1k-4k", "4k-16k", "4k-16k", ">=16k"]
    assert depth_band(replace(row, quantity="prefill_s", depth=4096.0, prompt=512.0)) == "4k-16k"


def test_every_row_is_accounted_for() -> None:
    files = [SAMPLES / name for name in ("silicon.csv", "serving.csv", "local.csv")]
    found = sim.validate(files, profile="none")
    lines = {(row["file"], row["line"]) for row in found.rows()}
    expected = {(str(file), n) for file in files for n, _ in enumerate(file.read_text().splitlines()[1:], 2)}
    assert lines == expected
    assert [row["file"] for row in found.rows()] == sorted((row["file"] for row in found.rows()), key=[
        str(file) for file in files].index)  # fmt: skip
    unused = [row for row in found.rows() if not row["used"]]
    assert Counter(row["reason"] for row in unused) == found.details["unused"]
    assert all(row["reason"] and row["predicted"] is None for row in unused)
    assert len(found.details["columns"]) == len(found.rows())


def test_the_unit_is_that_of_the_column() -> None:
    ends = {"_ms": "ms", "e2e_s": "s", "_per_gpu": "tokens/s per GPU", "_total": "tokens/s"}
    found = sim.validate([SAMPLES / "serving.csv", SAMPLES / "local.csv"], profile="none")
    told = set()
    for row, columns in zip(found.rows(), found.details["columns"], strict=True):
        if row["used"]:
            stated = columns.get("metric", "rate_total")
            assert row["unit"] == next(unit for end, unit in ends.items() if stated.endswith(end)), stated
            told.add(row["unit"])
    assert {"ms", "tokens/s", "tokens/s per GPU"} <= told
    row = measure.read([SAMPLES / "silicon.csv"]).measurements[0]
    assert [replace(row, scale=scale).unit for scale in (1.0, 1e3, 1 / 1e-6, 1e3 / 1e-6)] == ["s", "ms", "us", "ns"]


def test_two_files_named_twice_count_once() -> None:
    once, twice = (sim.validate([SAMPLES / "local.csv"] * n, profile="none", interval=None) for n in (1, 2))
    assert once.rows() == twice.rows() and twice.details["problems"] == []


def test_without_intervals_they_are_absent_and_a_note_says_so() -> None:
    found = sim.validate(SAMPLES / "local.csv", profile="none")
    assert np.isnan(found["low"]).all() and np.isnan(found["high"]).all()
    assert np.isnan(found.details["scores"]["coverage_frac"]).all()
    assert any(note.startswith("interval: none") for note in found.provenance)
    assert "profile: none, the catalogue's efficiencies as they are" in found.provenance


def test_as_many_are_inside_as_the_level_says(tmp_path: Path) -> None:
    """Of measurements that are drawn from the profile itself: its engines, and the noise of the quantity."""
    normal = profiles.rows.Interval(noise=0.01, levels=(0.5, 0.8, 0.95), widths=(0.6745, 1.2816, 1.96))
    close = profiles.rows.PriorSd(**dict.fromkeys(profiles.rows.LEVELS, 0.02))  # so that forecasts spread evenly
    profile = profiles.load(TINY).model_copy(update={"interval": {"tpot_s": normal}, "prior_sd": close})
    loads = [SERVED | {"quantity": "tpot_ms", "value": 9, "concurrency": 1 + i % 50, "prompt_tokens": 500 + i}
             for i in range(128)]  # fmt: skip
    table, _ = tabulate(measure.read([table_of(tmp_path / "rows.csv", loads)]).measurements, profile)
    at = table.contexts[0]
    engines = drawn_engines(engine(at.engine), catalog.machine_of(at.device, 1), profile, at.kind, N_DRAWS)
    by_draw = [predict(replace(table, arrays=replace(table.arrays, engines=stack([one])))) for one in engines]
    noise = np.random.default_rng(0).standard_normal((4, len(loads)))
    for level in (0.5, 0.8, 0.95):
        shares = []
        for z in noise:
            drawn = [load | {"value": 1e3 * by_draw[i % N_DRAWS][i] * np.exp(normal.noise * z[i])}
                     for i, load in enumerate(loads)]  # fmt: skip
            found = sim.validate(table_of(tmp_path / "drawn.csv", drawn), profile=profile, interval=level, by="all")
            shares.append(found.details["scores"]["coverage_frac"][0])
        assert np.mean(shares) == pytest.approx(level, abs=0.05)


def test_a_profile_moves_the_predictions(found: Result, tmp_path: Path) -> None:
    plain = sim.validate(table_of(tmp_path / "rows.csv", ROWS), profile="none")
    assert (plain["predicted"] != found["predicted"]).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"interval": 80}, "interval: expected a level between 0 and 1, as in 0.8, found 80; hint: take 0.8"),
        ({"interval": 0.99}, "the profile tiny has intervals from 0.5 to 0.95, not 0.99"),
        ({"by": "modl"}, "by: no error table is called modl; hint: did you mean model?"),
        ({"model": "no-such-model", "hardware": "nowhere"}, 'no model is called "no-such-model"'),
        ({"model": "no-such-model", "hardware": "nowhere"}, 'no machine is called "nowhere"'),
        ({"weights": "fp3"}, '"fp3"'),
        ({"tp": -1}, "tp: expected whole numbers from 1"),
        ({"prompt": "long"}, "prompt: expected whole numbers"),
        ({"profile": "no-such.toml"}, "no-such.toml"),
        ({"paths": []}, "paths: expected the names of files with measurements, found none"),
        ({"paths": 5}, "paths: expected the names of files with measurements, found 5"),
        ({"paths": {}}, "paths: expected the names of files with measurements, found none"),
        ({"weights": [1]}, "expected the name of a weight format, found [1]"),
        ({"progress": 5}, "progress: expected a function, found 5"),
        ({"interval": 2}, "found 2; hint: take a fraction between 0 and 1, such as 0.8"),
        ({"paths": [3]}, "paths: expected the names of files with measurements, found 3"),
        ({"paths": "no-such.csv"}, "no-such.csv: cannot be read"),
    ],
)  # fmt: skip
def test_bad_arguments(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RoofcastError) as caught:
        sim.validate(**({"paths": SAMPLES / "local.csv", "profile": TINY} | given))
    assert said in str(caught.value)


def test_one_row_out_of_bounds_leaves_the_others(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[0] | {"concurrency": 17}, ROWS[0] | {"prompt_tokens": 3e10}]
    found = sim.validate(table_of(tmp_path / "rows.csv", rows), profile="none")
    assert found["used"].tolist() == [True, True, False]
    assert found["reason"][2] == "no forecast" and found["detail"][2].startswith("prompt: expected whole numbers")


def test_what_does_not_fit_is_no_mistake(tmp_path: Path) -> None:
    large = ROWS[0] | {"model": "llama-3.3-70b", "weights": "bf16", "value": 60}
    found = sim.validate(table_of(tmp_path / "rows.csv", [ROWS[0], large]), profile="none")
    assert (found["reason"][1], found["detail"][1]) == ("does not fit", "the weights do not fit")
    assert found.details["problems"] == [] and found["measured"][1] == pytest.approx(60)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hardware": "8x h100-sxm"}, ("8x h100-sxm", 8, 1, 1, 1)),
        ({"n_devices": 4}, ("4x h100-sxm", 4, 1, 1, 1)),
        ({"tp": 2, "dp": 2, "ep": 4}, ("4x h100-sxm", 2, 1, 2, 1)),  # a dense model has no experts to part
        ({"n_devices": 2, "pp": 2}, ("2x h100-sxm", 1, 2, 1, 1)),
        ({"n_devices": 2, "tp": 4}, "contradictory parallelism"),
        ({"stat": "p99"}, "a percentile"),
        ({"output_tokens": ""}, "output not stated"),
        ({"output_tokens": "", "model": ""}, "model and output not stated"),
        ({"weights": "fp3"}, "unknown quantization"),
        ({"mixed_chunk": -1}, "not positive"),
    ],
)
def test_rows_of_the_own_table(tmp_path: Path, change: dict[str, Any], expected: Any) -> None:
    found = measure.read([table_of(tmp_path / "rows.csv", [ROWS[0] | {"value": 30} | change])])
    if isinstance(expected, str):
        assert [row.reason for row in found.unused] == [expected] and not found.measurements
    else:
        [row] = found.measurements
        assert (row.machine, row.tp, row.pp, row.dp, row.ep) == expected
