"""An output of one token has no time per output token: nothing ranks by it, and no limit of it is missed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import sim
from sim.sweeps.plan import plan
from sim.sweeps.sensitivity import FIGURES, sensitivities
from sim.sweeps.spec import Spec

ABSENT = ("tpot_s", "itl_s", "user_tokens_per_s")
SPEC = Spec("answers of one token beside longer ones", model=("qwen3-8b", "llama-3.1-8b"), hardware=("h100-sxm",),
            output_tokens=(1, 2, 100), concurrency=(1, 64), by=("output_tokens",))  # fmt: skip


@pytest.fixture(autouse=True)
def broadcasting() -> Iterator[None]:
    """The sweep's kernels rely on broadcasting between ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_an_estimate_of_one_token_has_no_tpot() -> None:
    found = sim.estimate("qwen3-8b", "h100-sxm", output=[1, 2], interval=0.8)
    for name in (*ABSENT, "tpot_low_s", "user_high_tokens_per_s"):
        assert np.isnan(found[name]).tolist() == [True, False], name
    assert np.isfinite(found["e2e_s"]).all() and found["fits"].all() and (found["usd_per_mtok"] > 0).all()
    recommended = sim.recommend(users=1, models=["qwen3-8b"], hardware=["h100-sxm"], output=1, tpot_s=1e-6)
    assert len(recommended.rows()) and np.isnan(recommended["tpot_s"]).all()


def test_it_is_in_no_ranking_by_tpot_and_in_no_front_with_it() -> None:
    found = sim.sweep(SPEC)
    best = [(row["objective"], row["output_tokens"]) for row in found.best.rows()]
    assert sorted(best) == [("tpot_s", 2), ("tpot_s", 100), *[("usd_per_mtok", n) for n in (1, 2, 100)]]
    assert 1 not in found.front["output_tokens"] and len(found.front.rows()) > 1
    (alone,) = (row for row in found.best.rows() if row["output_tokens"] == 1)
    assert alone["tpot_s"] is None and alone["ttft_s"] > 0
    without = sim.sweep(Spec(**{**vars(SPEC), "minimize": ("e2e_s", "usd_per_mtok")}))
    assert 1 in without.front["output_tokens"]


@pytest.mark.parametrize("limit", [{"tpot_s": 1e-9}, {"user_tokens_per_s": 1e9}])
def test_limits_of_tpot_say_nothing_against_it(limit: dict[str, float]) -> None:
    found = sim.sweep(Spec(**{**vars(SPEC), "limits": limit}))
    assert set(found.top["output_tokens"].tolist()) == {1} and len(found.top.rows()) == 4
    (reason,) = (row for row in found.failures.rows() if row["cells"])
    assert (reason["reason"], reason["cells"]) == (*limit, 8)


def test_elasticities_of_it_are_absent() -> None:
    found = sensitivities(plan(SPEC), np.arange(6))  # of one deployment: 1, 1, 2, 2, 100, 100 tokens
    for name in FIGURES:
        one = np.isnan(found[f"{name}_elasticity"]) & (found["parameter"] == "bandwidth")
        assert one.sum() == (2 if name == "tpot_s" else 0), name


def test_a_scenario_of_one_token_misses_no_tpot(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("""name = "x"
[workload]
prompt_tokens = 500
output_tokens = 1
concurrency = [1, 8]
[objectives]
tpot_s = "1us"
[[deployment]]
model = "qwen3-8b"
hardware = "h100-sxm"
""")
    assert sim.run(path).summary["verdict"].tolist() == ["yes, at every level up to 8"]
