"""Sweeps on a cluster of worker processes: the same bytes as in one process, whoever dies."""

from __future__ import annotations

import functools
import os
import sys
import types
from collections import Counter

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from sim.errors import RoofcastError
from sim.sweeps import cluster as clusters
from sim.sweeps import manifest
from sim.sweeps.cluster import cluster
from sim.sweeps.compiled import keep_compiled
from sim.sweeps.run import in_process, run
from sim.sweeps.store import Store, packed
from sim.verbs.sweep import sweep
from tests.sweeps import N_BLOCKS, begun, deadly, noted, parts_of, small_plan

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed", reason="the extra roofcast[cluster] is not installed")


@pytest.fixture(scope="module")
def monkey():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(autouse=True, scope="module")
def ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def plan(monkey):
    return small_plan(monkey)


@pytest.fixture(scope="module")
def compiled(monkey, tmp_path_factory):
    """Where this process and its workers keep compiled programs."""
    monkey.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    jax.clear_caches()  # so that this process compiles into the folder what other tests have compiled before
    before = jax.config.jax_compilation_cache_dir  # that of the user's home, which other tests write to as well
    jax.config.update("jax_compilation_cache_dir", None)
    yield keep_compiled()
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def whole(plan, compiled):
    """The sweep of one process."""
    return packed(run(plan, in_process(parts_of(plan))))


@pytest.fixture(scope="module")
def address(compiled):
    """A scheduler with two workers, as one that somebody else has started."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as local:
        yield local.scheduler_address


def test_workers_give_the_bytes_of_one_process(plan, whole, address, compiled, tmp_path):
    had = set(compiled.glob("*-cache"))
    with cluster(address, plan, functools.partial(noted, tmp_path)) as source:
        assert packed(run(plan, source)) == whole
    assert Counter(begun(tmp_path)) == dict.fromkeys(range(N_BLOCKS), 1)
    pids = {line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}
    assert len(pids) == 2 and str(os.getpid()) not in pids
    assert had and set(compiled.glob("*-cache")) == had  # what this process has compiled, no worker compiles


def test_a_killed_worker_costs_only_its_block(plan, whole, address, tmp_path):
    with cluster(address, plan, functools.partial(deadly, tmp_path, 3, 1)) as source:
        assert packed(run(plan, source)) == whole
    assert Counter(begun(tmp_path)) == dict.fromkeys(range(N_BLOCKS), 1) | {3: 2}


def test_what_a_cluster_left_is_finished_by_one_process(plan, whole, address, tmp_path):
    class Enough(Exception):
        pass

    def stop(_what, done, of):
        if done >= of // 2:
            raise Enough

    with (
        Store(tmp_path / "out", manifest.manifest(plan)) as store,
        pytest.raises(Enough),
        cluster(address, plan, parts_of) as source,
    ):
        run(plan, source, store, stop)
    done = set(store.done)
    assert len(done) == N_BLOCKS // 2
    with Store(tmp_path / "out", manifest.manifest(plan)) as store:
        assert packed(run(plan, in_process(noted(tmp_path, plan)), store)) == whole
    assert set(begun(tmp_path)) == set(range(N_BLOCKS)) - done


def test_a_block_that_kills_every_worker_ends_in_a_sentence(plan, compiled, tmp_path):
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(RoofcastError, match=r"cluster: one worker after another died, the last with block \d; hint: "),
        cluster(1, plan, functools.partial(deadly, tmp_path, 0, 99)) as source,
    ):
        run(plan, source)


def test_a_scheduler_that_goes_is_a_sentence(plan, compiled, tmp_path):
    workers = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
    )
    with (
        Store(tmp_path / "out", manifest.manifest(plan)) as store,
        pytest.raises(RoofcastError, match="cluster: the scheduler is gone; hint: start it"),
        workers as local,
        cluster(local.scheduler_address, plan, functools.partial(noted, tmp_path)) as source,
    ):
        run(plan, source, store, lambda *_: local.close())
    assert 1 <= len(store.done) < N_BLOCKS


def test_a_worker_without_the_code_is_named(plan, address, monkeypatch):
    module = types.ModuleType("only_here")
    exec("def make(plan): ...", vars(module))
    monkeypatch.setitem(sys.modules, "only_here", module)
    said = r"cluster: a worker has no roofcast like this one \(No module named 'only_here'\); hint: install the same"
    with pytest.raises(RoofcastError, match=said), cluster(address, plan, module.make) as source:
        run(plan, source)


def test_a_worker_with_another_catalogue_is_refused(plan, address, monkeypatch):
    monkeypatch.setattr(manifest, "_catalogue_sha256", lambda: "another")
    with (
        cluster(address, plan, parts_of) as source,
        pytest.raises(RoofcastError, match=r"a worker does not run what is run here .the catalogue has changed, on"),
    ):
        run(plan, source)


@pytest.mark.parametrize(
    "where, said",
    [
        (0, "cluster: expected 1 to .* worker processes, 8 for each core, found 0; hint: take "),
        ("100000", "worker processes, 8 for each core, found 100000; hint: take .*, or a scheduler's address"),
        ("9" * 5000, "found 9999.*; hint: take"),
        ("tcp://127.0.0.1:9", "cluster 'tcp://127.0.0.1:9': no scheduler answers .*; hint: start one: dask scheduler"),
    ],
)
def test_a_cluster_that_is_none_is_a_sentence(plan, monkeypatch, where, said):
    monkeypatch.setattr(clusters, "WAIT_S", 1)
    with pytest.raises(RoofcastError, match=said), cluster(where, plan, parts_of):
        pass


@pytest.mark.parametrize(
    "where, said",
    [
        (
            "http://10.0.0.1:8786",
            "speaks 'http', not tcp or tls; hint: give a number of worker processes, or an address",
        ),
        ("10.0.0.1", "lacks a port"),
        ("10.0.0.1:", "lacks a port"),
        (":8786", "lacks a host"),
        ("10.0.0.1:99999", "no address of a scheduler .Port out of range"),
        ("10.0.0.1:eight", "no address of a scheduler .Port could not be cast"),
        ("a b:8786", "no host is called 'a b'"),
        ("-1", "cluster '-1': is no address of a scheduler"),
        ("tcp://[::1:8786", "no address of a scheduler .Invalid IPv6"),
        (2.5, "cluster '2.5': is no address of a scheduler"),
    ],
)
def test_what_can_be_no_address_is_refused_before_anything_is_planned(where, said):
    with pytest.raises(RoofcastError, match=said):
        sweep({"name": "x", "axes": {"model": "gpt-oss-20b", "hardware": "h100"}}, cluster=where)


def test_without_the_package_the_extra_is_named(plan, monkeypatch):
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: None)
    said = r"needs the package distributed.*roofcast\[cluster\]"
    with pytest.raises(RoofcastError, match=said), cluster(2, plan, parts_of):
        pass
