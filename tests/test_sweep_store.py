"""The folder of a sweep: the same bytes whatever was interrupted, and nothing of others is touched."""

from __future__ import annotations

import dataclasses
import errno
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
import pytest

from sim.errors import RoofcastError
from sim.report.sweep import speed_line
from sim.sweeps.manifest import manifest
from sim.sweeps.parts import Part
from sim.sweeps.run import cells_of, in_process, run
from sim.sweeps.store import Store, packed, unpacked
from sim.verbs import sweep as verb
from tests.sweeps import N_BLOCKS, content, parts_of, small_plan

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


def test_a_run_that_goes_on_neither_warms_nor_counts_what_is_stored(plan, parts, tmp_path, monkeypatch):
    asked: list[int] = []

    def evaluation(_plan, _keep):
        return lambda i, hint: asked.append(i) or (parts[i], None)

    monkeypatch.setattr(verb, "evaluation", evaluation)
    with Store(tmp_path / "out", manifest(plan)) as store:
        for i in range(3):
            store.write(i, parts[i])
    found = verb.sweep(plan.spec, out=tmp_path / "out")
    assert set(asked) == set(range(3, N_BLOCKS))
    assert found.stored == sum(cells_of(plan, i) for i in range(3))
    n = plan.n_cells - found.stored
    line = speed_line(dataclasses.replace(found, seconds=0.5))
    assert f"{n:,} of them computed now, in 500 ms, {n / 500:.2f} k/s" in line
    asked.clear()
    again = verb.sweep(plan.spec, out=tmp_path / "out")
    assert asked == [] and (again.stored, again.compile_s) == (plan.n_cells, 0.0)
    assert speed_line(again) == "2,048 configurations of 16 deployments, all of which were stored"
    for name in ("best", "top", "front"):
        assert getattr(again, name).rows() == getattr(found, name).rows()


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
        told_before = bool(had) and len(had) < N_BLOCKS  # what is stored, so that it counts in no rate
        assert len(told) == N_BLOCKS - len(had) + told_before
        assert not told_before or told[0][1] == sum(cells_of(plan, i) for i in had)
        if told:
            assert told[-1] == ("configurations", plan.n_cells, plan.n_cells)
    assert sum(cells_of(plan, i) for i in range(N_BLOCKS)) == plan.n_cells


KILLED = """
import pickle, sys, time
from pathlib import Path
from sim.sweeps.run import in_process, run
from sim.sweeps.store import Store
plan, parts, manifest, out = pickle.loads(Path(sys.argv[1]).read_bytes())
def evaluate(i, hint):
    time.sleep(0.1)
    return parts[i], b"x" * 4_000_000
with Store(out, manifest) as store:
    run(plan, in_process(evaluate), store)
"""


def test_kill_9_loses_the_block_it_was_at_and_leaves_no_part_of_a_file(plan, parts, whole, tmp_path):
    out, job = tmp_path / "out", tmp_path / "job"
    job.write_bytes(pickle.dumps((plan, parts, manifest(plan, keep="all"), str(out))))
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(job)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while len(list(out.glob("parts/block-*"))) < 3 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (out / "cells" / ".block-000007.parquet.1").write_bytes(b"a part of")
    with Store(out, manifest(plan, keep="all")) as store:
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
    with Store(out, manifest(plan, keep="all")) as store:
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
    with Store(out, manifest(plan, keep="all")) as store:
        assert packed(run(plan, of(parts), store)) == whole
