"""Stands in for how torch-neuronx arranges a graph's inputs."""


class Flattener:
    """layout: places of the inputs, in order. exclude: those that the graph does not read."""

    def __init__(self, layout: tuple[int, ...], exclude: list[int] | None = None) -> None:
        self.layout, self.exclude = layout, exclude
