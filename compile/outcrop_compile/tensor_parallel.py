"""How a model is divided among tensor-parallel ranks: the one place that knows which heads, rows and columns
are whose. No torch.

Query heads go with the key-value head that they attend with. Up to num_kv_heads ranks, each has whole groups
of them. Beyond, `copies` ranks keep the same key-value head and divide its queries; where those do not come
out even, every rank computes as many heads as the fullest, and what it has too many is padding. Rows of the
MLP are padded alike. Padding is zeros: zero rows of q, gate and up, zero columns of o and down, which add
nothing to what the ranks sum. The vocabulary is never padded, since a padded token could be sampled.

The embedding table is divided by its columns, which every rank looks up and sends to the others: by rows, a
rank would have to know which it has, and one compiled graph serves all ranks.

32 query and 8 key-value heads among 24 ranks (Llama 3 8B), 2 heads a rank, `-` being padding:

    rank      0     1     2     3     4     5    ...
    queries   0 1   2 3   - -   4 5   6 7   - -
    keys      0     0     0     1     1     1
"""

from __future__ import annotations

from dataclasses import dataclass

from outcrop_compile.config import LlamaConfig


class ShardingError(ValueError):
    """The model cannot be divided among this many ranks; the message names the size that does not fit."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A model's division among `world` ranks. Made by `divide`.

    heads, kv_heads, intermediate_size, vocab_size, embed_size: what one rank has of each (the last of the
    hidden size), padding included; the same on every rank. copies: ranks that keep the same key-value head.
    """

    config: LlamaConfig
    world: int
    heads: int
    kv_heads: int
    copies: int
    intermediate_size: int
    vocab_size: int
    embed_size: int

    def query_heads(self, rank: int) -> slice:
        """The model's query heads that this rank computes: its first ones, before any padding."""
        if self.copies == 1:
            return self._share(rank, self.heads, self.config.num_heads)
        group = self.config.num_heads // self.config.num_kv_heads
        key, place = divmod(rank, self.copies)
        share = self._share(place, self.heads, group)
        return slice(key * group + share.start, key * group + share.stop)

    def key_heads(self, rank: int) -> slice:
        """The model's key-value heads that this rank keeps."""
        start = rank // self.copies * self.kv_heads
        return slice(start, start + self.kv_heads)

    def intermediate_rows(self, rank: int) -> slice:
        """The model's rows of gate and up (columns of down) that this rank has, before any padding."""
        return self._share(rank, self.intermediate_size, self.config.intermediate_size)

    def vocabulary(self, rank: int) -> slice:
        """The tokens whose logits this rank computes."""
        return self._share(rank, self.vocab_size, self.config.vocab_size)

    def embed_columns(self, rank: int) -> slice:
        """The columns of the embedding table that this rank has, before any padding."""
        return self._share(rank, self.embed_size, self.config.hidden_size)

    @staticmethod
    def _share(place: int, size: int, length: int) -> slice:
        return slice(min(place * size, length), min((place + 1) * size, length))


def divide(config: LlamaConfig, world: int) -> Layout:
    """Raises ShardingError where key-value heads can be neither divided nor copied evenly, or where the
    vocabulary cannot be divided."""
    if world < 1:
        raise ShardingError(f"a model cannot be divided among {world} ranks")
    count = config.num_kv_heads
    if count % world and world % count:
        raise ShardingError(
            f"num_kv_heads {count} cannot be divided among {world} ranks, nor {world} ranks among them"
        )
    if config.vocab_size % world:
        raise ShardingError(f"vocab_size {config.vocab_size} cannot be divided among {world} ranks")
    group, kv_heads = config.num_heads // count, max(1, count // world)
    copies = max(1, world // count)
    return Layout(
        config=config,
        world=world,
        heads=kv_heads * -(-group // copies),
        kv_heads=kv_heads,
        copies=copies,
        intermediate_size=-(-config.intermediate_size // world),
        vocab_size=config.vocab_size // world,
        embed_size=-(-config.hidden_size // world),
    )
