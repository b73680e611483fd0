"""Settings: which source wins, and what is said about values that cannot be."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from outcrop.engine.config import DEFAULT_KV_MEMORY, EngineConfig
from outcrop.settings import ModelSettings, Settings, SettingsError, load_key_settings, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two checkpoints to name, and an environment without settings."""
    for name in list(os.environ):
        if name.upper().startswith("OUTCROP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Path("a.gguf").touch()
    Path("b").mkdir()
    return tmp_path


def write(text: str, name: str = "outcrop.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def from_toml(text: str, **options: Any) -> Settings:
    return load_settings(config=write(text), **options)


def with_model(**model: Any) -> Settings:
    """As from the command line."""
    return load_settings(config=None, model={"path": "a.gguf"} | model)


def complaint(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(*args, **kwargs)
    return str(caught.value)


def toml_complaint(text: str) -> str:
    return complaint(config=write(text))


ONE_MODEL = '[[models]]\npath = "a.gguf"\n'
TWO_MODELS = '[[models]]\npath = "a.gguf"\nid = "a"\n[[models]]\npath = "b"\nid = "b"\n'

# -- which source wins -----------------------------------------------------------------------------


def test_the_defaults() -> None:
    settings = with_model()
    assert (settings.host, settings.port, settings.log_level) == ("127.0.0.1", 8080, "info")
    assert (settings.region, settings.max_inflight) == ("us-east-1", 256)
    assert (settings.drain_seconds, settings.step_timeout) == (30, 120)
    assert (settings.strict, settings.fault_injection, settings.prompts) == (False, False, None)
    assert settings.seed is None
    assert settings.models == (ModelSettings(path=Path("a.gguf")),)
    assert settings.demo
    assert settings.models[0].engine_config() == EngineConfig(model="a.gguf")


def test_command_line_then_environment_then_file_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(f'port = 1\nregion = "file-1"\nmax_inflight = 1\n{ONE_MODEL}')
    monkeypatch.setenv("OUTCROP_PORT", "2")
    monkeypatch.setenv("OUTCROP_REGION", "env-1")
    settings = load_settings(config=config, server={"port": "3"})
    assert (settings.port, settings.region, settings.max_inflight) == (3, "env-1", 1)
    assert settings.drain_seconds == 30


def test_models_of_the_command_line_then_the_environment_then_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = write(TWO_MODELS)
    assert [model.id for model in load_settings(config=config).models] == ["a", "b"]
    monkeypatch.setenv("OUTCROP_MODELS", json.dumps([{"path": "a.gguf", "id": "env", "max_rows": 3}]))
    (model,) = load_settings(config=config).models
    assert (model.id, model.max_rows) == ("env", 3)
    (model,) = load_settings(config=config, model={"path": "b"}).models
    assert (model.path, model.id, model.max_rows) == (Path("b"), None, 32)


def test_model_options_without_a_path_change_the_one_model_of_the_file() -> None:
    text = f'{ONE_MODEL}id = "a"\nkv_memory = "1G"\nmax_rows = 5\n'
    (model,) = from_toml(text, model={"kv_memory": "2G"}).models
    assert (model.path, model.id, model.kv_memory, model.max_rows) == (Path("a.gguf"), "a", 2 << 30, 5)
    assert complaint(config=write(text), model={"max_rows": "0"}).startswith("--max-rows: ")
    assert complaint(config=write(TWO_MODELS), model={"kv_memory": "2G", "threads": "1"}) == (
        "--kv-memory, --threads: there are 2 models; set this in their [[models]] tables"
    )


def test_the_file_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTCROP_CONFIG", str(write(f"port = 5\n{ONE_MODEL}", "named.toml")))
    assert load_settings(config=None).port == 5
    assert load_settings(config=write(f"port = 6\n{ONE_MODEL}")).port == 6
    monkeypatch.setenv("OUTCROP_CONFIG", "missing.toml")
    assert complaint(config=None) == "configuration file missing.toml: there is no such file"


def test_everything_in_a_file() -> None:
    settings = from_toml(
        """
        host = "::1"
        port = 0
        log_level = "debug"
        region = "eu-central-1"
        max_inflight = 7
        drain_seconds = 1.5
        step_timeout = 2
        strict = true
        fault_injection = true
        seed = 5
        prompts = "b"
        [[models]]
        path = "b"
        id = "meta.llama3-8b-instruct-v1:0"
        aliases = ["llama", "chat"]
        name = "Llama"
        backend = "fake"
        dtype = "float32"
        kv_memory = "2GiB"
        max_model_len = 4096
        max_rows = 8
        block_size = 16
        depth = 1
        policy = "decode-first"
        prefix_cache = false
        threads = 2
        fake_step_ms = 0.5
        fake_poison = 3
        """
    )
    assert (settings.host, settings.port, settings.drain_seconds, settings.demo) == ("::1", 0, 1.5, False)
    assert (settings.strict, settings.fault_injection, settings.prompts) == (True, True, Path("b"))
    assert settings.seed == 5
    (model,) = settings.models
    assert (model.aliases, model.name) == (("llama", "chat"), "Llama")
    assert model.engine_config(vocab_size=9) == EngineConfig(
        model="b", backend="fake", dtype="float32", kv_memory=2 << 30, max_model_len=4096, max_rows=8,
        block_size=16, depth=1, policy="decode-first", prefix_cache=False, threads=2, vocab_size=9,
        fake_step_ms=0.5, fake_poison=3,
    )  # fmt: skip


def test_every_field_of_the_engine_can_be_set_but_those_that_are_found_out() -> None:
    assert set(EngineConfig.__struct_fields__) - set(ModelSettings.model_fields) == {
        "model",
        "vocab_size",
        "processors",
    }


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "size"),
    {
        "512M": 512 << 20, "512m": 512 << 20, "512MB": 512 << 20, "512MiB": 512 << 20, "2GiB": 2 << 30,
        "1.5G": 3 << 29, " 4096 K ": 4 << 20, "1048576": 1 << 20, "1048577B": (1 << 20) + 1, 2097152: 2 << 20,
        "1125899906842623": 2**50 - 1,
    }.items(),
)  # fmt: skip
def test_sizes(written: str | int, size: int) -> None:
    assert with_model(kv_memory=written).models[0].kv_memory == size


@pytest.mark.parametrize(
    "rubbish", ["", "M", "2Q", "5iB", "-5M", "1,5G", "1.5.2G", "0x10M", "1e9", "G2", "٣M"]
)
def test_what_is_not_a_size(rubbish: str) -> None:
    assert complaint(config=None, model={"path": "b", "kv_memory": rubbish}) == (
        f"--kv-memory: {rubbish!r} is not a size; write bytes or a number with K, M or G, such as 512M"
    )


@pytest.mark.parametrize("size", ["1023K", "0", "9" * 400, 5, 1.5, True, None, []])
def test_sizes_that_cannot_be(size: Any) -> None:
    assert complaint(config=None, model={"path": "b", "kv_memory": size}).startswith(
        "--kv-memory: Input should be"
    )


def artifact(*, checkpoint: bool = True) -> Path:
    folder = Path("artifact")
    (folder / "checkpoint").mkdir(parents=True) if checkpoint else folder.mkdir()
    return folder


def test_an_artifact_has_what_serving_needs_of_its_checkpoint() -> None:
    folder = artifact()
    settings = load_settings(
        config=None, model={"backend": "neuron", "artifact": str(folder), "cores": "0-1"}
    )
    (model,) = settings.models
    assert model.path == folder / "checkpoint"
    assert model.engine_config() == EngineConfig(
        model="artifact/checkpoint", backend="neuron", artifact="artifact", cores="0-1"
    )
    table = '[[models]]\nid = "x"\nbackend = "neuron"\nartifact = "artifact"\npath = "a.gguf"\n'
    assert from_toml(table).models[0].path == Path("a.gguf")


def test_what_an_artifact_decides_is_no_setting() -> None:
    neuron = {"path": "a.gguf", "backend": "neuron", "artifact": str(artifact(checkpoint=False))}
    for name, value in (("kv_memory", "1G"), ("dtype", "int8"), ("max_rows", "4"), ("threads", "2")):
        found = complaint(config=None, model=neuron | {name: value})
        assert (
            found
            == f"--{name.replace('_', '-')}: with backend neuron the artifact decides this; leave it out"
        )
    assert complaint(config=None, model={"path": "a.gguf", "backend": "neuron"}).startswith(
        "--artifact: backend neuron serves what `outcrop compile build` made"
    )
    for name, value in (("artifact", "artifact"), ("cores", "0-1")):
        found = complaint(config=None, model={"path": "a.gguf", name: value})
        assert found == f"--{name}: this is for backend neuron, and the backend is cpu"
    assert complaint(config=None, model=neuron | {"cores": "7-0"}).startswith("--cores: '7-0' is not a range")
    without_path = {name: value for name, value in neuron.items() if name != "path"}
    assert "this is required" in complaint(config=None, model=without_path)


def test_the_vllm_backend(tmp_path: Path) -> None:
    vllm = {"path": str(tmp_path), "backend": "vllm"}
    here = vllm | {"python": sys.executable, "engine_args": '{"enforce_eager": true}'}
    config = load_settings(config=None, model=here).models[0].engine_config()
    assert (config.python, config.engine_args) == (sys.executable, {"enforce_eager": True})
    assert (config.kv_memory, config.max_rows, config.block_size) == (0, 0, 0)  # vLLM chooses
    remote = vllm | {"url": "http://127.0.0.1:8000"}
    assert load_settings(config=None, model=remote).models[0].engine_config().url == remote["url"]
    assert "reads Hugging Face folders" in complaint(config=None, model={"path": "a.gguf", "backend": "vllm"})
    assert "give its url" in complaint(config=None, model=vllm | {"served_name": "x"})
    assert "leave it out" in complaint(config=None, model=vllm | {"policy": "paced"})
    assert "the server at" in complaint(config=None, model=remote | {"dtype": "float32"})
    assert "that Outcrop starts" in complaint(config=None, model=remote | {"python": sys.executable})


def test_the_legacy_backend(tmp_path: Path) -> None:
    legacy = {"path": str(tmp_path), "backend": "transformers-neuronx", "cores": "0-7"}
    settings = load_settings(config=None, model=legacy | {"python": sys.executable})
    config = settings.models[0].engine_config()
    assert (config.backend, config.cores, config.python) == ("transformers-neuronx", "0-7", sys.executable)
    assert "has no use for this" in complaint(config=None, model=legacy | {"kv_memory": "1G"})


def test_the_default_size() -> None:
    assert with_model().models[0].kv_memory == DEFAULT_KV_MEMORY


# -- values that cannot be -------------------------------------------------------------------------

WRONG_FOR_A_MODEL: dict[str, tuple[Any, str]] = {
    "path": ("nowhere", "nowhere: there is no such file or folder"),
    "id": ("", "at least 1 character (given: '')"),
    "aliases": ("x", "valid tuple (given: 'x')"),
    "backend": ("gpu", "'cpu', 'fake', 'neuron', 'vllm' or 'transformers-neuronx' (given: 'gpu')"),
    "url": ("here", r"pattern '^https?://[^\s]+$' (given: 'here')"),
    "python": ("nowhere", "nowhere: there is no such file or folder"),
    "served_name": ("x", "this is for backend vllm, and the backend is cpu"),
    "api_key_env": ("X", "this is for backend vllm, and the backend is cpu"),
    "engine_args": ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    "adapters": ("x", "valid dictionary (given: 'x')"),
    "artifact": ("nowhere", "nowhere: there is no such folder"),
    "cores": ("7-0", "write the first and the last, such as 0-7"),
    "replicas": (0, "greater than or equal to 1 (given: 0)"),
    "dtype": ("float16", "'auto', 'float32', 'bfloat16', 'int8' or 'int4' (given: 'float16')"),
    "weight_cache": ("", "at least 1 character (given: '')"),
    "weight_cache_size": ("1K", "greater than or equal to 1048576 (given: 1024)"),
    "kernels": ("cuda", "'auto', 'native' or 'torch' (given: 'cuda')"),
    "max_model_len": (15, "greater than or equal to 16 (given: 15)"),
    "max_rows": ("many", "valid integer, unable to parse string as an integer (given: 'many')"),
    "block_size": (0, "greater than or equal to 1 (given: 0)"),
    "depth": (5, "less than or equal to 4 (given: 5)"),
    "policy": ("fair", "'auto', 'interleave', 'paced', 'prefill-first' or 'decode-first' (given: 'fair')"),
    "speculative_tokens": (16, "less than or equal to 15 (given: 16)"),
    "prefix_cache": ("perhaps", "valid boolean, unable to interpret input (given: 'perhaps')"),
    "threads": (0, "greater than or equal to 1 (given: 0)"),
    "fake_step_ms": (-1, "greater than or equal to 0 (given: -1)"),
    "fake_poison": (-1, "greater than or equal to 0 (given: -1)"),
}
WRONG_FOR_THE_SERVER: dict[str, tuple[Any, str]] = {
    "host": ("", "at least 1 character (given: '')"),
    "port": (65536, "less than or equal to 65535 (given: 65536)"),
    "log_level": ("loud", "'debug', 'info', 'warning' or 'error' (given: 'loud')"),
    "region": ("Mars!", "pattern '^[a-z0-9-]{1,20}$' (given: 'Mars!')"),
    "max_inflight": (0, "greater than or equal to 1 (given: 0)"),
    "notice_seconds": (-1, "greater than or equal to 0 (given: -1)"),
    "drain_seconds": (float("inf"), "less than or equal to 86400 (given: inf)"),
    "step_timeout": (0, "greater than 0 (given: 0)"),
    "strict": ("perhaps", "valid boolean, unable to interpret input (given: 'perhaps')"),
    "sagemaker": ("perhaps", "valid boolean, unable to interpret input (given: 'perhaps')"),
    "fault_injection": ("perhaps", "valid boolean, unable to interpret input (given: 'perhaps')"),
    "inspect": (-1, "greater than or equal to 0 (given: -1)"),
    "seed": (-1, "greater than or equal to 0 (given: -1)"),
    "prompts": ("a.gguf", "a.gguf: there is no such folder"),
    "state": ("", "at least 1 character (given: '')"),
    "tls_certificate": ("nowhere", "nowhere: there is no such file or folder"),
    "tls_key": ("nowhere", "nowhere: there is no such file or folder"),
}


@pytest.mark.parametrize(("field", "wrong"), WRONG_FOR_A_MODEL.items(), ids=WRONG_FOR_A_MODEL)
def test_wrong_values_for_a_model(
    field: str, wrong: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value, message = wrong
    first = {"path": "b", "id": "first"}
    second = {"path": "b", "id": "second"} | {field: value}
    tables = "".join(
        "[[models]]\n" + "".join(f"{name} = {json.dumps(each)}\n" for name, each in model.items())
        for model in (first, second)
    )
    found = toml_complaint(tables)
    assert found.startswith(f"outcrop.toml: model 2: {field}: ")
    assert found.endswith(message)
    option = "--model" if field == "path" else f"--{field.replace('_', '-')}"
    found = complaint(config=None, model={"path": "b"} | {field: value})
    assert found.startswith(f"{option}: ")
    assert found.endswith(message)
    monkeypatch.setenv("OUTCROP_MODELS", json.dumps([first, second]))
    found = complaint(config=None)
    assert found.startswith(f"OUTCROP_MODELS: model 2: {field}: ")
    assert found.endswith(message)


@pytest.mark.parametrize(("field", "wrong"), WRONG_FOR_THE_SERVER.items(), ids=WRONG_FOR_THE_SERVER)
def test_wrong_values_for_the_server(
    field: str, wrong: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value, message = wrong
    written = value if isinstance(value, float) else json.dumps(value)
    found = toml_complaint(f"{field} = {written}\n{ONE_MODEL}")
    assert found.startswith(f"outcrop.toml: {field}: ")
    assert found.endswith(message)
    option = f"--{field.replace('_', '-')}"
    found = complaint(config=None, model={"path": "b"}, server={field: value})
    assert found.startswith(f"{option}: ")
    assert found.endswith(message)
    monkeypatch.setenv(f"OUTCROP_{field.upper()}", str(value))
    found = complaint(config=None, model={"path": "b"})
    assert found.startswith(f"OUTCROP_{field.upper()}: ")
    assert message.partition(" (given")[0] in found


def test_every_field_has_its_wrong_value_here() -> None:
    assert set(WRONG_FOR_A_MODEL) | {"kv_memory", "name"} == set(ModelSettings.model_fields)
    tables = {"auth", "cost", "telemetry", "storage", "jobs"}
    assert set(WRONG_FOR_THE_SERVER) | {"models"} | tables == set(Settings.model_fields)


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = toml_complaint('port = "x"\nprot = 1\n[[models]]\npath = "a.gguf"\nkv_memory = "x"\nbogus = 1\n')
    assert sorted(line.rpartition(": ")[0].partition(": '")[0] for line in found.splitlines()) == [
        "outcrop.toml: model 1: bogus",
        "outcrop.toml: model 1: kv_memory",
        "outcrop.toml: port: Input should be a valid integer, unable to parse string as an integer (given",
        "outcrop.toml: prot",
    ]


# -- files and models ------------------------------------------------------------------------------


def test_unknown_settings() -> None:
    assert toml_complaint(f"prot = 1\n{ONE_MODEL}") == "outcrop.toml: prot: there is no such setting"
    assert toml_complaint(f"{ONE_MODEL}prefix = 1\n") == (
        "outcrop.toml: model 1: prefix: there is no such setting"
    )
    assert "outcrop.toml: server: there is no such setting" in toml_complaint("[server]\nport = 1\n")


@pytest.mark.parametrize("text", ["", "port = 1\n", "models = []\n"])
def test_no_model(text: str) -> None:
    wanted = "no model: give --model PATH, or a configuration file with a [[models]] table"
    assert toml_complaint(text) == wanted
    assert complaint(config=None) == wanted


@pytest.mark.parametrize("text", ["models = 3\n", '[models]\npath = "a.gguf"\n'])
def test_models_that_are_no_tables(text: str) -> None:
    assert toml_complaint(text) == "outcrop.toml: models: write each model as a [[models]] table"
    assert toml_complaint("models = [3]\n") == "outcrop.toml: model 1: write each model as a [[models]] table"


def test_a_model_without_a_path() -> None:
    assert toml_complaint('[[models]]\nid = "a"\n') == "outcrop.toml: model 1: path: this is required"


def test_two_models_need_distinct_names() -> None:
    unnamed = '[[models]]\npath = "b"\n'
    needed = "outcrop.toml: models: with more than one model each needs an id"
    assert toml_complaint(ONE_MODEL + unnamed) == needed
    assert toml_complaint(f'{ONE_MODEL}id = "a"\n{unnamed}') == needed
    twice = "outcrop.toml: models: two models are named 'a'; ids and aliases must be distinct"
    assert toml_complaint(f'{ONE_MODEL}id = "a"\n{unnamed}id = "a"\n') == twice
    assert toml_complaint(f'{ONE_MODEL}id = "a"\n{unnamed}id = "b"\naliases = ["c", "a"]\n') == twice
    assert len(from_toml(f'{ONE_MODEL}id = "a"\naliases = ["a"]\n{unnamed}id = "b"\n').models) == 2


def test_files_that_cannot_be_read() -> None:
    assert complaint(config=Path("missing.toml")) == "configuration file missing.toml: there is no such file"
    assert complaint(config=Path("b")) == "configuration file b: there is no such file"
    assert toml_complaint('port = "x').startswith("configuration file outcrop.toml: ")
    assert "line 1" in toml_complaint("port == 1")
    Path("outcrop.toml").write_bytes(b'host = "\xff"\n')
    assert complaint(config=Path("outcrop.toml")).startswith("configuration file outcrop.toml: ")


@pytest.mark.parametrize("broken", ["[{", "a.gguf", '{"path": "a.gguf"}', "[3]", "3"])
def test_models_in_the_environment_that_are_no_models(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTCROP_MODELS", broken)
    assert complaint(config=None).startswith("OUTCROP_MODELS: ")


# -- who may call ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "mode", "authenticated"),
    [
        ("127.0.0.1", "auto", False), ("localhost", "auto", False), ("::1", "auto", False),
        ("127.9.9.9", "auto", False), ("0.0.0.0", "auto", True), ("::", "auto", True),
        ("192.0.2.1", "auto", True), ("example.com", "auto", True), ("localhost.example", "auto", True),
        ("127.0.0.1", "required", True), ("127.0.0.1", "off", False), ("0.0.0.0", "required", True),
    ],
)  # fmt: skip
def test_when_callers_are_asked_who_they_are(host: str, mode: str, authenticated: bool) -> None:
    text = f'host = "{host}"\n[auth]\nmode = "{mode}"\n{ONE_MODEL}'
    assert from_toml(text).authenticated is authenticated


def test_auth_is_not_turned_off_where_strangers_call(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = (
        "off would let everybody who reaches 0.0.0.0 call this server; make keys with `outcrop keys create`"
    )
    text = f'host = "0.0.0.0"\n[auth]\nmode = "off"\n{ONE_MODEL}'
    assert toml_complaint(text).startswith(f"outcrop.toml: auth: {refusal}")
    options = {"host": "0.0.0.0", "auth": {"mode": "off"}}
    assert complaint(config=None, model={"path": "b"}, server=options).startswith(f"--auth: {refusal}")
    monkeypatch.setenv("OUTCROP_AUTH", '{"mode": "off"}')
    found = complaint(config=None, model={"path": "b"}, server={"host": "0.0.0.0"})
    assert found.startswith(f"OUTCROP_AUTH: {refusal}")


def test_the_command_line_changes_the_mode_of_the_file() -> None:
    text = f'[auth]\nmode = "off"\nkeys = "k.json"\nsame_region = true\n{ONE_MODEL}'
    auth = from_toml(text, server={"auth": {"mode": "required"}}).auth
    assert (auth.mode, auth.keys, auth.same_region) == ("required", Path("k.json"), True)
    assert load_key_settings(Path("outcrop.toml")).auth.mode == "off"


def test_where_keys_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    assert load_key_settings(None).auth.key_file == folder / "outcrop" / "keys.json"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", unset)
        monkeypatch.setenv("HOME", str(folder))
        assert load_key_settings(None).auth.key_file == folder / ".local" / "state" / "outcrop" / "keys.json"
    monkeypatch.setenv("OUTCROP_AUTH", '{"keys": "elsewhere.json"}')
    assert load_key_settings(None).auth.key_file == Path("elsewhere.json")


CREDENTIALS = '[[auth.credentials]]\naccess_key_id = "AKIDEXAMPLE"\nsecret_env = "EXAMPLE_SECRET"\n'


def test_access_keys_made_elsewhere() -> None:
    Path("policy.json").write_text("{}")
    (each,) = from_toml(
        f'{ONE_MODEL}{CREDENTIALS}rpm = 3\npolicy = "policy.json"\ntenant = "t"\n'
    ).auth.credentials
    assert (each.access_key_id, each.secret_env, each.rpm, each.tpm) == (
        "AKIDEXAMPLE",
        "EXAMPLE_SECRET",
        3,
        None,
    )
    assert (each.policy, each.tenant) == (Path("policy.json"), "t")


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "[auth]\nmode = 'on'\n": "auth.mode: Input should be 'auto', 'required' or 'off' (given: 'on')",
        "[auth]\nkey = 'x'\n": "auth.key: there is no such setting",
        CREDENTIALS * 2: "auth.credentials: two have the same access_key_id",
        f"{CREDENTIALS}secret = 'x'\n": "auth.credentials.0.secret: there is no such setting",
        f"{CREDENTIALS}rpm = 0\n": "auth.credentials.0.rpm: Input should be greater than or equal to 1 "
        "(given: 0)",
        "[cost]\noption = 'free'\n": "cost.option: Input should be 'on-demand', 'reserved-1yr', "
        "'reserved-3yr' or 'spot' (given: 'free')",
        "[cost]\ninstances = 0\n": "cost.instances: Input should be greater than or equal to 1 (given: 0)",
        "[telemetry]\notlp_endpoint = 'x'\n": "telemetry.otlp_endpoint: String should match pattern "
        "'^https?://[^\\s]+$' (given: 'x')",
        "[telemetry]\nlog_format = 'xml'\n": "telemetry.log_format: Input should be 'text' or 'json' "
        "(given: 'xml')",
        f"{CREDENTIALS}policy = 'no'\n": "auth.credentials.0.policy: no: there is no such file or folder",
        "auth = 1\n": "auth: Input should be a valid dictionary or instance of AuthSettings (given: 1)",
    }.items(),
)  # fmt: skip
def test_wrong_values_for_auth(text: str, message: str) -> None:
    assert toml_complaint(f"{text}{ONE_MODEL}") == f"outcrop.toml: {message}"


def test_auth_in_the_environment_that_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTCROP_AUTH", "required")
    assert complaint(config=None, model={"path": "b"}) == (
        'OUTCROP_AUTH: this must be JSON, such as {"mode": "required"}'
    )


def test_a_tls_key_needs_its_certificate() -> None:
    assert toml_complaint(f'tls_key = "a.gguf"\n{ONE_MODEL}').endswith(
        "tls_key: the key is of no use without tls_certificate"
    )
