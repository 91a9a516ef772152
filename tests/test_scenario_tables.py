"""A scenario's tables as a mapping, in place of its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import RoofcastError
from tests.test_simulate import DEPLOYMENT, ONE, scenario


def test_tables_stand_for_a_file(tmp_path: Path) -> None:
    """The same answer, the same sentences, for all verbs on scenarios."""
    tables = {"name": "A test", "traffic": ONE, "deployment": [DEPLOYMENT], "objectives": {"ttft_p99_s": "1s"}}
    path = scenario(tmp_path / "x.toml", ONE, objectives=tables["objectives"])
    for verb in (sim.simulate, sim.capacity, sim.run):
        found, expected = (verb(source).summary for source in (tables, path))
        assert found.rows() == expected.rows() and found.provenance == expected.provenance
    level = {**ONE, "requests_per_s": np.array([4.0])}
    assert sim.simulate({**tables, "traffic": level}).summary.rows() == sim.simulate(path).summary.rows()
    assert len(sim.simulate_many(tables)) == 1
    for change, wrong in (
        ({"traffic": {**ONE, "n_request": 3}}, {"n_request": "unknown key"}),
        ({"deployment": [{**DEPLOYMENT, "model": "lama-3.1-8b"}]}, {"model": "no model is called"}),
        ({"deployment": [{**DEPLOYMENT, "tp": 3}]}, {"deployment": "tp = 3"}),
        ({"traffic": None}, {"traffic": ""}), ({"deployment": 3}, {"deployment": "expected a list"}),
    ):  # fmt: skip
        for verb in (sim.simulate, sim.capacity):
            with pytest.raises(RoofcastError) as error:
                verb({key: value for key, value in {**tables, **change}.items() if value is not None})
            (place, said), told = *wrong.items(), error.value.problems
            assert all(text.startswith("scenario: ") for text in told)
            assert any(place in text and said in text for text in told), told


@pytest.mark.parametrize("several", [None, 3])
def test_what_is_no_list_of_scenarios_is_a_sentence(several: Any) -> None:
    with pytest.raises(RoofcastError, match="scenarios: expected a list of scenarios, found"):
        sim.simulate_many(several)
