"""An engine on a thread of this process: for tests, notebooks and debugging."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable

from outcrop.backends.base import Backend
from outcrop.engine.abilities import Abilities
from outcrop.engine.client import EngineClient, EngineUnavailable
from outcrop.engine.core import EngineCore
from outcrop.engine.dispatch import Dispatcher
from outcrop.engine.frames import Building, Command, Event, Failed, Shutdown, Started, Stepped
from outcrop.engine.grammar_builder import GrammarBuilder
from outcrop.engine.loop import Built, run_engine
from outcrop.engine.messages import GenerationDelta, GenerationRequest
from outcrop.engine.policy import Interleave, Policy
from outcrop.engine.stats import EngineStats
from outcrop.text.base import Tokenizer


class InProcessClient(EngineClient):
    """Same interface as ProcessClient, without supervision: if the backend raises, every open request
    fails with EngineUnavailable and the client is not ready any more.

    load_tokenizer: the model's, called when the first request with a grammar arrives; without it, such
    requests fail.
    """

    restarts = 0

    def __init__(
        self,
        backend: Backend,
        policy: Policy | None = None,
        *,
        prefix_cache: bool = True,
        load_tokenizer: Callable[[], Tokenizer] | None = None,
    ) -> None:
        self.core = EngineCore(
            backend, policy or Interleave(), prefix_cache=prefix_cache, clock=time.perf_counter_ns
        )
        self._commands: queue.SimpleQueue[Command | Built] = queue.SimpleQueue()
        self._builder = GrammarBuilder(load_tokenizer, backend.capabilities.vocab_size, self._commands.put)
        self._dispatcher = Dispatcher(self._commands.put)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = False
        self._stats = EngineStats()

    async def start(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self.core.backend.warmup(lambda stage, fraction: None)
            self._ready = True
            self._thread.start()

    async def close(self) -> None:
        self._ready = False
        if self._thread.is_alive():
            self._commands.put(Shutdown())
            await asyncio.to_thread(self._thread.join)
        self._builder.close()
        self._dispatcher.fail_all("the engine is closed")
        self.core.backend.close()

    @property
    def ready(self) -> bool:
        return self._ready

    @property
    def max_model_len(self) -> int:
        return self.core.backend.capabilities.max_model_len

    @property
    def abilities(self) -> Abilities:
        return self.core.abilities

    @property
    def stats(self) -> EngineStats:
        return self._stats

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        if not self._ready:
            raise EngineUnavailable("the engine is not running")
        return self._dispatcher.generate(request)

    def _run(self) -> None:
        try:
            run_engine(self.core, self._receive, self._send, self._builder.build)
        except Exception as error:
            self._send(Failed(f"{type(error).__name__}: {error}"))

    def _receive(self, wait: bool) -> Iterable[Command | Built]:
        while True:
            try:
                yield self._commands.get(block=wait)
            except queue.Empty:
                return
            wait = False

    def _send(self, event: Event) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._handle, event)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self._stats = event.stats
            self._dispatcher.deliver(event.slots, event.tokens, event.others)
        elif isinstance(event, Started):
            self._dispatcher.started(event.request_ids, event.slots, event.cached)
        elif isinstance(event, Building):
            self._dispatcher.building(event.request_id)
        elif isinstance(event, Failed):
            self._ready = False
            self._dispatcher.fail_all(event.reason)
