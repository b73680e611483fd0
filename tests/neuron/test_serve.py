"""`outcrop serve --backend neuron` on a stand-in for the Neuron SDK: it answers from an artifact, and when
the hardware fails it stays up to say so."""

import json
import signal
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from botocore.exceptions import ClientError
from fake_neuron import Fault
from neuron_artifact import SHAPES, write_artifact
from serving import ANY_MODEL, eventually, serving
from tiny_models import LLAMA_32, tiny_model, write_huggingface

from outcrop.fake_checkpoint import write_fake_checkpoint
from outcrop.text.tokenizer import load_tokenizer

CALL = {
    "modelId": ANY_MODEL,
    "messages": [{"role": "user", "content": [{"text": "Hello"}]}],
    "inferenceConfig": {"maxTokens": 8, "temperature": 0},
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a tokenizer, so that it is all that serving needs."""
    folder = tmp_path_factory.mktemp("artifact")
    files = write_fake_checkpoint(folder / "checkpoint")
    model = tiny_model(
        LLAMA_32,
        vocab_size=load_tokenizer(files).vocab_size,
        hidden_size=64,
        intermediate_size=128,
        head_dim=16,
    )
    write_artifact(folder, write_huggingface(model, tmp_path_factory.mktemp("model")), shapes=SHAPES)
    return folder


@pytest.mark.usefixtures("sdk")
def test_it_answers_and_when_the_hardware_fails_it_is_not_ready_any_more(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps([[asdict(Fault(1202, at=12))]]))
    monkeypatch.setenv("FAKE_NEURON_FAULTS", str(faults))
    with serving(tmp_path, "--backend", "neuron", "--artifact", str(artifact), "--cores", "2") as served:
        client = served.client()
        assert client.converse(**CALL)["usage"]["outputTokens"] == 8
        with pytest.raises(ClientError) as failed:
            client.converse(**CALL)
        assert failed.value.response["Error"]["Code"] == "ServiceUnavailableException"
        eventually(lambda: not served.is_ready(), "a server that is not ready")
        ready = httpx.get(f"{served.url}/health/ready")
        (state,) = ready.json()["models"].values()
        assert ready.status_code == 503
        assert "NRT_EXEC_HW_ERR_NC_UE (1202): parity error in a NeuronCore; replace the instance" in state
        assert httpx.get(f"{served.url}/health/live").status_code == 200
        with pytest.raises(ClientError) as failed:
            client.converse(**CALL)
        assert failed.value.response["Error"]["Code"] == "ServiceUnavailableException"
        assert "stays up to say so" in served.output
        assert served.engines() == []
        served.process.send_signal(signal.SIGTERM)
        assert served.wait() == 0


def test_without_the_sdk_it_says_how_to_install_it(artifact: Path, tmp_path: Path) -> None:
    options = ("--model", str(artifact / "checkpoint"), "--backend", "neuron", "--artifact", str(artifact))
    with serving(tmp_path, *options, wait=False) as served:
        assert served.wait() == 1
        assert "the Neuron SDK is not installed" in served.output
        assert "pip install --extra-index-url https://pip.repos.neuron.amazonaws.com" in served.output
        assert "Traceback" not in served.output
