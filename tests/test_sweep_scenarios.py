"""The shipped sweeps run as they are and answer what their files say; the searched decision matrix is the code's."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from sim import catalog
from sim.formats import weight_bytes, weight_plan
from sim.guide import matrix
from sim.guide.matrix_report import row_of
from sim.params import count
from sim.sweeps.file import load_sweep
from sim.sweeps.plan import plan
from sim.sweeps.spec import Spec
from sim.verbs.sweep import Sweep, sweep

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "scenarios" / "sweeps"
DOCUMENT = ROOT / "docs" / "decision-matrix.md"
GUIDE = ROOT.parent / "shared" / "guide" / "sizing-guide.txt"
FILES = sorted(path.stem for path in FOLDER.glob("*.toml"))
MOE, DENSE = "qwen3.5-122b-a10b", "mistral-large-2-123b"


@pytest.fixture(autouse=True)
def _ranks_may_differ():
    with jax.numpy_rank_promotion("allow"):
        yield


@cache
def swept(stem: str) -> Sweep:
    """A shipped sweep, run once."""
    return sweep(FOLDER / f"{stem}.toml")


def costs(stem: str, model: str) -> np.ndarray:
    """Lowest USD per million output tokens of a model at each concurrency, in order."""
    rows = [r for r in swept(stem).best.rows() if r["objective"] == "usd_per_mtok" and r["model"] == model]
    return np.array([row["usd_per_mtok"] for row in sorted(rows, key=lambda row: row["concurrency"])])


@pytest.mark.parametrize("stem", FILES)
def test_reads_well_and_names_are_the_catalogue_s(stem):
    lines = (FOLDER / f"{stem}.toml").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60 and max(map(len, lines)) <= 120 and lines[0].startswith("# ")
    assert any("Guide" in line for line in lines if line.startswith("#"))
    spec = load_sweep(FOLDER / f"{stem}.toml")
    assert [catalog.model(name).id for name in spec.model] == list(spec.model)
    assert plan(spec).n_cells > 50


@pytest.mark.parametrize("stem", FILES)
def test_answers_within_its_limits(stem):
    answer = swept(stem)
    spec = answer.plan.spec
    assert {row["objective"] for row in answer.best.rows()} == set(spec.minimize)
    assert len(answer.top.rows()) == spec.top
    for row in (*answer.best.rows(), *answer.front.rows()):
        assert np.isfinite(row[spec.minimize[0]])
        assert all(row[name] <= limit for name, limit in spec.limits.items() if name != "user_tokens_per_s")
        assert row["user_tokens_per_s"] >= spec.limits.get("user_tokens_per_s", 0)


def test_equal_memory_and_the_moe_is_cheaper_at_every_number_of_users():
    sizes = [weight_bytes(count(row), weight_plan(row, "fp8")) for row in map(catalog.model, (MOE, DENSE))]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    moe, dense = (costs("moe-vs-dense-memory", name) for name in (MOE, DENSE))
    assert len(moe) == 10 and (moe[: len(dense)] < dense).all()


def test_equal_active_parameters_and_the_dense_model_is_cheaper_at_every_number_of_users():
    names = ("qwen3-30b-a3b", "qwen2.5-3b")
    active = [count(catalog.model(name)).active for name in names]
    assert active[0] == pytest.approx(active[1], rel=0.02)
    moe, dense = (costs("moe-vs-dense-active", name) for name in names)
    assert len(moe) == 9 and (dense[: len(moe)] < moe).all()


@pytest.mark.parametrize("stem", [stem for stem in FILES if stem.startswith("moe-vs-dense")])
def test_the_best_leave_no_users_in_a_queue(stem):
    for row in swept(stem).best.rows():
        assert row["running_sequences"] >= 0.95 * row["concurrency"], row


def test_many_users_take_more_replicas_rather_than_none():
    rows = [row for row in swept("current-models-over-users").best.rows() if row["objective"] == "usd_per_mtok"]
    small = {row["concurrency"]: row for row in rows if row["model"] == "gpt-oss-20b"}
    assert [small[n]["replicas"] for n in (256, 512, 1024)] == [2, 4, 8]
    assert small[1024]["usd_per_mtok"] <= small[128]["usd_per_mtok"] * (1 + 1e-6)
    assert swept("current-models-over-users").plan.spec.pay == "rent"


def test_every_shipped_sweep_is_told():
    text = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    assert all(f"`scenarios/sweeps/{stem}.toml`" in text for stem in FILES)


def test_equal_price_is_within_six_percent():
    rows = swept("moe-vs-dense-price").best.rows()
    paid = {row["usd_per_hour"] for row in rows}
    assert len(paid) > 1 and max(paid) < 1.06 * min(paid)


def test_apple_against_nvidia_has_both_and_long_prompts_take_cards():
    rows = [row for row in swept("apple-vs-nvidia").best.rows() if row["objective"] == "usd_per_hour"]
    vendors = [catalog.machine(row["hardware"]).device.vendor for row in rows]
    assert set(vendors) == {"Apple", "NVIDIA"}
    longest = {vendor for row, vendor in zip(rows, vendors, strict=True) if row["prompt_tokens"] > 100_000}
    assert longest == {"NVIDIA"}


def test_clusters_hold_what_the_guide_s_check_found():
    rows = swept("guide-clusters").best.rows()
    held = {(row["model"], row["hardware"]) for row in rows}
    assert ("deepseek-v4-flash", "4x-h100") in held and ("deepseek-v4-pro", "4x-h100") not in held


def test_situations_are_the_guide_s_rows():
    found = matrix.situations()
    assert [one.line for one in found] == list(range(128, 142)) and all(matrix.picks_of(one.line) for one in found)
    if not GUIDE.exists():
        pytest.skip(f"the sizing guide is not beside this checkout: {GUIDE}")
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    assert all(lines[one.line - 1].startswith("| ") and lines[one.line - 1].count("|") == 4 for one in found)
    assert lines[found[0].line - 2].startswith("|---") and not lines[found[-1].line].startswith("|")


def test_document_has_what_is_searched_now():
    text = DOCUMENT.read_text(encoding="utf-8")
    situation = next(one for one in matrix.situations() if one.line == 133)
    found = matrix.search(situation)
    assert found.found is not None and found.found.cost <= min(pick.cost for pick in found.picks)
    assert "| " + " | ".join(row_of(found)) + " |" in text
    assert all(one.title in text for one in matrix.situations())


def test_own_and_given_prices_stand_in_one_table():
    spec = Spec(
        name="prices", model=("qwen3-8b",), hardware=("h100", "rtx-4090"), usd_per_gpu_hour=(None, 1.0),
        by=("hardware", "usd_per_gpu_hour"), minimize=("usd_per_hour",),
    )  # fmt: skip
    found = sweep(spec)
    told = [row["usd_per_hour"] for row in found.best.rows()]
    np.testing.assert_allclose(told, found.part.best[0], rtol=2e-6)
    assert told[1] == told[3] == 1.0 and len(set(told)) == 3
