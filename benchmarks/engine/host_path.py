"""What the host costs a step, and whether the device ever waits for it.

    python benchmarks/engine/host_path.py

First table: the engine's own work per decode step, with the fake backend (whose own time is left out), on one
core. "steady": every row goes on, as in most steps. "churn": answers of 48 to 207 tokens, each replaced by a
new request when it ends, so rows come and go; of these only the decode steps count. Microseconds of CPU time:
medians, and the 99th percentile of the sum. encode and decode are of the step's one frame to the API process,
and deliver is what it takes there to hand the tokens to their streams.

Second table: a real engine process at 5 ms a step, its client here in another process reading every stream.
The device idles while it has nothing to run although there are requests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections import defaultdict, deque

from outcrop.backends.base import Capabilities, StepHandle
from outcrop.backends.fake import FakeBackend
from outcrop.engine.buckets import BucketTable
from outcrop.engine.config import EngineConfig
from outcrop.engine.dispatch import Dispatcher
from outcrop.engine.frames import Add, Command, Stepped, decode_event, encode
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.plan import StepPlanner
from outcrop.engine.policy import POLICIES
from outcrop.engine.process_client import ProcessClient
from outcrop.engine.scheduled_step import ScheduledStep
from outcrop.engine.scheduler import Scheduler
from outcrop_compile.bucket import StepKind

VOCABULARY = 32000
clock = time.thread_time_ns  # a busy machine may take the core away, and that is not the host path's cost
PARTS = ("schedule", "plan", "apply", "sum", "encode", "decode", "deliver")


class Requests:
    """An endless supply of them."""

    def __init__(self, shortest: int, longest: int) -> None:
        self._rng, self._count, self._lengths = random.Random(1), 0, (shortest, longest)

    def next(self) -> GenerationRequest:
        self._count += 1
        rng = self._rng
        prompt = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(17, 49))]
        sampling = SamplingParams(
            rng.randint(*self._lengths),
            temperature=0.8,
            seed=self._count,
            eos_ids=(VOCABULARY, VOCABULARY + 1),
        )
        return GenerationRequest(f"4f1c2c52-8f0e-4c12-9d3e-{self._count:012d}", prompt, sampling)


class Host:
    """The parts of an engine and of its client, driven step by step at depth 2, so that each can be timed."""

    def __init__(self, rows: int, *, churn: bool) -> None:
        caps = Capabilities(
            max_rows=rows,
            block_size=32,
            num_blocks=34 * rows,
            max_model_len=1024,
            vocab_size=VOCABULARY,
            topk_cap=256,
            depth=2,
        )
        self.rows, self.churn = rows, churn
        self.backend = FakeBackend(caps)
        self.scheduler = Scheduler(caps, BucketTable(self.backend.buckets), POLICIES["prefill-first"])
        self.planner = StepPlanner(caps, self.scheduler.slots)
        self.requests = Requests(48, 207) if churn else Requests(900, 900)
        self.commands: list[Command] = []
        self.dispatcher = Dispatcher(self.commands.append)
        self.readers: set[asyncio.Task[None]] = set()
        self.times: dict[str, list[float]] = defaultdict(list)

    async def run(self, steps: int) -> None:
        submitted: deque[tuple[ScheduledStep, StepHandle]] = deque()
        while len(self.times["sum"]) < steps:
            await self._supply()
            begun = clock()
            step = None if self.scheduler.awaits_token else self.scheduler.schedule()
            scheduled = clock()
            if step is None:
                self._collect(*submitted.popleft())
                continue
            plan = self.planner.build(step)
            planned = clock()
            if step.bucket.kind is StepKind.PREFILL:
                owners = self.scheduler.slots.owners[step.slots].tolist()
                self.dispatcher.started(
                    [r.id for r in owners], step.slots.tolist(), [r.cached for r in owners]
                )
            submitted.append((step, self.backend.submit(plan)))
            if len(submitted) < 2:
                continue
            spans = self._collect(*submitted.popleft())
            spans |= {"schedule": scheduled - begun, "plan": planned - scheduled}
            spans["sum"] = spans["schedule"] + spans["plan"] + spans["apply"]
            if step.bucket.kind is StepKind.DECODE and len(step.slots) >= 0.9 * self.rows <= spans["news"]:
                for part, span in spans.items():
                    self.times[part].append(span / 1000)
        for reader in self.readers:
            reader.cancel()
        await asyncio.gather(*self.readers, return_exceptions=True)

    def _collect(self, step: ScheduledStep, handle: StepHandle) -> dict[str, int]:
        """Nanoseconds of each part from a step's result to its streams; rows and bytes of its news."""
        output = self.backend.collect(handle)
        collected = clock()
        news = self.scheduler.apply(step, output)
        applied = clock()
        frame = encode(
            Stepped(news.slots.tolist(), news.tokens.tolist(), news.others, self.scheduler.stats())
        )
        encoded = clock()
        event = decode_event(frame)
        decoded = clock()
        assert isinstance(event, Stepped)
        self.dispatcher.deliver(event.slots, event.tokens, event.others)
        return {
            "apply": applied - collected,
            "encode": encoded - applied,
            "decode": decoded - encoded,
            "deliver": clock() - decoded,
            "news": len(news),
            "bytes": len(frame),
        }

    async def _supply(self) -> None:
        """As many requests as there are rows; readers get their turn."""
        for _ in range(self.rows - len(self.scheduler.requests)):
            reader = asyncio.create_task(self._read(self.requests.next()))
            self.readers.add(reader)
            reader.add_done_callback(self.readers.discard)
        await asyncio.sleep(0)
        for command in self.commands:
            if isinstance(command, Add):
                self.scheduler.add(command.request)
        self.commands.clear()
        await asyncio.sleep(0)

    async def _read(self, request: GenerationRequest) -> None:
        async for _ in self.dispatcher.generate(request):
            pass


