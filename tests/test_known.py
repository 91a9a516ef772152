"""Which figures a profile was fitted to: told by what they measured, not by the file that they stand in."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from sim import profiles
from sim.calibration.known import REASON, fingerprint, packed, without_known
from sim.errors import RoofcastError
from sim.measure import SHIPPED, Measurement, read
from sim.profiles.rows import Data, Profile
from sim.profiles.write import write
from sim.verbs.calibrate import FITTED

TINY = Path(__file__).parent / "profile.toml"
HEADER = "model,hardware,engine,weights,prompt_tokens,output_tokens,quantity,value"


@pytest.fixture
def rows(tmp_path: Path) -> list[Measurement]:
    """Two figures that differ in their value."""
    lines = [f"llama-3.1-8b,h100-sxm,vllm,fp8,1024,128,tpot_ms,{value}" for value in (15.9177, 16.2)]
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *lines]))
    return read([tmp_path / "a.csv"]).measurements


def fitted_to(rows: list[Measurement]) -> Profile:
    """The tests' profile, as if fitted to these figures."""
    data = Data(file="a.csv", rows=len(rows), used=len(rows), fingerprints=packed(rows))
    return profiles.load(TINY).model_copy(update={"data": (data,)})


@pytest.mark.parametrize(
    "change",
    [{"file": "b.csv", "line": 9, "id": "z"}, {"value": 15.9e-3}, {"value": 1 / 62.85}, {"prompt": 1023.6}, {"kv": "8"},
     {"source": "vllm", "measured_column": "mean_tpot_ms", "stat": "mean", "limits": {"max_num_seqs": 8.0}}],
)  # fmt: skip
def test_a_figure_is_known_however_it_is_stated(rows: list[Measurement], change: dict) -> None:
    assert fingerprint(replace(rows[0], **change)) == fingerprint(rows[0])


def test_half_a_last_digit_rounds_alike_in_all_units(rows: list[Measurement]) -> None:
    alike = {fingerprint(replace(rows[0], value=value)) for value in (12.25 / 1e3, 0.01225 * (1 - 1e-15), 0.01225)}
    assert len(alike) == 1


@pytest.mark.parametrize(
    "change",
    [{"value": 16.0e-3}, {"model": "llama-3-8b"}, {"machine": "h200"}, {"engine": "sglang"}, {"weights": "bf16"},
     {"tp": 2}, {"pp": 2}, {"ep": 2}, {"dp": 2}, {"replicas": 2}, {"concurrency": 2}, {"prompt": 1050.0},
     {"output": 130.0}, {"depth": 64.0}, {"quantity": "itl_s"}],
)  # fmt: skip
def test_another_figure_is_not_known(rows: list[Measurement], change: dict) -> None:
    assert fingerprint(replace(rows[0], **change)) != fingerprint(rows[0])


def test_only_rows_whose_figures_are_all_known_are_left_out(rows: list[Measurement]) -> None:
    first, second = rows
    kept, unused = without_known(rows, fitted_to([first]))
    assert kept == [second]
    assert [(u.line, u.reason, u.detail) for u in unused] == [(2, REASON, "as in a.csv")]
    kept, unused = without_known([first, replace(second, line=first.line)], fitted_to([first]))
    assert len(kept) == 1 and unused == []
    assert without_known(rows, fitted_to([])) == (rows, [])


def test_fingerprints_outlive_the_file_and_damaged_ones_are_told(rows: list[Measurement], tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    write(fitted_to(rows), file)
    assert len(packed([*rows, *rows])) == 2 * 8
    assert without_known(rows, profiles.load(file))[0] == []
    file.write_text(file.read_text().replace(f'"{packed(rows)}"', '"abc"'))
    with pytest.raises(RoofcastError, match=r"data 1\.fingerprints: expected fingerprints as `roofcast calibrate`"):
        profiles.load(file)


def test_the_shipped_table_is_in_the_shipped_profile() -> None:
    rows = [row for row in read([SHIPPED]).measurements if row.quantity in FITTED]
    kept, _ = without_known(rows, profiles.shipped())
    assert len(rows) > 400 and len(kept) <= 0.01 * len(rows)


@pytest.mark.parametrize("name", ["silicon", "serving", "local"])
def test_a_part_of_a_published_set_is_in_the_shipped_profile(shared: Path, name: str) -> None:
    found = read([shared / "measurements" / f"{name}.csv.gz"]).measurements
    rows = list(islice((row for row in found if row.quantity in FITTED), 0, None, 7))
    kept, unused = without_known(rows, profiles.shipped())
    assert len(kept) <= 0.01 * len(rows) and {u.reason for u in unused} == {REASON}
    slower, _ = without_known([replace(row, value=1.1 * row.value) for row in rows], profiles.shipped())
    assert len(slower) > 0.9 * len(rows)
