"""The reference scheduler: one replica that serves one scenario, request by request and step by step.

Slow on purpose: objects and loops instead of counts, so that the rules can be read off and a fast kernel judged by it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from itertools import islice, pairwise

import numpy as np

from tests.oracle.blocks import Block, Content, Pool, hold
from tests.oracle.replica import Policy, Reference, Requests, Step, StepSeconds

SYSTEM = -1  # owner of the tokens of the system prompt


class Request:
    """A request on its way through the engine; its sequence is the prompt and what has been generated so far."""

    __slots__ = ("arrival_s", "blocks", "finish_s", "first_token_s", "id_tokens", "ids", "n_computed", "n_full",
                 "n_generated", "n_hit", "n_preemptions", "number", "output", "prefilling", "prompt", "scheduled_s",
                 "token_s")  # fmt: skip

    def __init__(
        self, number: int, arrival_s: float, prompt: int, output: int, ids: tuple[int, ...] = (), id_tokens: int = 1
    ) -> None:
        self.number, self.arrival_s, self.prompt, self.output = number, arrival_s, prompt, output
        self.ids, self.id_tokens = ids, id_tokens
        self.n_computed = self.n_generated = self.n_preemptions = self.n_hit = 0
        self.prefilling = True  # from admission to the next token sampled
        self.blocks: list[Block] = []
        self.n_full = 0  # leading blocks that are full
        self.scheduled_s = self.first_token_s = self.token_s = self.finish_s = math.nan

    @property
    def n_tokens(self) -> int:
        """Length of the sequence."""
        return self.prompt + self.n_generated


class Replica:
    """An engine with its queue of waiting requests, its running ones in order of admission, and its blocks."""

    def __init__(self, policy: Policy, step_seconds: StepSeconds) -> None:
        self.policy, self.step_seconds = policy, step_seconds
        self.pool = Pool(policy.n_blocks)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.clock_s = 0.0
        self.scheduled: list[tuple[Request, int]] = []  # in this step, with the tokens of each
        self.budget = 0  # tokens left in this step
        self.n_preempted = 0  # in this step
        self.n_dated = 0  # steps so far, without those in which decode stands still for prompts
        self.steps: list[Step] = []
        self.itl_s: list[float] = []

    def step(self) -> list[Request]:
        """Schedules and runs one step; returns the requests that it finishes, in order of number."""
        self.scheduled, self.budget, self.n_preempted = [], self.policy.max_batched_tokens, 0
        if self.policy.mixes_prefill:
            self.continue_running(lambda request: True)
            self.admit()
        else:
            self.continue_running(lambda request: request.prefilling)
            self.admit()
            if not self.scheduled:  # the budget is of prompt tokens; each decoding sequence has its one
                self.budget = len(self.running)
                self.continue_running(lambda request: not request.prefilling)
        self.run()
        return self.sample()

    def continue_running(self, wanted: Callable[[Request], bool]) -> None:
        """Gives running requests their tokens, the longest running first, and preempts the last where blocks lack."""
        i = 0
        while i < len(self.running) and self.budget > 0:
            request = self.running[i]
            if wanted(request):
                n = min(request.n_tokens - request.n_computed, self.budget)
                if not self.make_room(request, n):
                    return
                self.schedule(request, n)
            i += 1

    def make_room(self, request: Request, n: int) -> bool:
        """Preempts from the last on until n more tokens fit; False where the request itself had to go."""
        while self.missing(request, n) > self.pool.n_free:
            victim = self.running.pop()
            self.preempt(victim)
            if victim is request:
                return False
        return True

    def missing(self, request: Request, n: int) -> int:
        """Blocks to allocate for n more tokens."""
        return max(self.policy.blocks(request.n_computed + n) - len(request.blocks), 0)

    def preempt(self, victim: Request) -> None:
        """Takes all blocks from a request and puts it at the head of the line; it keeps what it has generated."""
        hold(all(victim is not request for request, _ in self.scheduled), "a scheduled request is preempted")
        self.pool.release(victim.blocks)
        victim.blocks, victim.n_full, victim.n_computed, victim.prefilling = [], 0, 0, True
        victim.n_preemptions += 1
        self.n_preempted += 1
        self.waiting.appendleft(victim)

    def admit(self) -> None:
        """Admits from the head of the line until it does not fit; nobody, if this step has preempted or does not look.

        While sequences decode, the line is looked at before every admission_steps-th step.
        """
        decodes = any(not request.prefilling for request in self.running)
        looks = not decodes or self.n_dated % self.policy.admission_steps == 0
        while self.waiting and self.budget > 0 and looks and not self.n_preempted:
            request = self.waiting[0]
            hits = self.hits(request)
            n_computed = len(hits) * self.policy.block_tokens
            n = min(request.n_tokens - n_computed, self.budget)
            if len(self.running) == self.policy.max_sequences or not self.fits(request, hits, n):
                return
            self.waiting.popleft()
            self.pool.share(hits)
            request.blocks, request.n_full, request.n_computed = hits, len(hits), n_computed
            if self.policy.reserves:
                whole = self.policy.blocks(request.prompt + request.output)
                request.blocks += self.pool.allocate(whole - len(hits))
            self.running.append(request)
            if math.isnan(request.scheduled_s):
                request.scheduled_s, request.n_hit = self.clock_s, n_computed
            self.schedule(request, n)

    def fits(self, request: Request, hits: list[Block], n: int) -> bool:
        """Whether the free blocks suffice for admission. A hit that nobody holds is still to be taken from them."""
        policy, spare = self.policy, 0
        if policy.reserves:
            tokens = request.prompt + request.output
        elif policy.whole_gate:
            tokens = request.n_tokens
            spare = policy.watermark_blocks if self.running else 0
        else:
            tokens = len(hits) * policy.block_tokens + n
        held = sum(block.n_holders > 0 for block in hits)
        return policy.blocks(tokens) - held + spare <= self.pool.n_free

    def hits(self, request: Request) -> list[Block]:
        """The longest chain of cached full blocks, short of the last token, which is to be computed in any case."""
        chain: list[Block] = []
        if self.policy.caches_prefix:
            for i in range((request.n_tokens - 1) // self.policy.block_tokens):
                block = self.pool.find(self.content(request, i))
                if block is None:
                    break
                chain.append(block)
        return chain

    def content(self, request: Request, i: int) -> Content:
        """What the i-th block of a sequence holds when full: tokens of the system prompt, those that ids name, its own.

        The block with a prompt's last token, which no other prompt of that length can hit, counts as its own.
        """
        end = (i + 1) * self.policy.block_tokens
        if request.ids and end < request.prompt:
            return (request.ids[: -(-end // request.id_tokens)], i)
        shared = end <= min(self.policy.prefix_tokens, request.prompt)
        return (SYSTEM if shared else request.number, i)

    def schedule(self, request: Request, n: int) -> None:
        """Allocates for n tokens and puts them into the step; full blocks can be hit from now on, in this step too."""
        if missing := self.missing(request, n):
            request.blocks += self.pool.allocate(missing)
        if self.policy.caches_prefix:
            for i in range(request.n_full, (request.n_computed + n) // self.policy.block_tokens):
                self.pool.fill(request.blocks[i], self.content(request, i))
                request.n_full = i + 1
        self.scheduled.append((request, n))
        self.budget -= n

    def run(self) -> None:
        """Lets the time of the step pass, and records it."""
        self.check()
        decoding = [request.n_computed for request, _ in self.scheduled if not request.prefilling]
        chunks = [(r.n_computed, n, r.n_computed + n == r.n_tokens) for r, n in self.scheduled if r.prefilling]
        seconds = self.step_seconds(len(decoding), sum(decoding), chunks)
        hold(0.0 < seconds < math.inf, f"a step takes {seconds} s")
        self.clock_s += seconds
        self.n_dated += self.policy.mixes_prefill or len(decoding) > 0
        self.steps.append(Step(len(decoding), sum(decoding), chunks, self.n_preempted, len(self.running),
                               self.pool.n_used, seconds, self.clock_s))  # fmt: skip

    def check(self) -> None:
        """What holds in each step, or BrokenInvariant."""
        hold(bool(self.scheduled), "a step is empty though requests wait")
        hold(self.policy.mixes_prefill or len({r.prefilling for r, _ in self.scheduled}) == 1, "prefill with decode")
        line = [request.number for request in (*self.running, *islice(self.waiting, 1))]
        hold(all(a < b for a, b in pairwise(line)), "a request has overtaken another")
        hold(len(self.running) <= self.policy.max_sequences, "too many sequences run")
        hold(self.pool.n_holds == sum(len(request.blocks) for request in self.running), "blocks are lost")

    def sample(self) -> list[Request]:
        """Adds the tokens computed, samples one where a sequence is complete; returns the requests that are done."""
        done = []
        for request, n in self.scheduled:
            request.n_computed += n
            if request.n_computed < request.n_tokens:
                continue
            request.n_generated += 1
            request.prefilling = False
            if request.n_generated == 1:
                request.first_token_s = self.clock_s
            else:
                self.itl_s.append(self.clock_s - request.token_s)
            request.token_s = self.clock_s
            if request.n_generated == request.output:
                hold(math.isnan(request.finish_s), "a request is done twice")
                request.finish_s = self.clock_s
                self.pool.release(request.blocks)
                request.blocks = []
                done.append(request)
        if done:
            self.running = [request for request in self.running if request.n_generated < request.output]
        return done


def simulate(requests: Requests, policy: Policy, step_seconds: StepSeconds) -> Reference:
    """Serves every request that can ever fit; the others are refused at the door and take neither time nor a user.

    Args:
        requests: N requests, open or closed loop.
        policy: rules of the engine.
        step_seconds: positive seconds of a step.

    Raises:
        BrokenInvariant: the scheduler has lost a block or a request, or let one overtake.
    """
    lengths = zip(requests.arrival_s, requests.prompt_tokens, requests.output_tokens, strict=True)
    asked = [Request(i, float(a), int(p), int(o)) for i, (a, p, o) in enumerate(lengths)]
    for request, ids in zip(asked, requests.ids, strict=False):
        request.ids, request.id_tokens = ids, requests.id_tokens
    served = [request for request in asked if policy.holds(request.prompt, request.output)]
    replica = Replica(policy, step_seconds)
    n_first = requests.users or len(served)
    coming, later = deque(served[:n_first]), deque(served[n_first:])
    if requests.users:
        for request in asked:
            request.arrival_s = math.nan
        for request in coming:
            request.arrival_s = 0.0
    while coming or replica.waiting or replica.running:
        if not replica.waiting and not replica.running:
            replica.clock_s = max(replica.clock_s, coming[0].arrival_s)
        while coming and coming[0].arrival_s <= replica.clock_s:
            replica.waiting.append(coming.popleft())
        for _ in replica.step():
            if later:
                later[0].arrival_s = replica.clock_s + requests.think_s
                coming.append(later.popleft())
    return reference(asked, served, replica)


def reference(asked: list[Request], served: list[Request], replica: Replica) -> Reference:
    """The record of a replica that has come to rest."""
    hold(replica.pool.n_free == replica.pool.n_blocks and replica.pool.n_holds == 0, "blocks stay in use at the end")
    hold(all(request.n_generated == request.output for request in served), "a request is lost")
    steps, refused = replica.steps, set(asked) - set(served)

    def column(name: str) -> np.ndarray:
        return np.array([getattr(request, name) for request in asked])

    return Reference(
        arrival_s=column("arrival_s"),
        scheduled_s=column("scheduled_s"),
        first_token_s=column("first_token_s"),
        finish_s=column("finish_s"),
        n_preemptions=column("n_preemptions"),
        n_hit=column("n_hit"),
        refused=np.array([request in refused for request in asked]),
        itl_s=np.array(replica.itl_s),
        steps=steps,
        max_blocks=max((step.n_blocks for step in steps), default=0),
        max_running=max((step.n_running for step in steps), default=0),
        busy_s=math.fsum(step.seconds for step in steps),
        running_s=math.fsum(step.n_running * step.seconds for step in steps),
        blocks_s=math.fsum(step.n_blocks * step.seconds for step in steps),
    )