def host_table(row_counts: list[int], steps: int) -> None:
    print(f"| rows | | {' | '.join(PARTS)} | sum p99 | frame bytes |")
    print("|" + "---|" * (len(PARTS) + 4))
    for churn in (False, True):
        for rows in row_counts:
            host = Host(rows, churn=churn)
            asyncio.run(host.run(steps))
            cells = [f"{statistics.median(host.times[part]):.0f}" for part in PARTS]
            cells.append(f"{sorted(host.times['sum'])[int(0.99 * steps)]:.0f}")
            cells.append(f"{1000 * statistics.median(host.times['bytes']):.0f}")
            print(f"| {rows} | {'churn' if churn else 'steady'} | {' | '.join(cells)} |", flush=True)


async def idle_share(depth: int, rows: int, seconds: float, *, churn: bool) -> tuple[float, float, float]:
    """Device idle share, steps a second and tokens a second of an engine process with all rows busy."""
    config = EngineConfig(
        model="",
        backend="fake",
        vocab_size=VOCABULARY,
        max_model_len=512,
        max_rows=rows,
        depth=depth,
        fake_step_ms=5.0,
        policy="prefill-first",
    )
    client = ProcessClient(config)
    await client.start()
    requests = Requests(48, 207) if churn else Requests(400, 400)

    async def keep_asking() -> None:
        while True:
            async for _ in client.generate(requests.next()):
                pass

    readers = [asyncio.create_task(keep_asking()) for _ in range(rows)]
    while client.stats.running < rows or client.stats.decode_steps < 20:
        await asyncio.sleep(0.05)
    before, begun = client.stats, time.perf_counter()
    await asyncio.sleep(seconds)
    after, span = client.stats, time.perf_counter() - begun
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await client.close()
    idle = after.device_idle_us - before.device_idle_us
    busy = after.device_busy_us - before.device_busy_us
    steps = after.decode_steps + after.prefill_steps - before.decode_steps - before.prefill_steps
    tokens = after.generation_tokens - before.generation_tokens
    return idle / (idle + busy), steps / span, tokens / span


def idle_table(rows: int, seconds: float) -> None:
    print("| depth | rows | | device idle | steps/s | tokens/s |")
    print("|---|---|---|---|---|---|")
    for depth in (1, 2):
        for churn in (False, True):
            idle, steps, tokens = asyncio.run(idle_share(depth, rows, seconds, churn=churn))
            kind = "churn" if churn else "steady"
            print(f"| {depth} | {rows} | {kind} | {idle:.2%} | {steps:.1f} | {tokens:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows",
        type=int,
        nargs="*",
        default=[1, 64, 256, 1024],
        help="of the first table; none leaves it out",
    )
    parser.add_argument("--steps", type=int, default=300, help="decode steps timed for each line of it")
    parser.add_argument("--idle-rows", type=int, default=256, help="of the second table; 0 leaves it out")
    parser.add_argument("--seconds", type=float, default=1.5, help="measured for each line of it")
    options = parser.parse_args()
    everywhere = os.sched_getaffinity(0)
    if options.rows:
        os.sched_setaffinity(0, {min(everywhere)})
        host_table(options.rows, options.steps)
        os.sched_setaffinity(0, everywhere)
        print()
    if options.idle_rows:
        idle_table(options.idle_rows, options.seconds)


if __name__ == "__main__":
    main()
