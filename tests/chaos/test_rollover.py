"""SIGHUP: a changed configuration goes into service under load, and a wrong one does not."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from demo import PATH
from serving import ANY_MODEL, Served, eventually, serving

CALLS = 4


def configure(folder: Path, model: Path, step_ms: int, server: str = "") -> Path:
    config = folder / "outcrop.toml"
    config.write_text(
        f'{server}\n[[models]]\npath = "{model}"\nbackend = "fake"\nreplicas = 2\nmax_model_len = 2048\n'
        f"fake_step_ms = {step_ms}\n"
    )
    return config


def ask(client: Any, number: int, tokens: int) -> tuple[str, str]:
    """The text of a stream, and why it ended. Greedy, so the model and the question decide it."""
    answer = client.converse_stream(
        modelId=ANY_MODEL,
        messages=[{"role": "user", "content": [{"text": f"Question {number}"}]}],
        inferenceConfig={"maxTokens": tokens, "temperature": 0.0},
    )
    text, reason = [], ""
    with closing(answer["stream"]) as stream:
        for event in stream:
            if "contentBlockDelta" in event:
                text.append(event["contentBlockDelta"]["delta"]["text"])
            elif "messageStop" in event:
                reason = event["messageStop"]["stopReason"]
    return "".join(text), reason


def hang_up(server: Served, said: str) -> None:
    """SIGHUP, until the log has said something more often than before."""
    before = server.output.count(said)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: server.output.count(said) > before, said)


def test_new_engines_take_over_under_load_without_a_failed_or_different_answer(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.symlink_to(PATH)
    config = configure(tmp_path, model, 8)
    with serving(tmp_path, "--config", str(config)) as server:
        eventually(lambda: len(server.engines()) == 2, "two engines")
        eventually(lambda: server.metric("outcrop_engine_ready") == 2, "two ready engines")
        before = {each.pid for each in server.engines()}
        done = threading.Event()
        answers: list[tuple[int, int, tuple[str, str]]] = []

        def load(client: Any, number: int) -> None:
            tokens = 200 if number == 0 else 40
            while not done.is_set():
                answers.append((number, tokens, ask(client, number, tokens)))

        with (
            closing(server.client(max_pool_connections=CALLS)) as client,
            ThreadPoolExecutor(CALLS) as pool,
        ):
            clients = [pool.submit(load, client, number) for number in range(CALLS)]
            try:
                eventually(lambda: server.metric("vllm:generation_tokens_total") > 100, "load")
                configure(tmp_path, model, 1, "drain_seconds = 9")
                hang_up(server, "outcrop.demo is updated")
            finally:
                done.set()
            for each in clients:
                each.result()  # no call has failed
            assert not before & {each.pid for each in server.engines()}
            assert "drain_seconds has changed: that takes a new start" in server.output
            kinds = {each[:2] for each in answers}
            undisturbed = {kind: ask(client, *kind) for kind in kinds}
            assert len(answers) > CALLS
            for number, tokens, answer in answers:
                assert answer == undisturbed[number, tokens]
            assert server.restarts == 0

            hang_up(server, "nothing has changed")
            config.write_text("[[models]]\n")
            hang_up(server, "the configuration is not taken over")
            configure(tmp_path, write_broken(tmp_path), 1)
            hang_up(server, "outcrop.demo is not updated")
            assert server.is_ready()
            assert ask(client, 1, 40) == undisturbed[1, 40]
        assert "Traceback" not in server.output


def write_broken(folder: Path) -> Path:
    broken = folder / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    return broken
