"""Stands in for torch-neuronx's protobuf of what the runtime has to know of a graph."""


class MetaNeff:
    data = b""

    def ParseFromString(self, data: bytes) -> None:  # noqa: N802 - protobuf's name
        self.data = data
