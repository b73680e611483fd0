"""An engine in its own process, started, watched and restarted by the API process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import msgspec
import zmq

import outcrop
import outcrop_compile
import outcrop_kernels
from outcrop.engine.abilities import ABILITIES, Abilities
from outcrop.engine.client import EngineClient, EngineUnavailable
from outcrop.engine.config import PACKAGES, EngineConfig
from outcrop.engine.dispatch import Dispatcher
from outcrop.engine.frames import (
    Building,
    Command,
    Event,
    Failed,
    Progress,
    Ready,
    Shutdown,
    Started,
    Stepped,
    decode_event,
    encode,
)
from outcrop.engine.lobby import Lobby
from outcrop.engine.messages import GenerationDelta, GenerationRequest
from outcrop.engine.stats import EngineStats

logger = logging.getLogger(__name__)

_FAILED_STARTS = 3
"""Consecutive restarts that do not get ready before the engine is given up."""

_SHUTDOWN_SECONDS = 5.0

_REPEATED = 3
_REPEATED_SECONDS = 600.0
"""So many engines that fail in the same way within this time mean that the hardware is at fault: two could be
one request's, which is refused then."""


class ProcessClient(EngineClient):
    """Supervises one engine process.

    When the process dies, or a step takes longer than `step_timeout` seconds (it is killed then), it is
    started again and open requests continue: see Lobby. on_progress is told how starting goes.

    As one of several replicas it shares their lobby. on_change: called when `ready` or `over` has changed,
    the streams of an engine that is over being in the lobby by then; alone, it ends them itself.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        step_timeout: float = 120.0,
        on_progress: Callable[[str, float], None] = lambda stage, fraction: None,
        lobby: Lobby | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._config = config
        self._step_timeout = step_timeout
        self._on_progress = on_progress
        self._on_change = on_change
        self.dispatcher = Dispatcher(self._send, lobby=lobby, up=False)
        self._directory = tempfile.TemporaryDirectory(prefix="outcrop-")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._outbox: list[Command] = []
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        self._launches = 0
        self._ready = self._was_ready = self._closing = False
        self.over = False
        """The engine was given up: it is beyond its restart budget, drained, or has never started."""
        self._max_model_len = 0
        self._abilities = ABILITIES["outcrop"]
        self.num_blocks = 0
        """Of KV memory. Valid once started."""
        self._stats = EngineStats()
        self._last_event = 0.0
        self._reason = ""
        self._drained = ""
        self._failures: list[tuple[int, float]] = []  # code and time of those that may lead to draining

    # -- EngineClient ----------------------------------------------------------------------------

    async def start(self) -> None:
        if self._supervisor is None:
            self._started = asyncio.get_running_loop().create_future()
            self._supervisor = asyncio.create_task(self._supervise())
        assert self._started is not None
        await asyncio.shield(self._started)

    async def close(self) -> None:
        self._closing = True
        await self._end_process()
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        if self._started is not None and not self._started.done():
            self._started.set_exception(EngineUnavailable("the server is shutting down"))
            self._started.exception()  # whoever waited has been told; nobody else will ask
        if self._on_change is None:
            self.dispatcher.fail_all("the server is shutting down")
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None
        self._context.destroy(linger=0)
        self._directory.cleanup()

    @property
    def ready(self) -> bool:
        return self._ready

    @property
    def drained(self) -> str:
        return self._drained

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    @property
    def abilities(self) -> Abilities:
        return self._abilities

    @property
    def stats(self) -> EngineStats:
        return self._stats

    @property
    def restarts(self) -> int:
        return max(0, self._launches - 1)

    @property
    def reason(self) -> str:
        """Why the engine is down, where it is."""
        return self._reason

    @property
    def pid(self) -> int | None:
        """The engine process's id, while there is one."""
        return None if self._process is None else self._process.pid

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        if self._supervisor is None or self._supervisor.done():
            raise EngineUnavailable(self._reason or "the engine is not running")
        return self.dispatcher.generate(request)

    # -- supervision -----------------------------------------------------------------------------

    async def _supervise(self) -> None:
        """Keep the engine running until it is given up; then everyone who waits for it is told why."""
        assert self._started is not None
        try:
            await self._keep_running()
        except Exception as error:  # no process to be had: the system is out of memory, or of processes
            logger.exception("the engine's supervisor failed")
            self._reason = f"the engine cannot be started: {error}"
        if self._closing:
            return  # `close` tells them
        self.over = True
        if self._on_change is None:
            self.dispatcher.fail_all(self._reason)
        else:
            self.dispatcher.release()
            self._on_change()
        if not self._started.done():
            self._started.set_exception(EngineUnavailable(self._reason))

    async def _keep_running(self) -> None:
        assert self._started is not None
        failed_starts = 0
        while True:
            await self._launch()
            was_ready = await self._serve_until_exit()
            if self._closing:
                return
            assert self._process is not None
            self._reason = self._reason or _cause_of_death(await self._process.wait())
            if not self._started.done():
                return  # the first start failed: a wrong setting, not an accident
            if self._drained:
                logger.error("engine stopped (%s); it stays down", self._drained)
                return
            failed_starts = 0 if was_ready else failed_starts + 1
            if failed_starts == _FAILED_STARTS:
                self._reason = f"the engine failed to start {failed_starts} times in a row: {self._reason}"
                return
            logger.error("engine stopped (%s); restarting it", self._reason)
            if self._on_change is not None:
                self._on_change()  # first: nobody is to send its streams back to it
            self.dispatcher.crashed()
            self.dispatcher.lobby.resume()

    async def _launch(self) -> None:
        """Start a process and connect a fresh pair of sockets, so that nothing of its predecessor's is
        ever read."""
        if self._socket is not None:
            self._socket.close(linger=0)
        self._outbox.clear()
        self._launches += 1
        address = f"ipc://{Path(self._directory.name) / f'engine-{self._launches}'}"
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.bind(address)
        self._reason = ""
        self._process = await asyncio.create_subprocess_exec(
            self._config.python or sys.executable, "-m", "outcrop.engine.process", address,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=self._environment(),
        )  # fmt: skip
        assert self._process.stdin is not None
        # The pipe stays open: its end tells the engine that this process is gone.
        with contextlib.suppress(OSError, RuntimeError):  # dead already: `_serve_until_exit` will see it
            self._process.stdin.write(msgspec.json.encode(self._config) + b"\n")

    def _environment(self) -> dict[str, str] | None:
        """Another interpreter finds Outcrop's packages, and no others of this one's, in a folder of links."""
        if not self._config.python:
            return None
        folder = Path(self._directory.name) / PACKAGES
        folder.mkdir(exist_ok=True)
        for package in (outcrop, outcrop_compile, outcrop_kernels):
            (source,) = package.__path__
            link = folder / package.__name__
            if not link.is_symlink():
                link.symlink_to(Path(source).resolve(), target_is_directory=True)
        return os.environ | {"PYTHONPATH": str(folder)}

    async def _serve_until_exit(self) -> bool:
        """Handle the engine's events until its process has ended; True if it got ready."""
        assert self._process is not None
        assert self._socket is not None
        loop, descriptor = asyncio.get_running_loop(), self._socket.fileno()
        exited = asyncio.create_task(self._process.wait())
        self._was_ready = False
        loop.add_reader(descriptor, self._receive)
        self._receive()
        try:
            while not exited.done():
                await asyncio.wait({exited}, timeout=min(1.0, self._step_timeout))
                self._check_for_hang()
            # What it still sent before it died is in the socket within moments.
            await asyncio.sleep(0.1)
            return self._was_ready
        finally:
            loop.remove_reader(descriptor)
            self._ready = False
            exited.cancel()
            self._kill()  # whatever it has left behind

    def _receive(self) -> None:
        """Handle every event that has come. The descriptor tells of news once only: whoever has used the
        socket must look whether there is any before it waits for the descriptor again."""
        assert self._socket is not None
        while True:
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._handle(decode_event(frame))

    def _handle(self, event: Event) -> None:
        self._last_event = time.monotonic()
        if isinstance(event, Stepped):
            self._stats = event.stats
            self.dispatcher.deliver(event.slots, event.tokens, event.others)
        elif isinstance(event, Started):
            self.dispatcher.started(event.request_ids, event.slots, event.cached, event.held, event.ago)
        elif isinstance(event, Building):
            self.dispatcher.building(event.request_id)
        elif isinstance(event, Progress):
            self._on_progress(event.stage, event.fraction)
        elif isinstance(event, Ready):
            logger.info("engine ready: %s", event.description)
            self._max_model_len, self._abilities = event.max_model_len, event.abilities
            self.num_blocks = event.num_blocks
            self._ready = self._was_ready = True
            self.dispatcher.restarted()
            if self._on_change is not None:
                self._on_change()
            self.dispatcher.lobby.resume()
            if self._started is not None and not self._started.done():
                self._started.set_result(None)
        elif isinstance(event, Failed):
            self._reason = event.reason
            if event.drain == "now" or (event.drain == "repeated" and self._goes_on(event.code)):
                self._drained = event.reason

    def _goes_on(self, code: int) -> bool:
        """Whether engines go on failing in this way."""
        now = time.monotonic()
        self._failures = [each for each in self._failures if now - each[1] < _REPEATED_SECONDS]
        self._failures.append((code, now))
        return sum(each[0] == code for each in self._failures) >= _REPEATED

    def _check_for_hang(self) -> None:
        """With a request open, an engine that is well sends something every step."""
        if not (self._ready and self.dispatcher.busy):
            self._last_event = time.monotonic()  # nothing is expected of it
        elif (silent := time.monotonic() - self._last_event) > self._step_timeout:
            self._reason = f"no step finished in {silent:.0f} s"
            self._kill()

    async def _end_process(self) -> None:
        """Ask a running engine to end, and kill one that is loading or does not listen."""
        if self._process is None or self._process.returncode is not None:
            return
        if self._ready:
            self._send(Shutdown())
            self._ready = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), timeout=_SHUTDOWN_SECONDS)
                return
        self._kill()
        await self._process.wait()

    def _kill(self) -> None:
        """The process and those that it has started: the group is its own."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, command: Command) -> None:
        """To the engine, in one frame with whatever else is to be sent when the event loop comes round."""
        if self._ready:
            if not self._outbox:
                asyncio.get_running_loop().call_soon(self._flush)
            self._outbox.append(command)

    def _flush(self) -> None:
        if self._socket is not None and self._outbox:
            # There is no high-water mark, so this never waits.
            self._socket.send(encode(self._outbox), zmq.NOBLOCK)
            self._outbox.clear()
            self._receive()


def _cause_of_death(status: int) -> str:
    """What an exit status tells the operator."""
    if status == -signal.SIGKILL:
        return "the engine process was killed (SIGKILL), as the system does when memory runs out"
    if status < 0:
        return f"the engine process was ended by signal {signal.Signals(-status).name}"
    return f"the engine process ended with status {status}"
