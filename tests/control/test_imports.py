"""Imports of models: a fine-tuned one from S3 to its answers, and what is no model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from botocore.exceptions import ClientError
from paged import build, logits
from s3_server import CREDENTIALS, s3_server
from serving import Served, eventually, serving
from tiny_models import LLAMA_32, tiny_model, write_huggingface
from transformers import LlamaForCausalLM

from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.imports import shapes
from outcrop.api.imports.registry import ModelFiles
from outcrop.api.job_runner import JobOptions
from outcrop.catalog.model import ServedModel
from outcrop.fake_checkpoint import write_fake_checkpoint
from outcrop.ledger.database import Database
from outcrop.ledger.resource import Resource
from outcrop.storage import Storage
from outcrop.text.tokenizer import load_tokenizer

from ..api.doubles import ByteTokenizer, PlainTemplate, ScriptedEngine
from ..api.server import Server, running
from .conftest import client_of

ROLE = "arn:aws:iam::000000000000:role/import"
PROMPT = "The quick brown fox"
TOKENS = 12


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of a random Llama, and of the same after a few steps of training."""
    folder = tmp_path_factory.mktemp("models")
    vocabulary = load_tokenizer(write_fake_checkpoint(folder / "tokenizer")).vocab_size
    model = tiny_model(LLAMA_32, vocab_size=vocabulary, hidden_size=64, intermediate_size=128, head_dim=16)
    found = {"base": save(model, folder, "base")}
    train(model, list((PROMPT + " jumps over the lazy dog. ").encode()) * 3)
    return found | {"tuned": save(model, folder, "tuned")}


def save(model: LlamaForCausalLM, folder: Path, name: str) -> Path:
    target = write_huggingface(model, folder / name, dtype="float32")
    for file in (folder / "tokenizer").iterdir():
        shutil.copy(file, target)
    return target


def train(model: LlamaForCausalLM, tokens: list[int]) -> None:
    batch = torch.tensor([tokens])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(8):
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def start(bedrock: Any, uri: str, name: str = "tuned") -> str:
    made = bedrock.create_model_import_job(
        jobName=f"import-{name}",
        importedModelName=name,
        roleArn=ROLE,
        modelDataSource={"s3DataSource": {"s3Uri": uri}},
        importedModelTags=[{"key": "team", "value": "a"}],
    )
    arn: str = made["jobArn"]
    return arn


