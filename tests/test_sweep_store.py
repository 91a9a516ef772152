"""The folder of a sweep: the same bytes whatever was interrupted, and nothing of others is touched."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from sim import profiles
from sim.errors import RoofcastError
from sim.sweep import compiled
from sim.sweep.cells import to_parquet
from sim.sweep.manifest import manifest
from sim.sweep.parts import Part
from sim.sweep.plan import Plan
from sim.sweep.run import cells_of, in_process, parts_of, run
from sim.sweep.store import Store, packed, unpacked
from tests.sweeps import N_BLOCKS, small, small_plan

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def plan():
    with pytest.MonkeyPatch.context() as patch:
        yield small_plan(patch)


@pytest.fixture(scope="module")
def parts(plan):
    """The part of each block."""
    with jax.numpy_rank_promotion("allow"):
        evaluate = parts_of(plan)
        return [evaluate(i, None)[0] for i in range(N_BLOCKS)]


@pytest.fixture(scope="module")
def whole(plan, parts):
    return packed(run(plan, of(parts)))


def of(parts: list[Part], noted: list[int] | None = None, stop_at: int = -1, cells: bytes | None = None):
    """A source that has computed all before, and notes what it is asked."""

    def evaluate(i, _hint):
        if i == stop_at:
            raise KeyboardInterrupt
        if noted is not None:
            noted.append(i)
        return parts[i], cells

    return in_process(evaluate)


def content(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_parts_come_back_bit_for_bit(parts):
    part = parts[0]
    odd = dataclasses.replace(part, top=np.float32([-0.0, np.inf, np.nan]), top_index=np.int64([-1, 2**40, 0]))
    for one in (part, odd):
        back = unpacked(packed(one))
        assert packed(back) == packed(one)
        for name, value in vars(one).items():
            found = getattr(back, name)
            assert type(found) is type(value)
            assert np.asarray(found).dtype == np.asarray(value).dtype
            assert np.asarray(found).tobytes() == np.asarray(value).tobytes()


@pytest.mark.parametrize("stop_at", range(N_BLOCKS))
def test_an_interrupted_sweep_goes_on_with_the_blocks_that_lack(plan, parts, whole, tmp_path, stop_at):
    out = tmp_path / "out"
    with Store(out, manifest(plan)) as store, pytest.raises(KeyboardInterrupt) as stopped:
        run(plan, of(parts, stop_at=stop_at), store)
    told = str(stopped.value)
    assert re.fullmatch(rf"{stop_at} of {N_BLOCKS} blocks are in /.*: the same command goes on from there", told)
    noted: list[int] = []
    with Store(out, manifest(plan)) as store:
        assert packed(run(plan, of(parts, noted), store)) == whole
    assert noted == list(range(stop_at, N_BLOCKS))
    with Store(out, manifest(plan)) as store:
        assert packed(run(plan, of([]), store)) == whole


def test_any_order_and_any_stored_blocks_give_the_same_bytes(plan, parts, whole, tmp_path):
    rng = random.Random(0)
    for case in range(20):
        with Store(tmp_path / str(case), manifest(plan)) as store:
            for i in rng.sample(range(N_BLOCKS), rng.randrange(N_BLOCKS)):
                store.write(i, parts[i])
            had = set(store.done)
        mixed = rng.sample(range(N_BLOCKS), N_BLOCKS)

        def source(todo, known, mixed=mixed):
            wanted = set(todo)
            for i in (i for i in mixed if i in wanted):
                known()
                yield i, parts[i], None

        told: list[tuple[str, int, int]] = []
        with Store(tmp_path / str(case), manifest(plan)) as store:
            assert packed(run(plan, source, store, lambda *line, told=told: told.append(line))) == whole
            assert store.done == set(range(N_BLOCKS))
        assert len(told) == N_BLOCKS - len(had)
        if told:
            assert told[-1] == ("configurations", plan.n_cells, plan.n_cells)
    assert sum(cells_of(plan, i) for i in range(N_BLOCKS)) == plan.n_cells


KILLED = """
import pickle, sys, time
from pathlib import Path
from sim.sweep.run import in_process, run
from sim.sweep.store import Store
plan, parts, manifest, out = pickle.loads(Path(sys.argv[1]).read_bytes())
def evaluate(i, hint):
    time.sleep(0.1)
    return parts[i], b"x" * 4_000_000
