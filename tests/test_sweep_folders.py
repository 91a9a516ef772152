"""Folders that are not this sweep's, damaged files, the cells, and where compiled programs are kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from sim import profiles
from sim.errors import RoofcastError
from sim.sweeps import compiled
from sim.sweeps.cells import to_parquet
from sim.sweeps.manifest import manifest
from sim.sweeps.parts import empty
from sim.sweeps.store import Store
from tests.sweeps import content, small, small_plan

PART = empty(5, 2, 4)


@pytest.fixture(scope="module")
def plan():
    with pytest.MonkeyPatch.context() as patch:
        yield small_plan(patch)


def test_the_folder_of_another_sweep_is_left_alone(plan, tmp_path, monkeypatch):
    out, here = tmp_path / "out", manifest(plan)
    with Store(out, here) as store:
        store.write(0, PART)
    before = content(out)
    other = small_plan(monkeypatch, small(prompt_tokens=(128, 512, 2048, 4096)))
    bare = manifest(small_plan(monkeypatch, small(profile=profiles.PRIORS)))
    cases = [
        (manifest(other), r"prompt_tokens: \[128, 512, 2048, 8192\] there, \[128, 512, 2048, 4096\] here"),
        (here | {"versions": here["versions"] | {"jax": "0.0.1"}}, r"jax: '.*' there, '0\.0\.1' here"),
        (here | {"catalogue_sha256": "0"}, "the catalogue has changed"),
        (here | {"code_sha256": "0"}, "the code has changed"),
        (here | {"platform": "tpu"}, "platform: 'cpu' there, 'tpu' here"),
        (here | {"seed": 7}, "seed: 0 there, 7 here"),
        (manifest(plan, keep="all"), "keep: 'front' there, 'all' here"),
        (bare, "profile: .* there, none here, of other content"),
    ]
    for asked, said in cases:
        with pytest.raises(RoofcastError, match=said) as error:
            Store(out, asked)
        assert "holds another sweep" in str(error.value) and "nothing was changed" in str(error.value)
        assert content(out) == before


def test_another_comment_in_the_file_is_the_same_sweep(plan, tmp_path):
    file = tmp_path / "sweep.toml"
    made = []
    for text in ("# one\n", "# two\n"):
        file.write_text(text)
        made.append(manifest(plan, file=file))
        Store(tmp_path / "out", made[-1]).close()
    assert made[0]["sweep_file"] != made[1]["sweep_file"]
    kept = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert kept == made[0]
    assert {"sweep", "versions", "profile", "profile_sha256", "catalogue_sha256", "n_blocks", "seed", "created"} < {
        *kept
    }
    assert {"roofcast", "jax", "jaxlib", "numpy"} < {*kept["versions"]}


def test_what_is_no_folder_of_a_sweep_is_left_alone(plan, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(RoofcastError, match="the folder is not empty and holds no sweep; hint: nothing was changed"):
        Store(foreign, manifest(plan))
    assert content(foreign) == {"thesis.txt": b"mine"} and not (foreign / "parts").exists()
    with pytest.raises(RoofcastError, match="no folder can be made: File exists; hint: name another folder"):
        Store(foreign / "thesis.txt", manifest(plan))
    with pytest.raises(RoofcastError, match="no folder can be made: No such file or directory; hint: mkdir -p"):
        Store(tmp_path / "no" / "such", manifest(plan))
    with pytest.raises(RoofcastError, match="no folder can be made: embedded null byte"):
        Store("a\0b", manifest(plan))
    (foreign / "thesis.txt").unlink()
    for text in ("{", "[]"):
        (foreign / "manifest.json").write_text(text)
        with pytest.raises(RoofcastError, match=r"manifest\.json cannot be read"):
            Store(foreign, manifest(plan))


def test_one_run_at_a_time_has_the_folder(plan, tmp_path):
    said = "another run is writing to this folder"
    with Store(tmp_path / "out", manifest(plan)), pytest.raises(RoofcastError, match=said):
        Store(tmp_path / "out", manifest(plan))
    Store(tmp_path / "out", manifest(plan)).close()


@pytest.mark.parametrize("damage", ["nothing", "half", "changed"])
def test_a_damaged_part_is_named(plan, tmp_path, damage):
    with Store(tmp_path / "out", manifest(plan)) as store:
        store.write(0, PART)
        path = tmp_path / "out" / "parts" / "block-000000.npz"
        good = path.read_bytes()
        bad = {"nothing": b"", "half": good[: len(good) // 2], "changed": good[:200] + b"x" + good[201:]}
        path.write_bytes(bad[damage])
        with pytest.raises(RoofcastError, match=r"cannot be read .*; hint: remove it, and the same command computes"):
            store.read(0)


@pytest.mark.parametrize("damage", ["another block's", "another sweep's", "another shape", "one value"])
def test_a_part_that_is_not_what_was_written_is_named(plan, tmp_path, damage):
    with Store(tmp_path / "out", manifest(plan)) as store:
        store.write(0, PART)
        store.write(1, PART)
        path, next_one = (tmp_path / "out" / "parts" / f"block-{i:06d}.npz" for i in range(2))
        arrays = dict(np.load(path))
        if damage == "another block's":
            path.write_bytes(next_one.read_bytes())
        elif damage == "another sweep's":
            with Store(tmp_path / "other", manifest(plan, seed=1)) as other:
                other.write(0, PART)
            path.write_bytes((tmp_path / "other" / "parts" / "block-000000.npz").read_bytes())
        else:
            first = arrays["first"][:1] if damage == "another shape" else arrays["first"] + 1
            np.savez(path, **arrays | {"first": first})
        with pytest.raises(RoofcastError, match=r"000000.npz: cannot be read .it is not what was written"):
            store.read(0)
        assert store.read(1).n_cells == PART.n_cells


def test_blocks_whose_cells_are_gone_are_computed_again(plan, tmp_path):
    with Store(tmp_path / "out", manifest(plan, keep="all")) as store:
        for i in range(3):
            store.write(i, PART, b"cells")
    first, second, _ = sorted((tmp_path / "out" / "cells").iterdir())
    first.unlink()
    second.write_bytes(b"cell")
    with Store(tmp_path / "out", manifest(plan, keep="all")) as store:
        assert store.done == {1, 2} and store.read(2).n_cells == PART.n_cells
        with pytest.raises(RoofcastError, match=r"000001.parquet: cannot be read .its length .*hint: remove"):
            store.read(1)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"'])
def test_a_manifest_that_is_none_is_a_sentence(plan, tmp_path, text):
    Store(tmp_path / "out", manifest(plan)).close()
    (tmp_path / "out" / "manifest.json").write_text(text)
    said = r"manifest.json cannot be read .it is no table of names and values.; hint: name another folder"
    with pytest.raises(RoofcastError, match=said):
        Store(tmp_path / "out", manifest(plan))


UNITS = {"model": "", "tp": "1", "gpu_memory_utilization": "1", "ttft_s": "s"}


def columns(i: int) -> dict[str, np.ndarray]:
    """Three cells; in the second block nothing is stated."""
    stated = i == 0
    return {
        "model": np.array(["a", "b", "a"], object),
        "tp": np.array([1, None, 2] if stated else [None] * 3, object),
        "gpu_memory_utilization": np.array([0.9, None, 1] if stated else [None] * 3, object),
        "ttft_s": np.float32([0.1, np.nan, 3]) + i,
    }


def test_cells_are_one_dataset_with_units(plan, tmp_path):
    with Store(tmp_path / "out", manifest(plan, keep="all")) as store:
        for i in range(2):
            store.write(i, PART, to_parquet(columns(i), UNITS))
            assert to_parquet(columns(i), UNITS) == to_parquet(columns(i), UNITS)
    (tmp_path / "out" / "cells" / ".block-000002.parquet.1").write_bytes(b"a part of")
    found = pyarrow.dataset.dataset(tmp_path / "out" / "cells")
    types = {field.name: (field.type, field.metadata[b"unit"].decode()) for field in found.schema}
    assert types == {
        "model": (pa.string(), ""), "tp": (pa.int64(), "1"),
        "gpu_memory_utilization": (pa.float64(), "1"), "ttft_s": (pa.float32(), "s"),
    }  # fmt: skip
    table = found.to_table()
    assert table["tp"].to_pylist() == [1, None, 2, None, None, None]
    assert table["ttft_s"].to_numpy().tobytes() == np.concatenate([columns(i)["ttft_s"] for i in range(2)]).tobytes()
    schemas = {pyarrow.parquet.read_schema(path) for path in (tmp_path / "out" / "cells").glob("block-*")}
    assert len(schemas) == 1


@pytest.fixture
def no_cache() -> Iterator[None]:
    """JAX without a compilation cache."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("no_cache")
def test_compiled_programs_are_kept_where_caches_belong(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert re.fullmatch(re.escape(str(tmp_path)) + r"/roofcast/jax-[0-9a-f]{8}", str(compiled.cache_dir()))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert compiled.cache_dir().parts[:-1] == (tmp_path / "home" / ".cache" / "roofcast").parts
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compiled.keep_compiled() is None and not jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", "/stated")
    assert compiled.keep_compiled() == Path("/stated")
