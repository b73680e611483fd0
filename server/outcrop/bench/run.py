"""Sends a trace of requests to a server, each when it is due, whatever has become of those before it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from outcrop.bench.call import Call
from outcrop.bench.protocol import Protocol
from outcrop.simulate.trace import NS, Trace

_TEXT = """
the of and to in is that it for was on are as with his they be at one have this from or had by hot but some
what there we can out other were all your when up use word how said an each she which do their time if will
way about many then them would write like so these her long make thing see him two has look more day could go
come did my sound no most number who over know water than call first people may down side been now find
"""
_WORDS = _TEXT.split()
"""Common English words: of nearly all tokenizers, a token each."""


def prompt_of(tokens: int, dice: random.Random) -> str:
    """A text of about so many tokens that no other prompt begins with."""
    return " ".join(dice.choices(_WORDS, k=max(1, tokens)))


async def run(
    protocol: Protocol,
    trace: Trace,
    *,
    seed: int,
    timeout: float,
    progress: Callable[[int], None] = lambda done: None,
) -> Sequence[Call]:
    """All calls, in the order of the trace. timeout: seconds that one may take. progress: told how many have
    ended."""
    dice = random.Random(seed)
    prompts = [prompt_of(int(tokens), dice) for tokens in trace.prompt]
    ended = 0
    begun = time.perf_counter() + 0.05

    async def one(index: int) -> Call:
        nonlocal ended
        due = begun + int(trace.arrival[index] - trace.arrival[0]) / NS
        call = Call(begun=due, due=due)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        try:
            async with asyncio.timeout(timeout):
                await protocol.ask(prompts[index], int(trace.output[index]), call)
        except TimeoutError:
            call.error = "timeout"
        ended += 1
        progress(ended)
        return call

    return await asyncio.gather(*(one(index) for index in range(len(trace))))
