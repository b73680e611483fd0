"""The engine process: `python -m outcrop.engine.process ADDRESS`, with its EngineConfig on standard input.

Loads the model, warms it up, then steps until told to shut down. It ends when its parent does: standard
input is held open by the parent for nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

from outcrop.backends.base import LOGPROBS, Backend, Capabilities, DeviceFailure
from outcrop.backends.fake import FakeBackend, FakeHooks
from outcrop.backends.kv_memory import kv_capacity
from outcrop.engine.config import PACKAGES, EngineConfig
from outcrop.engine.core import EngineCore
from outcrop.engine.frames import Command, Event, Failed, Progress, Ready, decode_commands, encode
from outcrop.engine.grammar_builder import GrammarBuilder
from outcrop.engine.loop import Built, run_engine
from outcrop.engine.policy import policy_for
from outcrop.engine.speculation import NgramDrafter
from outcrop.text.base import Tokenizer
from outcrop_compile.processors import usable_processors

if TYPE_CHECKING:
    from outcrop_compile.checkpoint import Checkpoint
    from outcrop_compile.weights import FloatType, Weight, WeightType
    from outcrop_kernels.cpu.native.weight_memory import WeightMemory

_FAKE_BLOCKS = 4096


def build_backend(config: EngineConfig, report: Callable[[Event], None]) -> tuple[Backend, str]:
    """The backend of a config and a line that describes it. Raises ValueError and OSError with a message
    meant for the operator."""
    if config.backend == "fake":
        return _fake_backend(config), "fake backend (a hash for a model)"
    if config.backend == "neuron":
        from outcrop.backends.neuron.launch import open_backend

        return open_backend(config, lambda stage, fraction: report(Progress(stage, fraction)))
    if config.backend == "transformers-neuronx":
        from outcrop.backends.transformers_neuronx import backend as legacy

        return legacy.open_backend(config)
    from outcrop_compile.checkpoint import open_checkpoint
    from outcrop_kernels.cpu.native.library import available

    native = available() if config.kernels == "auto" else config.kernels == "native"
    checkpoint = open_checkpoint(Path(config.model))
    dtype = fastest_dtype(native) if config.dtype == "auto" else config.dtype
    quantised: FloatType = "bfloat16" if native else "float32"
    plain = dtype if dtype == "float32" or dtype == "bfloat16" else quantised
    # The backend will find the same; but a setting that cannot be is refused before the weights are read.
    kv_capacity(
        checkpoint.config,
        itemsize=2 if plain == "bfloat16" else 4,
        kv_memory=config.kv_memory,
        block_size=config.block_size,
        max_model_len=config.max_model_len,
    )
    model, kind = checkpoint.config, checkpoint.format
    weights, origin, kept = _weights(config, checkpoint, dtype, plain, native, report)
    # Its memory map counts as resident; collected now, while there is little to look through.
    del checkpoint
    gc.collect()
    from outcrop.backends.cpu import CpuBackend

    backend = CpuBackend(
        model,
        weights,
        kv_memory=config.kv_memory,
        max_model_len=config.max_model_len,
        max_rows=config.max_rows,
        block_size=config.block_size,
        depth=config.depth,
        threads=config.threads,
        native=native,
        guesses=config.speculative_tokens,
        calibrated=kept.with_suffix(".calibration") if kept else None,
    )
    caps = backend.capabilities
    return backend, (
        f"{kind} checkpoint in {dtype}{origin} with {backend.kernels} kernels, "
        f"{caps.num_blocks * caps.block_size} tokens of KV, {caps.max_rows} requests at once"
    )


def _weights(
    config: EngineConfig,
    checkpoint: Checkpoint,
    dtype: WeightType,
    plain: FloatType,
    native: bool,
    report: Callable[[Event], None],
) -> tuple[dict[str, Weight] | WeightMemory, str, Path | None]:
    """The weights, packed where native kernels are to read them, a note on where they came from, and the file
    that keeps them. Imports torch."""
    from outcrop.backends.weight_cache import WeightCache
    from outcrop_compile.weights import load_weights

    def progress(done: int, total: int) -> None:
        report(Progress("weights", done / total))

    cache = WeightCache.at(config.weight_cache, config.weight_cache_size) if native else None
    path = cache.path(Path(config.model), dtype) if cache else None
    if cache and path and path.exists():
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(cache.load, path)
            _import_torch(report)
        if (memory := reading.result()) is not None:
            progress(1, 1)
            return memory, " (packed before)", path
    # Before torch is imported, if it can be: its import would fight the reading threads for the interpreter.
    weights = load_weights(checkpoint, dtype=dtype, plain=plain, progress=progress)
    _import_torch(report)
    if not native:
        return weights, "", None
    from outcrop.backends.cpu import pack
    from outcrop_kernels.cpu.native.library import start

    start(config.threads or usable_processors())
    memory = pack(weights)
    return memory, f" (packed, {cache.store(path, memory)})" if cache and path else "", path


def _import_torch(report: Callable[[Event], None]) -> None:
    report(Progress("runtime", 0.0))
    import outcrop.backends.cpu  # noqa: F401

    report(Progress("runtime", 1.0))


def fastest_dtype(native: bool) -> FloatType:
    """bfloat16 with the native kernels, which read it in half the time; torch needs a CPU that multiplies
    it in hardware."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        flags = []
    return "bfloat16" if native or "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def _fake_backend(config: EngineConfig) -> FakeBackend:
    step_seconds = config.fake_step_ms / 1000
    capabilities = Capabilities(
        max_rows=config.max_rows,
        block_size=config.block_size,
        num_blocks=_FAKE_BLOCKS,
        max_model_len=config.max_model_len or 8192,
        vocab_size=config.vocab_size,
        topk_cap=256,
        depth=config.depth,
        logprobs=LOGPROBS,
    )
    hooks = FakeHooks(
        step_seconds=(lambda _: step_seconds) if step_seconds else None, poison=config.fake_poison
    )
    return FakeBackend(capabilities, hooks)


