"""Configurations: every published Llama 3 is read right, and what is not supported is refused by name."""

import json

import gguf
import pytest
from tiny_models import LLAMA_31, LLAMA_32, ROPE_31, ROPE_32, tiny_model, write_gguf

from outcrop_compile.checkpoint import CheckpointError, open_checkpoint
from outcrop_compile.checkpoint.huggingface import read_config
from outcrop_compile.checkpoint.meta import read_params
from outcrop_compile.config import LlamaConfig, RopeScaling

# hidden, intermediate, layers, heads, kv heads, head_dim, scaling factor, tied, ffn multiplier, multiple of
PUBLISHED = {
    "3-8B": (4096, 14336, 32, 32, 8, 128, None, False, 1.3, 1024),
    "3-70B": (8192, 28672, 80, 64, 8, 128, None, False, 1.3, 4096),
    "3.1-8B": (4096, 14336, 32, 32, 8, 128, 8.0, False, 1.3, 1024),
    "3.1-70B": (8192, 28672, 80, 64, 8, 128, 8.0, False, 1.3, 4096),
    "3.1-405B": (16384, 53248, 126, 128, 8, 128, 8.0, False, 1.2, 4096),
    "3.2-1B": (2048, 8192, 16, 32, 8, 64, 32.0, True, 1.5, 256),
    "3.2-3B": (3072, 8192, 28, 24, 8, 128, 32.0, True, 1.0, 256),
    "3.3-70B": (8192, 28672, 80, 64, 8, 128, 8.0, False, 1.3, 4096),
}


def published(name: str) -> LlamaConfig:
    hidden, inner, layers, heads, kv_heads, head_dim, factor, tied, _, _ = PUBLISHED[name]
    return LlamaConfig(
        vocab_size=128256,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        context=131072 if factor else 8192,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        rope_scaling=RopeScaling(factor, 1.0, 4.0, 8192) if factor else None,
        tie_embeddings=tied,
    )


def huggingface_config(name: str) -> dict:
    """As the published config.json has it (transformers 4)."""
    config = published(name)
    fields = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "attention_bias": False, "vocab_size": 128256, "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size, "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads, "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.context, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
        "rope_scaling": None, "tie_word_embeddings": config.tie_embeddings, "pretraining_tp": 1,
    }  # fmt: skip
    if config.rope_scaling:
        fields["rope_scaling"] = ROPE_32 if config.rope_scaling.factor == 32 else ROPE_31
    if name.startswith("3.2"):
        fields |= {"head_dim": config.head_dim, "mlp_bias": False}
    return fields


