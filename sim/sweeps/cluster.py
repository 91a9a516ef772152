"""Blocks of a sweep on the workers of a Dask cluster: processes of this machine, or of any that reach a scheduler."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from typing import Any
from urllib.parse import urlsplit

from sim import profiles
from sim.errors import RoofcastError, clipped, sentence, shown
from sim.sweeps.blocks import Hint
from sim.sweeps.compiled import keep_compiled
from sim.sweeps.manifest import differences, grounds
from sim.sweeps.parts import Part
from sim.sweeps.plan import Plan
from sim.sweeps.plan import plan as planned
from sim.sweeps.run import Evaluate, NowKnown, Source

AHEAD = 2  # blocks that a worker is given at a time, so that it need not wait for the next
PER_CORE = 8  # worker processes, at most: each has several hundred MB, and they only share the core
WAIT_S = 20
SCHEMES = ("tcp", "tls")
GONE = sentence("the scheduler is gone", "cluster", "start it, and the same command again")

Make = Callable[[Plan], Evaluate]


@contextlib.contextmanager
def cluster(where: str | int, plan: Plan, make: Make) -> Iterator[Source]:
    """Workers for the blocks of a sweep: a number of processes here, or the address of a scheduler that has some.

    make: importable function that each worker calls once, with a plan of its own. A worker that dies costs the block
    that it was at: another computes it again. Workers may come and go.

    Raises RoofcastError where `distributed` is not installed, the address does not answer, a worker's code, catalogue
    or versions are not those here, or a block ends one worker after another.
    """
    if importlib.util.find_spec("distributed") is None:
        hint = "pip install 'roofcast[cluster]'"
        raise RoofcastError(sentence("needs the package distributed, which is not installed", "cluster", hint))
    profile = profiles.named(plan.spec.profile) or profiles.PRIORS
    spec = dataclasses.replace(plan.spec, profile=profile)  # its file need not be where the workers are
    job = pickle.dumps((spec, plan.block_shape, plan.live, grounds(spec), make))
    with _client(where) as client:
        yield functools.partial(_finished, client, job)


def check_cluster(where: str | int) -> None:
    """Raises RoofcastError for a number of worker processes that this machine cannot use, or what is no address."""
    cores, text = os.cpu_count() or 1, str(where)
    if text.isdecimal() and not (len(text) < 10 and 1 <= int(text) <= PER_CORE * cores):
        what = f"expected 1 to {PER_CORE * cores} worker processes, {PER_CORE} for each core, found {clipped(text)}"
        raise RoofcastError(sentence(what, "cluster", f"take {cores}, or a scheduler's address for more machines"))
    if not text.isdecimal():
        _check_address(text)


def _check_address(text: str) -> None:
    """Raises RoofcastError where no scheduler can have the address, which a connection would find out by waiting."""
    hint = "give a number of worker processes, or an address such as tcp://10.0.0.1:8786"
    try:
        parts = urlsplit(text if "://" in text else f"tcp://{text}")
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise RoofcastError(
            sentence(f"is no address of a scheduler ({error})", f"cluster {shown(text)}", hint)
        ) from None
    missing = "a port" if not port else "a host" if not host else ""
    what = f"speaks {shown(scheme)}, not {' or '.join(SCHEMES)}" if scheme not in SCHEMES else f"lacks {missing}"
    if missing or scheme not in SCHEMES:
        raise RoofcastError(sentence(f"is no address of a scheduler: it {what}", f"cluster {shown(text)}", hint))
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        what = f"no host is called {shown(host)} ({error})"
        raise RoofcastError(sentence(what, f"cluster {shown(text)}", "give its IP address")) from None


@contextlib.contextmanager
def _client(where: str | int) -> Iterator[Any]:
    from distributed import Client, LocalCluster
    from distributed.utils import silence_logging_cmgr

    check_cluster(where)
    text = str(where)
    if not text.isdecimal():
        try:
            client = Client(text, timeout=WAIT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:  # TypeError: tls, where Dask has no certificates
            what = f"no scheduler answers ({error or type(error).__name__})"
            raise RoofcastError(sentence(what, f"cluster {shown(text)}", "start one: dask scheduler")) from None
        with silence_logging_cmgr(logging.CRITICAL), client:
            yield client
        return
    _start_tracker()
    with (
        LocalCluster(
            n_workers=int(text), threads_per_worker=1, processes=True, memory_limit=0, silence_logs=logging.CRITICAL,
            dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
        ) as local,
        Client(local, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


def _start_tracker() -> None:
    """Python's tracker of semaphores, so that it does not warn of those of workers when this process is interrupted."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(
        filter(None, [before, "ignore::UserWarning:multiprocessing.resource_tracker"])
    )
    try:
        resource_tracker.ensure_running()
    finally:
        os.environ.pop("PYTHONWARNINGS")
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


def _finished(
    client: Any, job: bytes, todo: Iterable[int], known: NowKnown
) -> Iterator[tuple[int, Part, bytes | None]]:
    """Blocks in the order in which they are finished."""
    from distributed import as_completed

    left, running = iter(todo), as_completed(loop=client.loop, with_results=True, raise_errors=False)
    block_of: dict[str, int] = {}

    def fill() -> None:
        try:
            room = max(AHEAD * sum(client.nthreads().values()), 1) - len(block_of)
        except OSError:
            raise RoofcastError(GONE) from None
        for i in itertools.islice(left, max(room, 0)):
            future = client.submit(_block, job, i, known(), pure=False)
            block_of[future.key] = i
            running.add(future)

    fill()
    for future, found in running:  # results are fetched at once, so that they do not die with their worker
        i = block_of.pop(future.key)
        if future.status == "error":
            raise _told(found[1], i) from None
        if future.status != "finished":
            raise RoofcastError(GONE)
        fill()
        yield (i, *found)


def _told(error: BaseException, i_block: int) -> BaseException:
    """The sentence for what ended a block."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        what = f"one worker after another died, the last with block {i_block}"
        return RoofcastError(sentence(what, "cluster", "they may lack memory: take fewer"))
    if isinstance(error, ImportError):
        what = f"a worker has no roofcast like this one ({error})"
        return RoofcastError(sentence(what, "cluster", "install the same on all machines"))
    return error


def _block(job: bytes, i_block: int, hint: Hint | None) -> tuple[Part, bytes | None]:
    """On a worker."""
    return _evaluate(job)(i_block, hint)


@functools.lru_cache(maxsize=1)
def _evaluate(job: bytes) -> Evaluate:
    spec, block_shape, live, there, make = pickle.loads(job)
    if found := differences(there, grounds(spec)):
        what = f"a worker does not run what is run here ({'; '.join(found)}, on the worker)"
        raise RoofcastError(sentence(what, "cluster", "install the same on all machines"))
    keep_compiled()
    plan = planned(spec, live=live)
    vars(plan)["block_shape"] = block_shape  # whatever this machine would choose
    return make(plan)