def _load_tokenizer(config: EngineConfig) -> Tokenizer:
    # Few engines ever need it, and it would lengthen every start.
    from outcrop.text.tokenizer import load_tokenizer

    return load_tokenizer(Path(config.model))


class _Socket:
    """The engine's end of the pair: events are sent as they come, commands read in batches, and among
    them what this process's grammar builder has built."""

    def __init__(self, address: str) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.connect(address)
        # One frame per entry of the queue, so that waiting for commands ends when something is built.
        self._built: queue.SimpleQueue[Built] = queue.SimpleQueue()
        self._bell: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._bell.bind("inproc://built")
        self._bell_rope: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._bell_rope.connect("inproc://built")
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._bell, zmq.POLLIN)

    def send(self, event: Event) -> None:
        self._socket.send(encode(event))

    def deliver(self, built: Built) -> None:
        """Called on the builder's thread, and on no other."""
        self._built.put(built)
        with contextlib.suppress(zmq.ZMQError):  # closed: the process is ending
            self._bell_rope.send(b"")

    def receive(self, wait: bool) -> Iterable[Command | Built]:
        if wait:
            self._poller.poll()
        while not self._built.empty():
            self._bell.recv()
            yield self._built.get()
        while True:
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            yield from decode_commands(frame)

    def close(self) -> None:
        for socket in (self._socket, self._bell, self._bell_rope):
            socket.close()
        zmq.Context.instance().term()


def _die_with_parent(address: str) -> None:
    """End when standard input does, and remove what the parent no longer can: the socket, its folder, and the
    links in it."""
    sys.stdin.buffer.read()
    path = Path(address.removeprefix("ipc://"))
    with contextlib.suppress(OSError):
        path.unlink()
        links = path.parent / PACKAGES
        if links.exists():
            for link in links.iterdir():
                link.unlink()
            links.rmdir()
        path.parent.rmdir()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with what it has started, as vLLM does
    os._exit(1)


def _run(config: EngineConfig, socket: _Socket) -> int:
    """Load, then step until told to shut down. The exit status: 0 after a Shutdown command, else 1."""
    backend: Backend | None = None
    try:
        try:
            backend, description = build_backend(config, socket.send)
        except (ValueError, OSError) as error:
            # The checkpoint or a setting is wrong, and the message says all there is to say.
            socket.send(Failed(str(error)))
            return 1
        backend.warmup(lambda stage, fraction: socket.send(Progress(stage, fraction)))
        core = EngineCore(
            backend,
            policy_for(config.policy, config.backend),
            prefix_cache=config.prefix_cache,
            drafter=NgramDrafter() if config.speculative_tokens else None,
            clock=time.perf_counter_ns,
        )
        gc.freeze()
        gc.enable()
        capabilities = backend.capabilities
        socket.send(Ready(capabilities.max_model_len, description, core.abilities, capabilities.num_blocks))
        builder = GrammarBuilder(lambda: _load_tokenizer(config), capabilities.vocab_size, socket.deliver)
        run_engine(core, socket.receive, socket.send, builder.build)
        return 0
    except DeviceFailure as failure:
        socket.send(Failed(str(failure), failure.code, failure.drain))
        return 1
    except Exception as error:
        # The device's state is unknown after a failed step: end, and let the supervisor start afresh.
        socket.send(Failed(f"{type(error).__name__}: {error}"))
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        if backend is not None:
            backend.close()


def _run_steps(config: EngineConfig, address: str) -> int:
    socket = _Socket(address)
    try:
        return _run(config, socket)
    finally:
        socket.close()


def _run_vllm(config: EngineConfig, address: str) -> int:
    import asyncio

    from outcrop.backends.streaming import StreamingEngine, run_streaming

    engine: StreamingEngine
    if config.url:
        from outcrop.backends.vllm.remote import VllmServer

        engine = VllmServer(config)
    else:
        from outcrop.backends.vllm.engine import VllmEngine

        engine = VllmEngine(config)
    gc.enable()
    return asyncio.run(run_streaming(engine, address))


def main() -> None:
    """Entry point of the process."""
    # The API process decides when to end: a Ctrl-C at the terminal must let open streams finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    told = sys.stdin.buffer.readline()
    if not told:
        return  # the parent is gone already
    config = msgspec.json.decode(told, type=EngineConfig)
    if config.processors:
        os.sched_setaffinity(0, config.processors)  # before any thread is started: they inherit it
    address = sys.argv[1]
    threading.Thread(target=_die_with_parent, args=(address,), daemon=True).start()
    gc.disable()  # importing torch makes a million objects, none of them garbage
    status = _run_vllm(config, address) if config.backend == "vllm" else _run_steps(config, address)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # torch's exit handlers would take a second to free what the system frees at once


if __name__ == "__main__":
    main()
