"""A PagedLlama on a checkpoint, run in chunks, alone or as one of several ranks. Apart from the tests, so
that the processes of the ranks import no more than this."""

from pathlib import Path

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.llama import KVSizes, PagedLlama, TensorParallel
from outcrop_compile.weights import load_weights
from outcrop_kernels.registry import Target, operations

TOKENS = torch.arange(40, dtype=torch.int32) * 7 % 320
KV = KVSizes(num_blocks=40, block_size=16, max_rows=4)


def build(folder: Path, target: Target = "reference", parallel: TensorParallel | None = None) -> PagedLlama:
    checkpoint = open_checkpoint(folder)
    place = parallel or TensorParallel()
    weights = {
        name: torch.from_numpy(array)
        for name, array in load_weights(checkpoint, rank=place.rank, world=place.world).items()
    }
    return PagedLlama(checkpoint.config, weights, KV, operations(target), max_positions=600, parallel=place)


def logits(model: PagedLlama, tokens: Tensor, cuts: tuple[int, ...]) -> Tensor:
    """Of every token, computed in chunks that end at `cuts`, over scattered blocks."""
    blocks = torch.tensor([31, 5, 18, 2, 39, 0, 11, 26, 7, 13, 33, 21, 9, 4, 28, 1, 36, 16, 30, 38, 12])
    parts, start = [], 0
    with torch.inference_mode():
        for end in cuts:
            positions = torch.arange(start, end, dtype=torch.int32)
            slots = (blocks[positions // 16] * 16 + positions % 16).to(torch.int32)
            hidden = model.hidden_states(
                tokens[None, start:end], positions[None], slots[None], blocks[None].to(torch.int32)
            )
            parts.append(model.parallel.all_gather(model.logits(hidden)))
            start = end
    return torch.cat(parts)


def chosen(model: PagedLlama) -> Tensor:
    """What a step of two rows takes: greedy, drawn, and drawn after an edit of the logits. int32 [3, 3, 2]:
    tokens, whether rows are finite, and what the token table keeps of them."""
    rows = torch.arange(2, dtype=torch.int32)
    tokens, positions = TOKENS.reshape(2, 20), torch.arange(20, dtype=torch.int32).expand(2, 20)
    step = (tokens, torch.zeros_like(tokens), positions, positions + 32 * rows[:, None])
    tables = torch.tensor([[0, 1], [2, 3]], dtype=torch.int32)
    sampling = torch.tensor([[0.9, 0.0, 1.0, 0.0], [2.0, 40.0, 0.95, 0.0]])
    draws = torch.tensor([0.35, 0.8])
    bias = torch.zeros(2, 320)
    bias[:, 200:] = 3.0
    kinds: tuple[tuple[Tensor | None, ...], ...] = ((), (sampling, draws), (sampling, draws, None, bias))
    results = []
    with torch.inference_mode():
        for kind in kinds:
            got, finite = model(*step, tables, rows + 18, torch.ones_like(rows), rows + 1, *kind)
            results.append(torch.stack([got, finite, model.last_token[1:3]]))
    return torch.stack(results)


def gloo(rank: int, world: int, port_file: str) -> TensorParallel:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{port_file}", rank=rank, world_size=world
    )

    def all_reduce(tensor: Tensor) -> Tensor:
        total = tensor.clone()
        torch.distributed.all_reduce(total)
        return total

    def all_gather(tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(world)]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts, dim=-1)

    return TensorParallel(rank, world, all_reduce, all_gather)


def run_rank(rank: int, world: int, folder: str, work: str) -> None:
    """Logits of TOKENS and `chosen` as this rank computes them, into work/rank{rank}.npy and
    work/chosen{rank}.npy."""
    torch.set_num_threads(1)
    model = build(Path(folder), parallel=gloo(rank, world, f"{work}/rendezvous"))
    np.save(f"{work}/rank{rank}.npy", logits(model, TOKENS, (23, 24, 40)).numpy())
    np.save(f"{work}/chosen{rank}.npy", chosen(model).numpy())
    torch.distributed.destroy_process_group()