with Store(out, manifest) as store:
    run(plan, in_process(evaluate), store)
"""


def test_kill_9_loses_the_block_it_was_at_and_leaves_no_part_of_a_file(plan, parts, whole, tmp_path):
    out, job = tmp_path / "out", tmp_path / "job"
    job.write_bytes(pickle.dumps((plan, parts, manifest(plan), str(out))))
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(job)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while len(list(out.glob("parts/block-*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (out / "cells" / ".block-000007.parquet.1").write_bytes(b"a part of")
    with Store(out, manifest(plan)) as store:
        done = set(store.done)
        assert 3 <= len(done) < N_BLOCKS and done == set(range(len(done)))
        for i in done:
            assert packed(store.read(i)) == packed(parts[i])
            assert len((out / "cells" / f"block-{i:06d}.parquet").read_bytes()) == 4_000_000
        noted: list[int] = []
        assert packed(run(plan, of(parts, noted), store)) == whole
    assert noted == list(range(len(done), N_BLOCKS))
    assert not [name for name in content(out) if "/." in name or name.startswith(".")]


def full_disk(monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    return monkeypatch.undo


def bounded_files(monkeypatch):
    """The kernel stops the write in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stop, said", [(full_disk, "No space left on device"), (bounded_files, "File too large")])
def test_a_full_disk_is_a_sentence_and_the_sweep_goes_on_later(plan, parts, whole, tmp_path, monkeypatch, stop, said):
    out = tmp_path / "out"
    with Store(out, manifest(plan)) as store:
        store.write(0, parts[0], b"x" * 100)
        go_on = stop(monkeypatch)
        try:
            with pytest.raises(RoofcastError) as error:
                run(plan, of(parts, cells=b"x" * 9000), store)
        finally:
            go_on()
    text = str(error.value)
    assert "\n" not in text and f"cannot be written: {said}; 1 of {N_BLOCKS} blocks are in" in text
    assert sorted(content(out)) == ["cells/block-000000.parquet", "manifest.json", "parts/block-000000.npz"]
    with Store(out, manifest(plan)) as store:
        assert packed(run(plan, of(parts), store)) == whole


def changed(plan: Plan, **changes) -> dict:
    """The manifest of another sweep or another installation."""
    return manifest(plan) | changes


def test_the_folder_of_another_sweep_is_left_alone(plan, parts, tmp_path, monkeypatch):
    out, here = tmp_path / "out", manifest(plan)
    with Store(out, here) as store:
        run(plan, of(parts), store)
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
def test_a_damaged_part_is_named(plan, parts, tmp_path, damage):
    with Store(tmp_path / "out", manifest(plan)) as store:
        store.write(0, parts[0])
        path = tmp_path / "out" / "parts" / "block-000000.npz"
        good = path.read_bytes()
        bad = {"nothing": b"", "half": good[: len(good) // 2], "changed": good[:200] + b"x" + good[201:]}
        path.write_bytes(bad[damage])
        with pytest.raises(RoofcastError, match=r"cannot be read .*; hint: remove it, and the same command computes"):
            run(plan, of(parts), store)


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


def test_cells_are_one_dataset_with_units(plan, parts, tmp_path):
    with Store(tmp_path / "out", manifest(plan, keep="all")) as store:
        for i in range(2):
            store.write(i, parts[i], to_parquet(columns(i), UNITS))
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
    try:
        assert compiled.keep_compiled() == Path("/stated")
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
