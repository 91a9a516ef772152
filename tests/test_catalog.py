"""The catalogue: every row parses, is plausible and has its sources; user rows are included; prices are the newest."""

from __future__ import annotations

import pytest

import sim
from sim import catalog
from sim.catalog.lookup import fold, labels
from sim.errors import RoofcastError
from sim.units import GB

USER_MODEL = """
[[model]]
id = "{id}"
name = "House Model 1B"
hidden_size = 64
vocab_size = 128
tie_word_embeddings = true
norms_per_layer = 2
max_context_tokens = 4096
layers = [{{ attention = "full", ffn = "dense", count = {count} }}]
native_format = {{ routed_experts = "bf16", other = "bf16", embeddings = "bf16" }}
sources = ["config.json"]
confidence = "derived"
[model.attention.full]
type = "gqa"
n_heads = 4
n_kv_heads = 2
head_dim = 16
[model.ffn.dense]
type = "glu"
intermediate_size = 128
"""


@pytest.fixture
def small_catalog(tmp_path, monkeypatch):
    """A catalogue of one shipped model, "house-1b", and the path of the user's model directory."""
    shipped, home = tmp_path / "shipped", tmp_path / "home"
    (shipped / "models").mkdir(parents=True)
    (home / "models").mkdir(parents=True)
    (shipped / "models" / "house.toml").write_text(USER_MODEL.format(id="house-1b", count=2))
    monkeypatch.setattr(catalog, "_HERE", shipped)
    monkeypatch.setenv("ROOFCAST_HOME", str(home))
    catalog.reload()
    yield home / "models"
    catalog.reload()


def test_every_row_parses():
    assert len(catalog.devices()) == 73
    assert len(catalog.systems()) == 12
    assert len(catalog.hosts()) == 5
    assert len(catalog.prices()) > 80


def test_ids_and_aliases_name_one_row():
    owner: dict[str, str] = {}
    for row in (*catalog.devices().values(), *catalog.systems().values()):
        for label in labels(row):
            assert owner.setdefault(fold(label), row.id) == row.id, label


def test_a_count_of_devices_names_one_system():
    pairs = [(system.device, system.n_devices) for system in catalog.systems().values()]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("system", catalog.systems().values(), ids=lambda system: system.id)
def test_systems_name_known_devices_and_their_nodes(system):
    machine = catalog.machine(system.id)
    assert machine.system == system
    assert (machine.device.id, machine.n_devices, machine.nodes) == (system.device, system.n_devices, system.nodes)
    assert machine.link == system.link


def test_nodes_follow_from_the_domain_of_the_link():
    machine = catalog.machine("20x h100")
    assert (machine.nodes, machine.scale_out_gb_per_s) == (3, 50)
    assert catalog.machine("16x h100").system.id == "16x-h100-ib"
    assert catalog.machine("144x gb200").nodes == 2


def test_a_known_system_lends_its_link():
    assert catalog.machine("4x RTX 5090").link == catalog.systems()["4x-rtx-5090"].link
    assert catalog.machine("3x RTX 5090").link == catalog.devices()["rtx-5090"].link
    assert not catalog.machine("2x RTX 4090").link.p2p


def test_memory_option_carries_bytes_fraction_and_price():
    small, large = catalog.machine("m4-pro-24gb").device, catalog.machine("m4-pro-64gb").device
    assert (small.memory_bytes, large.memory_bytes) == (24 * 2**30, 64 * 2**30)
    assert (small.default_usable_frac, large.default_usable_frac) == (0.667, 0.75)
    prices = [catalog.machine(f"m5-ultra-{size}gb").device.price_usd for size in (96, 256, 512)]
    assert prices == [5499, 9499, None]


def test_machines_that_only_the_guide_names_say_so_and_name_the_nearest():
    guide = [device for device in catalog.devices().values() if device.status == "guide"]
    assert {device.id for device in guide} == {"m3-ultra-192gb", "m4-ultra"}
    for device in guide:
        assert catalog.machine(device.nearest).device.status == "exists"
        assert "never sold" in catalog.machine(device.id).notes[0]


@pytest.mark.parametrize(
    ("machine", "joined"),
    [
        ("8x-h100", "NVLink4, NVSwitch"),
        ("16x-h100", "NVLink4, NVSwitch, 2 nodes at 50 GB/s a device each way between them"),
    ],
)
def test_what_joins_the_nodes_is_told_where_there_are_several(machine: str, joined: str) -> None:
    told = sim.estimate("gpt-oss-120b", machine).provenance
    assert f"hardware: {machine.partition('x')[0]} x NVIDIA H100 SXM 80GB over {joined}" in told


