"""The peers, each in a file of its own in `subjects/`."""

from benchmarks.peers.peer import Peer
from benchmarks.peers.subjects.llamacpp import LlamaCpp
from benchmarks.peers.subjects.openvino import OpenVino
from benchmarks.peers.subjects.outcrop import Outcrop
from benchmarks.peers.subjects.transformers import Transformers
from benchmarks.peers.subjects.vllm import Vllm

PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (Outcrop, LlamaCpp, Vllm, OpenVino, Transformers)}
"""By name; the first is the one that the others are compared with."""
