"""The graphs of a bucket take what the model's forward pass takes, and are told apart by their tags."""

import inspect
import itertools

import pytest

from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.graph import Graph, Variant, graphs_of
from outcrop_compile.llama import PagedLlama

BUCKETS = [
    Bucket(kind, rows, width, blocks)
    for kind, rows, width, blocks in itertools.product(StepKind, (1, 8), (1, 5), (4, 16))
]


@pytest.mark.parametrize("variant", list(Variant))
def test_inputs_are_the_first_arguments_of_the_model(variant: Variant) -> None:
    """NxD orders a graph's inputs as the traced function's parameters are, however they are given."""
    names = [each.name for each in Graph(BUCKETS[0], variant).inputs(320)]
    parameters = list(inspect.signature(PagedLlama.forward).parameters)[1:]
    assert names == parameters[: len(names)]
    assert len(names) == {"greedy": 8, "sampled": 10, "edited": 13}[variant]


def test_every_graph_has_its_own_tag() -> None:
    tags = [graph.tag for graph in graphs_of(BUCKETS)]
    assert len(set(tags)) == len(tags) == 8 * 3 + 8 * 3 + 8
    assert "decode-greedy-8x1-16" in tags


def test_a_verify_step_samples_after_every_token() -> None:
    (graph,) = graphs_of([Bucket(StepKind.VERIFY, 2, 5, 4)])
    shapes = {each.name: each.shape for each in (*graph.inputs(320), *graph.outputs())}
    assert (shapes["draws"], shapes["tokens"], shapes["finite"]) == ((2, 5), (2, 5), (2,))
    shapes = {each.name: each.shape for each in Graph(BUCKETS[0], Variant.EDITED).inputs(321)}
    assert (shapes["allowed"], shapes["bias"]) == ((1, 11), (1, 321))