def finished(bedrock: Any, arn: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(bedrock.get_model_import_job(jobIdentifier=arn))
        return found["status"] != "InProgress"

    eventually(ended, "the end of the import")
    return found


# -- from training to answers ----------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, models: dict[str, Path]) -> Iterator[str]:
    """The URL of an S3 that has the tuned model in s3://models/tuned/."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as url:
        s3 = boto3.client("s3", endpoint_url=url)
        s3.create_bucket(Bucket="models")
        for file in models["tuned"].iterdir():
            s3.upload_file(str(file), "models", f"tuned/{file.name}")
        yield url


def served(folder: Path, models: dict[str, Path], url: str) -> Any:
    file = folder / "outcrop.toml"
    file.write_text(
        f"""
        [[models]]
        path = "{models["base"]}"
        id = "base"
        dtype = "float32"
        kv_memory = "4M"
        max_model_len = 256
        max_rows = 4
        weight_cache = "off"
        [storage]
        s3_endpoint = "{url}"
        models = "{folder / "imported"}"
        """
    )
    return serving(folder, "--config", str(file))


def answer_of(server: Served, model_id: str) -> str:
    """Greedily, once the model is there."""
    runtime = server.client(retries={"total_max_attempts": 1})
    body = json.dumps({"prompt": PROMPT, "temperature": 0, "max_gen_len": TOKENS})
    found: list[Any] = []

    def answered() -> bool:
        try:
            found.append(runtime.invoke_model(modelId=model_id, body=body))
        except runtime.exceptions.ModelNotReadyException:
            return False
        return True

    eventually(answered, "an answer")
    generation: str = json.loads(found[0]["body"].read())["generation"]
    return generation


def expected(folder: Path) -> str:
    """What transformers says."""
    tokenizer = load_tokenizer(folder)
    prompt = tokenizer.encode_prompt(PROMPT)
    judge = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(TOKENS):
            tokens.append(int(judge(torch.tensor([tokens])).logits[0, -1].argmax()))
            if tokens[-1] in tokenizer.eos_ids:
                tokens.pop()
                break
    return b"".join(map(tokenizer.token_bytes, tokens[len(prompt) :])).decode(errors="replace")


def test_a_fine_tuned_model(tmp_path: Path, models: dict[str, Path], bucket: str) -> None:
    with served(tmp_path, models, bucket) as server:
        bedrock = server.client("bedrock")
        job = finished(bedrock, start(bedrock, "s3://models/tuned/"))
        assert job["status"] == "Completed", job
        arn = job["importedModelArn"]
        model = bedrock.get_imported_model(modelIdentifier=arn)
        assert (model["modelName"], model["modelArchitecture"]) == ("tuned", "llama")
        assert model["instructSupported"] is True
        assert bedrock.list_tags_for_resource(resourceARN=arn)["tags"] == [{"key": "team", "value": "a"}]
        assert len(server.engines()) == 1  # none before somebody asks
        assert answer_of(server, arn) == expected(models["tuned"])
        assert answer_of(server, "base") == expected(models["base"]) != expected(models["tuned"])
        assert len(server.engines()) == 2
    with served(tmp_path, models, bucket) as server:
        assert answer_of(server, arn) == expected(models["tuned"])
        bedrock = server.client("bedrock")
        bedrock.delete_imported_model(modelIdentifier="tuned")
        assert len(server.engines()) == 1
        assert list((tmp_path / "imported").iterdir()) == []
        with pytest.raises(ClientError, match="model identifier is invalid"):
            server.client().invoke_model(modelId=arn, body=b"{}")


def test_its_logits_are_transformers_logits(models: dict[str, Path]) -> None:
    judge = LlamaForCausalLM.from_pretrained(models["tuned"], dtype=torch.float32)
    tokens = torch.randint(0, judge.config.vocab_size, (100,), dtype=torch.int32)
    with torch.inference_mode():
        wanted = judge(tokens[None].long()).logits[0]
    found = logits(build(models["tuned"]), tokens, (100,))
    assert float((found - wanted).abs().max()) <= 1e-3


# -- what is no model ------------------------------------------------------------------------------


def loaded(files: ModelFiles) -> ServedModel:
    return ServedModel(
        files.model_id, ByteTokenizer(), PlainTemplate(), ScriptedEngine(), files.name, arn=files.arn
    )


@pytest.fixture
def bedrock(tmp_path: Path) -> Iterator[Any]:
    control = ControlOptions(Storage(tmp_path), JobOptions(), tmp_path / "imported", loaded)
    with running(ScriptedEngine(), demo=False, control=control) as server:
        yield client_of(server.url, "bedrock")


def test_a_model_that_another_server_imported(tmp_path: Path, models: dict[str, Path], bucket: str) -> None:
    def server(name: str, jobs: int) -> Any:
        """One of those on a database, which works on so many jobs at once."""
        control = ControlOptions(
            Storage(None, bucket), JobOptions(side_by_side=jobs), tmp_path / name, loaded
        )
        database = Database(tmp_path / "state.db")
        return running(ScriptedEngine(), demo=False, control=control, database=database)

    def serves(server: Server, arn: str) -> bool:
        try:
            client_of(server.url, "bedrock-runtime").invoke_model(modelId=arn, body=b'{"prompt": "Hi"}')
        except ClientError as error:
            return error.response["Error"]["Code"] == "ModelNotReadyException"
        return True

    with server("first", jobs=1) as first:
        with server("second", jobs=0) as second:
            bedrock = client_of(first.url, "bedrock")
            arn = finished(bedrock, start(bedrock, "s3://models/tuned/"))["importedModelArn"]
            eventually(lambda: serves(second, arn), "an imported model")
            assert not (tmp_path / "second").exists()  # the files could be reached
        (tmp_path / "first").rename(tmp_path / "another host's")
        with server("second", jobs=0) as second:
            eventually(lambda: serves(second, arn), "a copied model")
            copy = tmp_path / "second" / arn.rpartition("/")[2]
            assert (copy / "model.safetensors").read_bytes() == (
                models["tuned"] / "model.safetensors"
            ).read_bytes()
            bedrock.delete_imported_model(modelIdentifier=arn)
            eventually(lambda: not serves(second, arn) and not copy.exists(), "the model's end")


def without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def of_another_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))


def with_another_tokenizer(folder: Path) -> None:
    write_huggingface(tiny_model(LLAMA_32), folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("config.json"), "has no config.json"),
        (without("model.safetensors"), r"has no \.safetensors file"),
        (without("tokenizer.json"), r"has no tokenizer\.json"),
        (cut, "truncated"),
        (of_another_kind, "mamba"),
        (with_another_tokenizer, "do not belong together"),
        (shutil.rmtree, "there is no such folder"),
    ],
)
def test_what_is_no_model(
    bedrock: Any, tmp_path: Path, models: dict[str, Path], spoil: Any, message: str
) -> None:
    folder = shutil.copytree(models["base"], tmp_path / "model")
    spoil(folder)
    job = finished(bedrock, start(bedrock, f"file://{folder}"))
    assert job["status"] == "Failed"
    assert "importedModelArn" not in job
    assert re.search(message, job["failureMessage"]), job["failureMessage"]


def test_a_name_is_one_models(bedrock: Any, tmp_path: Path, models: dict[str, Path]) -> None:
    folder = shutil.copytree(models["base"], tmp_path / "model")
    assert finished(bedrock, start(bedrock, f"file://{folder}"))["status"] == "Completed"
    with pytest.raises(ClientError, match="another imported model of the name tuned") as error:
        start(bedrock, f"file://{folder}")
    assert error.value.response["Error"]["Code"] == "ConflictException"
    bedrock.delete_imported_model(modelIdentifier="tuned")
    assert folder.exists()  # it was not copied, and is not Outcrop's


def test_an_import_that_is_interrupted_at_its_end(tmp_path: Path, models: dict[str, Path]) -> None:
    """The model is there, and its job has not been told to be completed."""
    control = ControlOptions(Storage(tmp_path), JobOptions(), tmp_path / "imported", loaded)
    folder = shutil.copytree(models["base"], tmp_path / "model")

    def server() -> Any:
        database = Database(tmp_path / "state.db")
        return running(ScriptedEngine(), demo=False, control=control, database=database)

    with server() as first:
        job = finished(
            client_of(first.url, "bedrock"), start(client_of(first.url, "bedrock"), f"file://{folder}")
        )
    with Database(tmp_path / "state.db").transaction() as session:
        session.get_one(Resource, (shapes.JOB, job["jobArn"].rpartition("/")[2])).status = shapes.IN_PROGRESS
    with server() as second:
        bedrock = client_of(second.url, "bedrock")
        again = finished(bedrock, job["jobArn"])
        assert (again["status"], again["importedModelArn"]) == ("Completed", job["importedModelArn"])
        assert len(bedrock.list_imported_models()["modelSummaries"]) == 1


def test_lists(bedrock: Any, tmp_path: Path, models: dict[str, Path]) -> None:
    folder = shutil.copytree(models["base"], tmp_path / "model")
    for name in ("a", "b", "c"):
        finished(bedrock, start(bedrock, f"file://{folder}", name))
    pages = bedrock.get_paginator("list_imported_models").paginate(PaginationConfig={"PageSize": 2})
    assert [each["modelName"] for page in pages for each in page["modelSummaries"]] == ["c", "b", "a"]
    pages = bedrock.get_paginator("list_model_import_jobs").paginate(
        nameContains="import-b", PaginationConfig={"PageSize": 1}
    )
    (job,) = [each for page in pages for each in page["modelImportJobSummaries"]]
    assert (job["jobName"], job["importedModelName"], job["status"]) == ("import-b", "b", "Completed")
