"""Prompts that begin alike: what of them is cached, in which order it is evicted, and who holds it.

The full blocks that at least two requests share are cut into edges of a tree: stretches of blocks within which no
request's own part begins. What a request does not share is one more stretch of its own. All but the one request in the
midst of its prompt hold their edges whole, and a sequence's blocks are freed from the last to the first, so that what
is cached of an edge are always its leading blocks, and what is cached behind an edge is there only with all of it. So
the queue of free blocks is a list of stretches with a count each, and a request finds its prefix from the end of its
prompt on, at the first edge that has anything.

Blocks that are taken for new tokens come off the list late, when somebody looks for a prefix: until then nothing
leaves the queue but from its front, and a queue does not mind the order of what enters behind and leaves in front.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from kernels.admission import popped_by_then
from kernels.serving_tables import put, take
from kernels.serving_types import FREED, LEAF, NEVER, SHARED, Candidate, Edit, Hits, Lane, Policy, Requests, State

# Columns of `tree`: the edge before an edge, its first block's index in a sequence, its blocks.
PARENT, FIRST, LENGTH = range(3)
# Columns of `runs`: neighbours in a ring, blocks cached, edges behind and requests that hold the edge. Rows: N edges,
# of which the root is always held, and anchors the queue of free blocks; N requests, each for what it alone has: in the
# queue, or while it decodes in the ring of its last step; what was never used; an anchor for each step; a spare row.
AHEAD, BEHIND, CACHED, HOLDERS = range(4)
ROOT = 0


def fresh_runs(policy: Policy, n: int, ring: int) -> Array:
    """(B, 2·N + 2 + ring, 4) of lanes in which nothing has happened. n: room for requests."""
    rows = jnp.arange(2 * n + 2 + ring, dtype=jnp.int32)
    one = jnp.stack([rows, rows, 0 * rows, 0 * rows], axis=1)
    one = one.at[ROOT].set(jnp.array([2 * n, 2 * n, 0, 1], jnp.int32)).at[2 * n, :2].set(ROOT)
    runs = jnp.broadcast_to(one[None], (len(policy.n_blocks), *one.shape))
    return runs.at[:, 2 * n, CACHED].set(policy.n_blocks)


def pick(runs: Array, where: Array, row: Array) -> Array:
    """(B, 4) a row of each of those lanes, read before anything is written: XLA fuses no branch with what uses it."""
    nothing = jnp.zeros((len(row), runs.shape[2]), jnp.int32)
    return jax.lax.cond(jnp.any(where), lambda: take(runs, row), lambda: nothing)


def write(runs: Array, where: Array, row: Array, column: int, value: Array) -> Array:
    """The runs of those lanes with one number replaced. The last row takes what is not to be written: to leave a number
    as it is would be to read it, and a read between two writes costs a copy of the table.
    """
    b, n_rows, n_columns = runs.shape
    value = jnp.broadcast_to(jnp.asarray(value).astype(runs.dtype), (b,))
    if b > 1:
        return put(runs.reshape(b, -1), where, row * n_columns + column, value).reshape(runs.shape)
    at = (jnp.int32(0), jnp.where(where[0], row[0], n_rows - 1), jnp.int32(column))
    return jax.lax.dynamic_update_slice(runs, value.reshape(1, 1, 1), at)


def unlink(runs: Array, where: Array, row: Array) -> Array:
    """A row out of its ring. row: (B, 4), of which the neighbours are told."""
    runs = write(runs, where, row[:, AHEAD], BEHIND, row[:, BEHIND])
    return write(runs, where, row[:, BEHIND], AHEAD, row[:, AHEAD])


def push(runs: Array, where: Array, anchor: Array, row: Array) -> Array:
    """A row at the end of the ring of an anchor."""
    last = pick(runs, where, anchor)[:, AHEAD]
    runs = write(runs, where, last, BEHIND, row)
    runs = write(runs, where, row, AHEAD, last)
    runs = write(runs, where, row, BEHIND, anchor)
    return write(runs, where, anchor, AHEAD, row)


def free(runs: Array, where: Array, row: Array, n_blocks: Array) -> Array:
    """A stretch of which so many blocks are cached goes to the end of the queue; one without is not there."""
    runs = write(runs, where, row, CACHED, n_blocks)
    return push(runs, where & (n_blocks > 0), jnp.full_like(row, ROOT), row)


def evict(runs: Array, n_blocks: Array) -> Array:
    """The queue without its first blocks, last of a stretch first. n_blocks: (B,) int32."""

    def step(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        runs, left = carry
        front = pick(runs, left > 0, jnp.full_like(left, ROOT))[:, BEHIND]
        where = (left > 0) & (front != ROOT)
        row = pick(runs, where, front)
        taken = jnp.minimum(row[:, CACHED], left)
        runs = write(runs, where, front, CACHED, row[:, CACHED] - taken)
        return unlink(runs, where & (taken == row[:, CACHED]), row), jnp.where(where, left - taken, 0)

    return jax.lax.while_loop(lambda carry: jnp.any(carry[1] > 0), step, (runs, n_blocks))[0]


def find(tree: Array, runs: Array, where: Array, leaf: Array, request: Array) -> tuple[Array, Hits]:
    """What is cached of a sequence, from its last edge back to the first that is held: all before that is, too."""

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        runs, edge, looking, shared, held = carry
        row, place = pick(runs, looking, edge), take(tree, edge)
        end = jnp.where(looking & (row[:, CACHED] > 0), place[:, FIRST] + row[:, CACHED], 0)
        is_held = row[:, HOLDERS] > 0
        shared, held = jnp.maximum(shared, end), jnp.maximum(held, jnp.where(is_held, end, 0))
        runs = write(runs, looking & (end < 0), edge, CACHED, end)  # never; a loop that only reads would cost a copy
        return runs, place[:, PARENT], looking & ~is_held, shared, held

    zero = jnp.zeros_like(leaf)
    start = (runs, leaf, where, zero, zero)
    runs, _, _, shared, held = jax.lax.while_loop(lambda carry: jnp.any(carry[2]), step, start)
    own = jnp.where(where, pick(runs, where, tree.shape[1] + request)[:, CACHED], 0)
    return runs, Hits(shared + own, held, shared - held + own)


def hold(tree: Array, runs: Array, where: Array, leaf: Array, request: Array) -> Array:
    """A request takes its edges, and its own stretch, out of the queue. Their blocks count as cached from now on."""

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        runs, edge, holding = carry
        row, place = pick(runs, holding, edge), take(tree, edge)
        first = holding & (row[:, HOLDERS] == 0)
        runs = unlink(runs, first & (row[:, CACHED] > 0), row)
        runs = write(runs, holding, edge, HOLDERS, row[:, HOLDERS] + 1)
        return write(runs, first, edge, CACHED, place[:, LENGTH]), place[:, PARENT], first

    runs = jax.lax.while_loop(lambda carry: jnp.any(carry[2]), step, (runs, leaf, where))[0]
    own = tree.shape[1] + request
    row = pick(runs, where, own)
    there = where & (row[:, CACHED] > 0)
    return write(unlink(runs, there, row), there, own, CACHED, jnp.zeros_like(own))


def release(
    tree: Array, runs: Array, where: Array, leaf: Array, full: Array | int = NEVER, used: Array | int = NEVER
) -> tuple[Array, Array]:
    """A request gives its edges back, the last first, and how many blocks that nobody holds any more come of it.

    full, used: (B,) blocks of its sequence that it has filled, and taken; all, unless it is in the midst of its prompt.
    """

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        runs, edge, leaving, freed = carry
        row, place = pick(runs, leaving, edge), take(tree, edge)
        last = leaving & (row[:, HOLDERS] == 1)
        runs = write(runs, leaving, edge, HOLDERS, row[:, HOLDERS] - 1)
        n_full, n_used = (jnp.clip(n - place[:, FIRST], 0, place[:, LENGTH]) for n in (full, used))
        return free(runs, last, edge, n_full), place[:, PARENT], last, freed + jnp.where(last, n_used, 0)

    start = (runs, leaf, where, jnp.zeros_like(leaf))
    runs, _, _, freed = jax.lax.while_loop(lambda carry: jnp.any(carry[2]), step, start)
    return runs, freed


def anchor_of(runs: Array, n: int, step: Array) -> Array:
    """(B,) row of the ring of those that end with a step."""
    ring = runs.shape[1] - (2 * n + 2)
    return 2 * n + 1 + (step & (ring - 1))


def look(policy: Policy, requests: Requests, state: State, one: Candidate, where: Array) -> tuple[State, Hits | None]:
    """What the cache has of the candidates of those lanes, once all blocks taken by then are off the queue; None where
    no prompts share.
    """
    lane, runs = state.lane, state.runs
    if runs is None or requests.tree is None or one.leaf is None or lane.paid is None:
        return state, None
    owed = jnp.where(where, popped_by_then(policy, lane) - lane.paid, 0).astype(jnp.int32)
    runs, hits = find(requests.tree, evict(runs, owed), where, one.leaf, one.request)
    return replace(state, runs=runs, lane=replace(lane, paid=lane.paid + owed)), hits


def follow(
    policy: Policy, requests: Requests, before: State, lane: Lane, one: Candidate, edit: Edit, joining: Array,
    ends: Array, preempting: Array,
) -> tuple[Lane, Array | None]:  # fmt: skip
    """The candidates that are admitted hold their prefix, those whose prompt ends wait for their last step, and those
    that are preempted give all back. before: what they were admitted to; lane: after it, but for what edges hold.
    """
    runs, tree, leaf = before.runs, requests.tree, one.leaf
    if runs is None or tree is None or leaf is None:
        return lane, runs
    n, middle, computed = requests.tokens.shape[1], before.lane.partial >= 0, before.lane.partial_tokens
    own, out = n + one.request, preempting & edit.where
    runs = hold(tree, runs, joining & ~middle, leaf, one.request)
    runs = push(runs, ends, anchor_of(runs, n, edit.last_step), own)
    runs = unlink(runs, out & edit.dated, pick(runs, out, own))
    runs = free(runs, out, own, edit.whole[:, FREED])
    full = jnp.where(middle, computed // policy.block_tokens, NEVER)
    used = jnp.where(middle, -(-computed // policy.block_tokens), NEVER)
    runs, freed = release(tree, runs, out, leaf, full, used)
    return replace(lane, used_blocks=lane.used_blocks - freed), runs


def let_go(
    policy: Policy, requests: Requests, lane: Lane, runs: Array | None, where: Array, step: Array
) -> tuple[Lane, Array | None]:
    """The requests whose last step that was give all back, in order. lane: after it, but for what edges hold."""
    if runs is None or requests.tree is None:
        return lane, runs
    tree, n = requests.tree, requests.tokens.shape[1]
    anchor = anchor_of(runs, n, step)

    def first(runs: Array) -> Array:
        return take(runs, anchor)[:, BEHIND]

    def one(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        runs, freed = carry
        own = pick(runs, where, anchor)[:, BEHIND]
        there = where & (own != anchor)
        tokens = take(requests.tokens, own - n)
        runs = unlink(runs, there, pick(runs, there, own))
        n_full = (tokens[:, 0] + tokens[:, 1] - 1) // policy.block_tokens - tokens[:, SHARED]
        runs = free(runs, there, own, n_full)
        runs, more = release(tree, runs, there, tokens[:, LEAF])
        return runs, freed + more

    more = lambda carry: jnp.any(where & (first(carry[0]) != anchor))  # noqa: E731
    runs, freed = jax.lax.while_loop(more, one, (runs, jnp.zeros_like(step)))
    return replace(lane, used_blocks=lane.used_blocks - freed), runs
