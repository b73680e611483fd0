"""LoRA adapters on the real vLLM: each answers to its name as transformers does with the adapter merged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
import vllm_engine as vllm
from engine_kinds import IN_PROCESS, SERVER
from safetensors.torch import save_file
from serving import ANY_MODEL, Served, serving
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * vllm.START), pytest.mark.filterwarnings("ignore")]

NAME = "tuned"
RANK, ALPHA, TARGETS = 8, 16, ("q_proj", "v_proj")
QUESTION = "Tell me about the sea."
TOKENS = 24

Judge = torch.nn.Module


@pytest.fixture(scope="module")
def judge() -> Judge:
    model = AutoModelForCausalLM.from_pretrained(vllm.checkpoint(), dtype=torch.float32)
    return model.eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def adapter(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one, in PEFT's layout."""
    folder = tmp_path_factory.mktemp("adapter")
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, module in judge.named_modules():
        if name.endswith(TARGETS):
            out, width = module.weight.shape  # type: ignore[misc]
            for part, shape in (("lora_A", (RANK, width)), ("lora_B", (out, RANK))):
                tensors[f"base_model.model.{name}.{part}.weight"] = (
                    torch.randn(shape, generator=generator) * 0.05  # type: ignore[arg-type]
                )
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(vllm.checkpoint()),
        "r": RANK, "lora_alpha": ALPHA, "target_modules": [*TARGETS], "bias": "none",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def expected(judge: Judge, adapter: Path) -> dict[str, str]:
    """What the model says without the adapter and with it."""
    from safetensors.torch import load_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    plain = _greedy(judge)
    for name, module in judge.named_modules():
        if name.endswith(TARGETS):
            down, up = (tensors[f"base_model.model.{name}.{part}.weight"] for part in ("lora_A", "lora_B"))
            module.weight.data += ALPHA / RANK * up @ down  # type: ignore[union-attr,operator]
    return {ANY_MODEL: plain, NAME: _greedy(judge)}


def _greedy(judge: Judge) -> str:
    tokenizer = AutoTokenizer.from_pretrained(vllm.checkpoint())
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"]
    with torch.inference_mode():
        told = judge.generate(prompt, max_new_tokens=TOKENS, do_sample=False)  # type: ignore[operator]
    return str(tokenizer.decode(told[0, prompt.shape[1] :], skip_special_tokens=True))


@pytest.fixture(scope="module", params=[IN_PROCESS, SERVER])
def server(
    request: pytest.FixtureRequest, adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    loaded = ("--enable-lora", "--max-lora-rank", str(RANK), "--lora-modules", f"{NAME}={adapter}")
    kind = request.param
    with vllm.model_table(kind, folder, 512, *loaded if kind == SERVER else ()) as table:
        table |= {"id": ANY_MODEL, "adapters": {NAME: str(adapter) if kind == IN_PROCESS else ""}}
        config = folder / "outcrop.toml"
        lines = [f"{name} = {_toml(value)}" for name, value in table.items()]
        config.write_text("\n".join(["[[models]]", *lines, ""]))
        with serving(folder, "--config", str(config), patience=vllm.START) as served:
            yield served


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(name)} = {_toml(each)}" for name, each in value.items()) + " }"
    return json.dumps(value)


def test_an_adapter_answers_to_its_name(server: Served, expected: dict[str, str]) -> None:
    """And leaves the model as it was."""
    assert expected[NAME] != expected[ANY_MODEL]
    with closing(server.client(read_timeout=vllm.START)) as client:
        for name in (ANY_MODEL, NAME, ANY_MODEL):
            answer = client.converse(
                modelId=name,
                messages=[{"role": "user", "content": [{"text": QUESTION}]}],
                inferenceConfig={"maxTokens": TOKENS, "temperature": 0},
            )
            assert answer["output"]["message"]["content"] == [{"text": expected[name]}], name