@pytest.fixture
def write(tmp_path):
    def write(fields):
        (tmp_path / "config.json").write_text(fields if isinstance(fields, str) else json.dumps(fields))
        return tmp_path / "config.json"

    return write


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_in_hugging_face_form(write, name):
    assert read_config(write(huggingface_config(name))) == published(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_in_metas_form(write, name):
    config, (*_, multiplier, multiple_of) = published(name), PUBLISHED[name]
    params = {
        "dim": config.hidden_size, "n_layers": config.num_layers, "n_heads": config.num_heads,
        "n_kv_heads": config.num_kv_heads, "vocab_size": 128256, "ffn_dim_multiplier": multiplier,
        "multiple_of": multiple_of, "norm_eps": 1e-05, "rope_theta": 500000.0,
        "use_scaled_rope": config.rope_scaling is not None,
    }  # fmt: skip
    assert read_params(write(params), world=8, tied=config.tie_embeddings) == config


def test_transformers_5_keeps_rope_in_one_place(write):
    fields = huggingface_config("3.1-8B")
    del fields["rope_theta"], fields["rope_scaling"]
    fields["rope_parameters"] = {"rope_theta": 500000.0, **ROPE_31}
    assert read_config(write(fields)) == published("3.1-8B")


def test_old_spelling_of_the_rope_type(write):
    scaling = {"type" if key == "rope_type" else key: value for key, value in ROPE_31.items()}
    fields = huggingface_config("3.1-8B") | {"rope_scaling": scaling}
    assert read_config(write(fields)) == published("3.1-8B")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mistral"}, ["model_type", "'mistral'", "'llama'"]),
        ({"hidden_act": "gelu"}, ["hidden_act", "'gelu'", "'silu'"]),
        ({"attention_bias": True}, ["attention_bias", "True", "False"]),
        ({"mlp_bias": True}, ["mlp_bias"]),
        ({"quantization_config": {"quant_method": "fp8"}}, ["quantization_config", "fp8"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ["rope_type", "'yarn'", "'llama3'"]),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, ["type", "'linear'"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, ["low_freq_factor is missing"]),
        (
            {"rope_scaling": ROPE_31 | {"high_freq_factor": 1.0}},
            ["high_freq_factor", "above low"],
        ),
        ({"rope_scaling": [8.0]}, ["rope_scaling", "object"]),
        ({"hidden_size": None}, ["hidden_size is missing", "positive integer"]),
        ({"hidden_size": 4096.5}, ["hidden_size is 4096.5"]),
        ({"hidden_size": -1}, ["hidden_size is -1"]),
        ({"num_hidden_layers": True}, ["num_hidden_layers is True"]),
        ({"vocab_size": 10**12}, ["vocab_size"]),
        ({"num_attention_heads": 31}, ["hidden_size", "31"]),
        ({"num_key_value_heads": 5}, ["num_heads 32", "num_kv_heads 5"]),
        ({"head_dim": 63}, ["head_dim 63"]),
        ({"rms_norm_eps": "small"}, ["rms_norm_eps is 'small'", "positive number"]),
        ({"rms_norm_eps": 0}, ["rms_norm_eps"]),
        ({"rope_theta": float("nan")}, ["rope_theta is nan"]),
        ({"rope_theta": 1e300}, ["rope_theta is 1e+300"]),
        ({"rope_theta": 10**400}, ["rope_theta"]),
        ({"tie_word_embeddings": "yes"}, ["tie_word_embeddings"]),
    ],
)
def test_refused_huggingface_fields(write, change, words):
    with pytest.raises(CheckpointError) as error:
        read_config(write(huggingface_config("3.1-8B") | change))
    for word in ["config.json", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"text"', "[" * 100_000, "\x00\xff"])
def test_refused_json(write, text):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(write(text))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": None}, ["dim is missing"]),
        ({"rope_theta": None}, ["rope_theta is missing"]),
        ({"n_heads": 31}, ["n_heads is 31", "4 consolidated"]),
        ({"n_kv_heads": 2}, ["n_kv_heads is 2", "4 consolidated"]),
        ({"dim": 4095}, ["dim is 4095"]),
        ({"quantization_args": {"group_size": 256}}, ["quantization_args"]),
        ({"lora_args": {"rank": 16}}, ["lora_args"]),
        ({"vision_chunk_size": 448}, ["vision_chunk_size is 448", "text"]),
        ({"use_scaled_rope": "yes"}, ["use_scaled_rope"]),
    ],
)
def test_refused_params(write, change, words):
    params = {
        "dim": 4096,
        "n_layers": 2,
        "n_heads": 32,
        "n_kv_heads": 8,
        "vocab_size": 512,
        "rope_theta": 5e5,
    }
    with pytest.raises(CheckpointError) as error:
        read_params(write(params | change), world=4, tied=False)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"expert_count": 8}, ["llama.expert_count is 8"]),
        ({"rope__dimension_count": 48}, ["llama.rope.dimension_count is 48", "64"]),
    ],
)
def test_refused_gguf_metadata(tmp_path, metadata, words, monkeypatch):
    if "rope__dimension_count" in metadata:  # the writer refuses to set a key twice
        monkeypatch.setattr(gguf.GGUFWriter, "add_rope_dimension_count", lambda *_: None)
    file = write_gguf(tiny_model(LLAMA_32), tmp_path / "model.gguf", **metadata)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(file)
    for word in words:
        assert word in str(error.value)


def test_gguf_of_another_architecture(tmp_path, monkeypatch):
    start = gguf.GGUFWriter.__init__
    monkeypatch.setattr(gguf.GGUFWriter, "__init__", lambda self, path, _: start(self, path, "qwen2"))
    file = write_gguf(tiny_model(LLAMA_31), tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match=r"general\.architecture is 'qwen2'; supported: 'llama'"):
        open_checkpoint(file)