def test_an_unnamed_memory_size_is_noted():
    assert "took 512 GB" in catalog.machine("m3-ultra").notes[0]
    assert catalog.machine("m3-ultra-96gb").notes == ()


@pytest.mark.parametrize("device", catalog.devices().values(), ids=lambda device: device.id)
def test_devices_are_physically_plausible(device):
    assert 50 <= device.bandwidth_gb_per_s <= 10_000
    assert device.memory_bytes == pytest.approx(device.memory_gb * GB, rel=0.15)
    peak = device.peak_tflops
    assert peak["fp16"] <= peak.get("fp8", peak["fp16"]) <= peak.get("fp4", 1e9)
    assert peak.get("fp32", 0) <= peak["fp16"]
    assert 0 < device.idle_w < 0.25 * device.tdp_w
    assert device.link.gb_per_s <= 900
    assert device.host is None or device.host in catalog.hosts()
    assert (device.kind == "unified") == (device.pcie_gb_per_s is None and device.family != "tpu")
    assert (device.price_usd is None) == (device.price_date is None)


@pytest.mark.parametrize("row", [*catalog.devices().values(), *catalog.systems().values()], ids=lambda row: row.id)
def test_every_figure_has_a_source_and_a_confidence(row):
    fields = type(row).model_fields
    assert set(row.sources) == set(row.confidence) <= set(fields)
    figures = ["memory_bytes", "bandwidth_gb_per_s", "peak_tflops", "link", "tdp_w", "idle_w", "price_usd"]
    needed = {field for field in (*figures, "max_power_w", "scale_out_gb_per_s") if getattr(row, field, None)}
    assert needed <= set(row.sources)


def test_newest_dated_set_gives_the_price():
    quote = catalog.price_per_hour("h100-sxm")
    assert (quote.date, quote.n) == ("2026-09-25", 4)
    assert (quote.low, quote.median, quote.high) == (3.49, pytest.approx(4.35), 4.5)
    assert "undated" in catalog.price_per_hour("rtx-4090").date
    assert catalog.price_per_hour("m1") is None


def test_prices_name_known_devices():
    assert {price.device for price in catalog.prices()} <= set(catalog.devices())


def test_user_rows_are_included(small_catalog):
    (small_catalog / "mine.toml").write_text(USER_MODEL.format(id="my-model", count=3))
    assert list(catalog.models()) == ["house-1b", "my-model"]
    assert catalog.model("My Model").layers[0].count == 3


def test_user_row_may_not_take_a_shipped_id(small_catalog):
    (small_catalog / "mine.toml").write_text(USER_MODEL.format(id="house-1b", count=3))
    with pytest.raises(RoofcastError, match=r'mine\.toml: the id "house-1b" is .* hint: .* "my-house-1b"'):
        catalog.models()


def test_user_ids_are_unique(small_catalog):
    for file in ("a.toml", "b.toml"):
        (small_catalog / file).write_text(USER_MODEL.format(id="mine", count=3))
    with pytest.raises(RoofcastError, match=r'b\.toml: the id "mine" is already taken; hint: the first is in a\.toml'):
        catalog.models()


def test_bad_rows_are_all_named(small_catalog):
    (small_catalog / "bad.toml").write_text(USER_MODEL.format(id="mine", count=0) + "colour = 3\n")
    with pytest.raises(RoofcastError) as caught:
        catalog.models()
    assert len(caught.value.problems) == 2
    assert "bad.toml: model mine: layers.0.count: input should be greater than 0" in caught.value.problems
    assert any("bad.toml: model mine: ffn.dense.glu.colour: extra" in said for said in caught.value.problems)


@pytest.mark.parametrize("text, said", [("[model", "not readable as TOML"), ("model = 3", "expected tables")])
def test_files_that_are_no_catalogue(small_catalog, text, said):
    (small_catalog / "bad.toml").write_text(text)
    with pytest.raises(RoofcastError, match=said):
        catalog.models()


def test_an_unknown_model_is_answered_with_the_nearest(small_catalog):
    with pytest.raises(RoofcastError, match="did you mean house-1b"):
        catalog.model("hose-1b")
    assert catalog.model("House Model").id == "house-1b"


def test_a_beginning_never_ends_inside_a_version(small_catalog):
    (small_catalog / "mine.toml").write_text(USER_MODEL.format(id="kin-k2.6-27b", count=3))
    assert catalog.model("Kin K2.6-27").id == "kin-k2.6-27b"
    for name in ("Kin K2", "Kin K2.6-2", "Kin K2.6"):
        with pytest.raises(RoofcastError, match=r"did you mean kin-k2\.6-27b"):
            catalog.model(name)
