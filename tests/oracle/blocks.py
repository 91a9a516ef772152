"""The KV cache as objects: blocks with holders, a queue of free ones, and the contents by which full ones are found."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable

Content = tuple[int | tuple[int, ...], int]  # (whose tokens, or the ids that name them, index of the block)


class BrokenInvariant(Exception):
    """The scheduler has done what its rules forbid."""


def hold(held: bool, what: str) -> None:
    """BrokenInvariant that says what happened."""
    if not held:
        raise BrokenInvariant(what)


class Block:
    """Room for a few tokens. Full, it can be found by its content, which it keeps when free until it is evicted."""

    __slots__ = ("content", "n_holders")

    def __init__(self) -> None:
        self.n_holders = 0
        self.content: Content | None = None  # of a full block


class Pool:
    """All blocks of a replica. Free ones stand in a queue: the front is taken (and evicted) first."""

    def __init__(self, n_blocks: int) -> None:
        self.n_blocks = n_blocks
        self.queue = OrderedDict.fromkeys(Block() for _ in range(n_blocks))
        self.known: defaultdict[Content, dict[Block, None]] = defaultdict(dict)
        self.n_holds = 0  # sum of n_holders

    @property
    def n_free(self) -> int:
        """Blocks that nobody holds, cached contents included."""
        return len(self.queue)

    @property
    def n_used(self) -> int:
        """Blocks that somebody holds; a shared one counts once."""
        return self.n_blocks - len(self.queue)

    def allocate(self, n: int) -> list[Block]:
        """Takes n blocks from the front of the queue and evicts what they held."""
        hold(n <= self.n_free, f"{n} blocks asked of {self.n_free}")
        taken = [self.queue.popitem(last=False)[0] for _ in range(n)]
        for block in taken:
            hold(block.n_holders == 0, "a block in the queue has a holder")
            block.n_holders = 1
            if block.content is not None:
                del self.known[block.content][block]
                block.content = None
        self.n_holds += n
        return taken

    def fill(self, block: Block, content: Content) -> None:
        """Makes a full block findable. Two blocks may have the same content."""
        hold(block.n_holders > 0 and block.content is None, "a block is filled twice, or held by nobody")
        block.content = content
        self.known[content][block] = None

    def find(self, content: Content) -> Block | None:
        """A block with that content, the one filled first; None if it is not cached."""
        return next(iter(self.known[content]), None) if content in self.known else None

    def share(self, blocks: Iterable[Block]) -> None:
        """One more holder for each; free ones leave the queue from wherever they stand."""
        for block in blocks:
            if block.n_holders == 0:
                del self.queue[block]
            block.n_holders += 1
            self.n_holds += 1

    def release(self, blocks: list[Block]) -> None:
        """Gives back a sequence's blocks, last first: full ones to the tail of the queue, the others to its front."""
        for block in reversed(blocks):
            hold(block.n_holders > 0, "a block is freed twice")
            block.n_holders -= 1
            self.n_holds -= 1
            if block.n_holders == 0:
                self.queue[block] = None
                self.queue.move_to_end(block, last=block.content is not None)
