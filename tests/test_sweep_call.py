"""`sim.sweep` as a caller has it: what stands in place of the file, in tables and in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sim
from sim.sweeps.spec import Spec
from tests.test_sweep_command import FILE


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep's file: by model and concurrency, of 12 configurations."""
    found = tmp_path_factory.mktemp("sweep") / "a.toml"
    found.write_text(FILE)
    return found


def test_by_and_top_stand_in_place_of_the_files(path: Path) -> None:
    found = sim.sweep(path, by="hardware", top=3)
    assert (found.plan.spec.by, len(found.best.rows()), len(found.top.rows())) == (("hardware",), 4, 3)
    one = sim.sweep(path, by=())
    assert len(one.best.rows()) == 2 and one.best.rows()[0]["usd_per_mtok"] == one.top.rows()[0]["usd_per_mtok"]


def test_a_profile_is_a_name_or_the_thing_itself(path: Path) -> None:
    def costs(**given: Any) -> list[float]:
        return sim.sweep(path, **given).top["usd_per_mtok"].tolist()

    assert costs(profile="none") != costs() == costs(profile=sim.profiles.shipped())
    with pytest.raises(sim.RoofcastError, match="no such file"):
        costs(profile=path.with_name("b.toml"))


def test_a_folder_is_of_the_sweep_that_was_asked_for(path: Path, tmp_path: Path) -> None:
    sim.sweep(path, out=tmp_path / "kept", top=3)
    again = sim.sweep(path, out=tmp_path / "kept", top=3)
    assert again.stored == again.plan.n_cells
    with pytest.raises(sim.RoofcastError, match="top: 3 there, 10 here"):
        sim.sweep(path, out=tmp_path / "kept")


def test_a_spec_is_taken_as_it_is(path: Path) -> None:
    found = sim.sweep(Spec("one", ("gpt-oss-20b",), ("h100",)), top=1)
    assert found.plan.n_cells == 1 and found.top.rows()[0]["model"] == "gpt-oss-20b"
