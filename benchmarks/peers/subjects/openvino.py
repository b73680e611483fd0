"""OpenVINO GenAI's continuous batching pipeline, behind a server of this benchmark's."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks.peers.completions_server import Generator, Prompt, serve
from benchmarks.peers.peer import Peer

_KV_GIB = 2
_FORMATS = {"bf16": "fp16", "int8": "int8"}


class OpenVino(Peer):
    """OpenVINO keeps weights in float16, not bfloat16; every value of the demo model fits. It computes in
    what it finds best for the processor."""

    name = "openvino"
    package = "openvino-genai"
    requirements = ("openvino-genai==2026.4.1.0", "optimum-intel[openvino]==2.2.0", "torch==2.13.0")
    precisions: ClassVar = {"bf16": "float16 weights", "int8": "int8 weights"}

    def command(self, port: int) -> list[str]:
        module, folder = "benchmarks.peers.subjects.openvino", self.model.openvino(_FORMATS[self.precision])
        return [str(self.python), "-m", module, str(folder), str(port)]

    def prepare(self) -> None:
        kind = _FORMATS[self.precision]
        folder = self.model.openvino(kind)
        if folder.exists():
            return
        unfinished = folder.with_suffix(".unfinished")
        command = [
            *(str(self.folder / "bin" / "optimum-cli"), "export", "openvino"),
            *("--model", str(self.model.directory), "--task", "text-generation-with-past"),
            *("--weight-format", kind, str(unfinished)),
        ]
        subprocess.run(command, check=True)
        unfinished.rename(folder)

    def after_install(self) -> None:
        """PyPI's torchvision belongs to another build of torch and fails when imported."""
        self.pip("uninstall", "--yes", "torchvision")


class _Pipeline(Generator):
    def __init__(self, folder: str) -> None:
        import numpy
        import openvino
        import openvino_genai

        self._numpy, self._openvino, self._genai = numpy, openvino, openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = _KV_GIB
        scheduler.max_num_seqs = 32
        scheduler.enable_prefix_caching = True
        self._pipeline: Any = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU")

    def run(self, take: Callable[[bool], list[Prompt]]) -> None:
        running: list[tuple[Prompt, Any]] = []
        number = 0
        while True:
            for prompt in take(not running):
                number += 1
                running.append((prompt, self._add(number, prompt)))
            self._pipeline.step()
            for prompt, handle in running:
                if handle.can_read():
                    (output,) = handle.read().values()
                    prompt.emit(len(output.generated_ids))
            running = [each for each in running if not self._finished(each[1])]

    def _add(self, number: int, prompt: Prompt) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = prompt.max_tokens, True, False
        ids = self._openvino.Tensor(self._numpy.array([prompt.tokens], dtype=self._numpy.int64))
        return self._pipeline.add_request(number, ids, config)

    def _finished(self, handle: Any) -> bool:
        return bool(handle.get_status() != self._genai.GenerationStatus.RUNNING and not handle.can_read())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    serve(_Pipeline(options.folder), options.port)


if __name__ == "__main__":
    main()
