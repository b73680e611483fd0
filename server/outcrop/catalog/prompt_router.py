"""One name for two models: each request goes to the smaller one, unless it is likely to need the larger."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from outcrop.catalog.model import ServedModel

_SHORT = 256
_A_DOUBLING, _MOST_OF_LENGTH = 8, 48
_TOOLS, _STRUCTURE, _DOCUMENTS = 20, 10, 10
_A_TURN, _MOST_OF_TURNS = 2, 12


@dataclass(frozen=True, slots=True)
class Demand:
    """What of a request is looked at. text_bytes: of its prompt's texts, in UTF-8. turns: messages. tools:
    it offers some. structured: the answer must follow a schema. documents: it has some."""

    text_bytes: int
    turns: int = 1
    tools: bool = False
    structured: bool = False
    documents: bool = False

    @property
    def difference(self) -> float:
        """By how many percent the larger model's answer is taken to be the better one, 0 to 100.

        A rule of thumb, not a prediction by a model as the service's is: it costs nothing, depends on the
        request alone, and whoever reads it knows where a request goes. 8 points for each doubling of the
        texts beyond 256 bytes, up to 48 (16 KiB); 20 for tools; 10 for an answer that must follow a schema;
        10 for documents; 2 for each message after the first, up to 12.
        """
        length = _A_DOUBLING * math.log2(max(self.text_bytes, _SHORT) / _SHORT)
        return (
            min(length, _MOST_OF_LENGTH)
            + _TOOLS * self.tools
            + _STRUCTURE * self.structured
            + _DOCUMENTS * self.documents
            + min(_A_TURN * (self.turns - 1), _MOST_OF_TURNS)
        )


@dataclass(frozen=True, slots=True)
class PromptRouter:
    """targets: ARNs of the models, without repetition. fallback: one of them. threshold: the
    `responseQualityDifference`."""

    targets: tuple[str, ...]
    fallback: str
    threshold: float

    def choose(self, demand: Demand, resolve: Callable[[str], ServedModel]) -> str:
        """The ARN of the target that is to answer.

        The larger one where `demand.difference` is at least the threshold, else the smaller one: by the
        bytes of their checkpoints, so two whose sizes are equal or unknown leave it to the fallback. A target
        that cannot answer, since its engine is not ready or its context is too short for the texts, is passed
        over for the fallback, then for whatever is left. Raises UnknownModel.
        """
        models = {target: resolve(target) for target in self.targets}
        by_size = sorted(models, key=lambda target: models[target].size)
        if len({model.size for model in models.values()}) < len(models):
            wanted = self.fallback
        else:
            wanted = by_size[-1] if demand.difference >= self.threshold else by_size[0]
        for target in (wanted, self.fallback, *by_size):
            model = models[target]
            if model.engine.ready and not model.exceeds_context(demand.text_bytes):
                return target
        return wanted
