"""Runs the blocks of a sweep, wherever they are computed, and merges them in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from sim.interrupt import LAST_WORDS
from sim.sweeps.blocks import Hint, hint_of, reason_names
from sim.sweeps.parts import Part, empty, merge
from sim.sweeps.plan import Plan
from sim.sweeps.store import Store

Tell = Callable[[str, int, int], None]  # what, configurations done, of all
NowKnown = Callable[[], Hint | None]
Evaluate = Callable[[int, Hint | None], tuple[Part, bytes | None]]  # block -> part, its cells as a Parquet file
Source = Callable[[Iterable[int], NowKnown], Iterator[tuple[int, Part, bytes | None]]]


def in_process(evaluate: Evaluate, at_once: int = 1) -> Source:
    """Blocks in their order in this process, so many at once: the device computes one while the host sorts another."""

    def source(todo: Iterable[int], known: NowKnown) -> Iterator[tuple[int, Part, bytes | None]]:
        with ThreadPoolExecutor(at_once) as threads:
            begun: deque[tuple[int, Future]] = deque()
            for i in todo:
                begun.append((i, threads.submit(evaluate, i, known())))
                if len(begun) == at_once:
                    yield _ended(*begun.popleft())
            while begun:
                yield _ended(*begun.popleft())

    return source


def _ended(i_block: int, found: Future) -> tuple[int, Part, bytes | None]:
    return i_block, *found.result()


def run(plan: Plan, source: Source, store: Store | None = None, progress: Tell | None = None) -> Part:
    """The part of the whole sweep; blocks that the store has are read, the others computed and stored.

    It is the same to the byte whatever was interrupted before and in whatever order the source gives the blocks: they
    are merged in their own order. A KeyboardInterrupt leaves every finished block in the store, and says so.
    """
    merged, todo = _Merged(plan, store), left(plan, store)
    n_cells = plan.n_cells - sum(cells_of(plan, i) for i in todo)
    if progress and todo and n_cells:
        progress("configurations", n_cells, plan.n_cells)  # so that a rate is that of the blocks computed from here on
    merged.go_on()
    if store:
        LAST_WORDS.append(store.told)
    try:
        for i, part, cells in source(todo, merged.hint):
            if store:
                store.write(i, part, cells)
            merged.waiting[i] = part
            merged.go_on()
            n_cells += cells_of(plan, i)
            if progress:
                progress("configurations", n_cells, plan.n_cells)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(store.told() if store else "") from None
    finally:
        if store:
            LAST_WORDS.remove(store.told)
    return merged.part


def left(plan: Plan, store: Store | None) -> list[int]:
    """Blocks that are still to be computed, in order."""
    return [i for i in range(len(plan.blocks)) if store is None or i not in store.done]


def cells_of(plan: Plan, i_block: int) -> int:
    """Configurations of a block."""
    block = plan.blocks[i_block]
    return block.n_rows * block.n_lengths * plan.n_concurrency * len(plan.prices)


class _Merged:
    """The first blocks, merged, and finished ones that wait for one before them."""

    def __init__(self, plan: Plan, store: Store | None) -> None:
        self.store, self.n_top = store, plan.spec.top
        self.stored = frozenset(store.done) if store else frozenset()
        self.part = empty(len(reason_names(plan)), len(plan.spec.minimize), plan.n_groups)
        self.n_blocks = 0
        self.waiting: dict[int, Part] = {}

    def go_on(self) -> None:
        """Merges the blocks that are next."""
        while self.n_blocks in self.waiting or self.n_blocks in self.stored:
            i, self.n_blocks = self.n_blocks, self.n_blocks + 1
            part = self.store.read(i) if self.store and i in self.stored else self.waiting.pop(i)
            self.part = merge(self.part, part, self.n_top)

    def hint(self) -> Hint | None:
        """What the first blocks tell later ones."""
        return hint_of(self.part, self.n_top) if self.n_blocks else None
