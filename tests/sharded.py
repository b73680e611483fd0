"""A PagedLlama on the shards of its weights, run by ranks that are processes or threads. Apart from the
tests, so that the processes of the ranks import no more than this."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed
from paged import gloo
from safetensors.torch import load_file

from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.config import LlamaConfig
from outcrop_compile.llama import KVSizes, PagedLlama, TensorParallel
from outcrop_compile.meeting import Meeting
from outcrop_compile.shards import model_weights, shard_path
from outcrop_kernels.registry import Operations, Target, operations

KV = KVSizes(num_blocks=8, block_size=16, max_rows=2)
POSITIONS = 64
PROMPT = [3, 141, 59, 26, 5, 35, 89, 79, 32]


def load(
    config: LlamaConfig,
    folder: Path,
    parallel: TensorParallel | None = None,
    *,
    target: Target = "reference",
    ops: Operations | None = None,
) -> PagedLlama:
    """The model of one rank, on its shard. ops: of another choice than a target's own."""
    parallel = parallel or TensorParallel()
    stored = load_file(folder / shard_path(parallel.rank))
    weights = model_weights(stored)
    ops = ops or operations(target)
    model = PagedLlama(config, weights, KV, ops, max_positions=POSITIONS, parallel=parallel)
    for name in ("cos", "sin"):
        torch.testing.assert_close(getattr(model, name), stored[name], rtol=0, atol=0)
    return model


def generate(model: PagedLlama, count: int) -> list[int]:
    """Tokens drawn after PROMPT, so of all probabilities: by a prefill step, and decode steps that read the
    token table."""
    tokens, position, found = PROMPT, 0, []
    draws = torch.rand(count, 1, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        for step in range(count):
            width = len(tokens)
            positions = torch.arange(position, position + width, dtype=torch.int32)[None]
            chosen, finite = model(
                token_ids=torch.tensor([tokens], dtype=torch.int32),
                use_last=torch.full((1, width), int(step > 0), dtype=torch.int32),
                positions=positions,
                slot_mapping=positions + 16,  # its blocks are 1, 2, 3 ...
                block_tables=torch.arange(1, 5, dtype=torch.int32)[None],
                logits_idx=torch.tensor([width - 1], dtype=torch.int32),
                sampled=torch.ones(1, dtype=torch.int32),
                slots=torch.ones(1, dtype=torch.int32),
                sampling=torch.tensor([[1.0, 0.0, 1.0, 0.0]]),
                draws=draws[step],
            )
            assert finite.tolist() == [1]
            found.append(int(chosen[0]))
            tokens, position = [0], position + width
    return found


def run_rank(rank: int, world: int, checkpoint: str, shards: str, work: str) -> None:
    """One process of several: its tokens, into work/tokens{rank}.npy."""
    torch.set_num_threads(1)
    config = open_checkpoint(Path(checkpoint)).config
    model = load(config, Path(shards), gloo(rank, world, f"{work}/rendezvous"))
    np.save(f"{work}/tokens{rank}.npy", generate(model, 12))
    torch.distributed.destroy_process_group()


def run_threads(world: int, work: Callable[[TensorParallel], list[int]]) -> list[list[int]]:
    """What every rank of a world of threads returns."""
    meeting = Meeting(world, patience=60)
    results: list[list[int]] = [[] for _ in range(world)]

    def run(rank: int) -> None:
        try:
            results[rank] = work(meeting.parallel(rank))
        except BaseException:
            meeting.abort()
            raise

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
