"""Everything that can be set: the command line, then the environment, then outcrop.toml, then defaults.

pydantic stays at this edge; the rest of the server gets plain values. The environment variables are
OUTCROP_CONFIG (which file to read), OUTCROP_MASTER_SECRET (instead of the file that `outcrop keys` writes)
and OUTCROP_ with the name of a field of Settings.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as SourceError

from outcrop.backends.neuron.cores import parse_cores
from outcrop.engine.config import (
    DEFAULT_KV_MEMORY,
    DEFAULT_WEIGHT_CACHE_SIZE,
    BackendName,
    DTypeName,
    EngineConfig,
    KernelsName,
    PolicyName,
)
from outcrop.folders import state_folder
from outcrop.setting_types import Bytes, ExistingFolder, ExistingPath, Name, parse_object
from outcrop_compile.artifact.manifest import CHECKPOINT

CONFIG_VARIABLE = "OUTCROP_CONFIG"
MASTER_SECRET_VARIABLE = "OUTCROP_MASTER_SECRET"

PRINCIPAL_NAME = r"^[\w+=,.@-]{0,64}$"
"""What IAM accepts as the name of a user, or nothing."""

_PREFIX = "OUTCROP_"
_FIELD = re.compile(r'field "(\w+)"')
_JSON_EXAMPLES = {
    "models": 'a list of models such as [{"path": "model.gguf"}]',
    "auth": 'such as {"mode": "required"}',
    "cost": 'such as {"instance": "inf2.xlarge"}',
    "telemetry": 'such as {"log_format": "json"}',
    "storage": 'such as {"s3_endpoint": "http://127.0.0.1:9000"}',
    "jobs": 'such as {"rows": 8}',
}
"""What settings that are more than a word look like in the environment."""


class SettingsError(ValueError):
    """A setting is wrong; the message names it, its value and what is accepted."""


def _default_state() -> str:
    return str(state_folder() / "state.db")


def _default_models() -> Path:
    return state_folder() / "models"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_OF_ITS_SERVER = ("dtype", "kv_memory", "max_model_len", "max_rows", "block_size", "threads", "prefix_cache")
"""Settings that a vLLM server which runs already has its own of."""

_VLLM = ("url", "python", "served_name", "api_key_env", "engine_args", "adapters")
"""Settings of the vLLM backend alone."""

_LEGACY = "transformers-neuronx"

_NOT_OF: Mapping[str, tuple[str, tuple[str, ...]]] = {
    # Those of Outcrop's own scheduler and kernels.
    "vllm": (
        "vLLM has its own ways of this; leave it out (see engine_args)",
        ("weight_cache", "weight_cache_size", "kernels", "depth", "policy", "speculative_tokens"),
    ),
    # Those of the CPU backend that were decided at the build, or mean nothing on the chip.
    "neuron": (
        "with backend neuron the artifact decides this; leave it out",
        (
            "dtype", "weight_cache", "weight_cache_size", "kernels", "kv_memory", "max_rows", "block_size",
            "threads",
        ),
    ),
    # It reserves every row's whole context.
    _LEGACY: (
        f"backend {_LEGACY} has no use for this; leave it out",
        (
            "weight_cache", "weight_cache_size", "kernels", "kv_memory", "depth", "speculative_tokens",
            "threads",
        ),
    ),
}  # fmt: skip
"""Settings that a backend has no use for, and what is said to who gives them."""


class ModelSettings(_Section):
    """One `[[models]]` table: a checkpoint and how to serve it. Engine fields as in EngineConfig, of each
    replica. path: as seen from the working directory; left out where there is an artifact, it is the
    checkpoint's files there (tokenizer, chat template). replicas: engine processes that share the requests;
    cores are those of all of them. adapters: LoRA adapters' folders, by the ids that they answer to; with a
    url, "" for each, and the ids are the server's names."""

    path: ExistingPath
    id: Name | None = None
    aliases: tuple[Name, ...] = ()
    name: str = ""
    backend: BackendName = "cpu"
    replicas: int = Field(default=1, ge=1, le=256)
    url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    artifact: ExistingFolder | None = Field(default=None, validate_default=True)
    cores: str | None = None
    dtype: DTypeName = "auto"
    weight_cache: str = Field(default="auto", min_length=1)
    weight_cache_size: Bytes = Field(default=DEFAULT_WEIGHT_CACHE_SIZE, ge=1 << 20)
    kernels: KernelsName = "auto"
    kv_memory: Bytes = Field(default=DEFAULT_KV_MEMORY, ge=1 << 20, le=1 << 50)
    max_model_len: int | None = Field(default=None, ge=16, le=1 << 24)
    max_rows: int = Field(default=32, ge=1, le=1024)
    block_size: int = Field(default=32, ge=1, le=1024)
    depth: int = Field(default=2, ge=1, le=4)
    policy: PolicyName = "auto"
    prefix_cache: bool = True
    speculative_tokens: int = Field(default=0, ge=0, le=15)
    threads: int | None = Field(default=None, ge=1, le=1024)
    fake_step_ms: float = Field(default=0.0, ge=0, le=60_000)
    fake_poison: int | None = Field(default=None, ge=0)
    python: ExistingPath | None = None
    served_name: str = ""
    api_key_env: str = ""
    engine_args: Annotated[dict[str, Any], BeforeValidator(parse_object)] = Field(default_factory=dict)
    adapters: dict[Name, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _path_in_artifact(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("artifact") and "path" not in values:
            files = Path(values["artifact"]) / CHECKPOINT
            # One that was built of a GGUF file has none, and needs that file's tokenizer.
            return {**values, "path": files} if files.is_dir() else values
        return values

    @field_validator("artifact")
    @classmethod
    def _of_the_neuron_backend(cls, artifact: Path | None, info: ValidationInfo) -> Path | None:
        backend = info.data.get("backend")
        if backend == "neuron" and artifact is None:
            raise ValueError("backend neuron serves what `outcrop compile build` made: give its folder")
        if backend != "neuron" and artifact is not None:
            raise ValueError(f"this is for backend neuron, and the backend is {backend}")
        return artifact

    @field_validator("cores")
    @classmethod
    def _a_range(cls, cores: str | None, info: ValidationInfo) -> str | None:
        if cores is not None:
            parse_cores(cores)
            if (backend := info.data.get("backend")) not in ("neuron", _LEGACY):
                raise ValueError(f"this is for backend neuron, and the backend is {backend}")
        return cores

    @field_validator("*")
    @classmethod
    def _of_use(cls, value: Any, info: ValidationInfo) -> Any:
        words, useless = _NOT_OF.get(info.data.get("backend", ""), ("", ()))
        if info.field_name in useless:
            raise ValueError(words)
        return value

    @field_validator(*_VLLM)
    @classmethod
    def _of_vllm(cls, value: Any, info: ValidationInfo) -> Any:
        backend = info.data.get("backend")
        if value and backend != "vllm" and (backend, info.field_name) != (_LEGACY, "python"):
            raise ValueError(f"this is for backend vllm, and the backend is {backend}")
        if value and info.field_name in ("python", "engine_args") and info.data.get("url"):
            raise ValueError("this is for an engine that Outcrop starts; leave it out where there is a url")
        if value and info.field_name in ("served_name", "api_key_env") and not info.data.get("url"):
            raise ValueError("this is for a server that runs already: give its url")
        return value

    @field_validator("backend")
    @classmethod
    def _vllm_reads_folders(cls, backend: BackendName, info: ValidationInfo) -> BackendName:
        path = info.data.get("path")
        if backend == "vllm" and path is not None and not path.is_dir():
            raise ValueError(f"vllm reads Hugging Face folders, and {path} is a file")
        return backend

    @field_validator(*_OF_ITS_SERVER)
    @classmethod
    def _its_server_decides(cls, value: Any, info: ValidationInfo) -> Any:
        if url := info.data.get("url"):
            raise ValueError(f"the server at {url} decides this; leave it out")
        return value

    def engine_config(self, **more: Any) -> EngineConfig:
        """What the engine process is told; `more` sets fields that are not settings."""
        shared = {name: getattr(self, name) for name in EngineConfig.__struct_fields__ if hasattr(self, name)}
        shared |= {name: str(getattr(self, name) or "") for name in ("artifact", "url", "python")}
        if self.backend == "vllm":
            shared |= {
                name: 0
                for name in ("kv_memory", "max_rows", "block_size")
                if name not in self.model_fields_set
            }
        return EngineConfig(model=str(self.path), **shared, **more)


class CredentialSettings(_Section):
    """One `[[auth.credentials]]` table: an access key made elsewhere, so that an application keeps the one
    it has. secret_env: the environment variable that holds its secret, which no file should. policy: a file,
    an IAM policy in JSON; models: instead of one, patterns of the ids it may use."""

    access_key_id: str = Field(pattern=r"^\w{1,128}$")
    secret_env: str = Field(min_length=1)
    name: str = Field(default="", pattern=PRINCIPAL_NAME)
    tenant: str = Field(default="", max_length=256)
    policy: ExistingPath | None = None
    models: tuple[Name, ...] = ()
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)


class AuthSettings(_Section):
    """The `[auth]` table. mode: "auto" asks callers who they are unless the server listens on loopback
    alone, "required" always, "off" never. keys: the file that `outcrop keys` writes; left out, the keys are
    in the database of a `state` that servers share, and otherwise in `key_file`. same_region: signatures must
    name the server's region."""

    mode: Literal["auto", "required", "off"] = "auto"
    keys: Path | None = None
    same_region: bool = False
    credentials: tuple[CredentialSettings, ...] = ()

    @field_validator("credentials")
    @classmethod
    def _distinct(cls, credentials: tuple[CredentialSettings, ...]) -> tuple[CredentialSettings, ...]:
        ids = [each.access_key_id for each in credentials]
        if len(set(ids)) < len(ids):
            raise ValueError("two have the same access_key_id")
        return credentials

    @property
    def key_file(self) -> Path:
        """The keys' own, beside which the master secret is in either case."""
        return (self.keys or state_folder() / "keys.json").expanduser()

    @property
    def master_secret(self) -> str | None:
        """The one that the environment gives; None where it is in a file beside the keys."""
        return os.environ.get(MASTER_SECRET_VARIABLE)


class CostSettings(_Section):
    """The `[cost]` table: what serves, so that the metrics can say what it costs. option: how the instances
    are bought. prices: a file of prices that go before all others (`outcrop cost compare --prices`)."""

    instance: str | None = Field(default=None, min_length=1)
    option: Literal["on-demand", "reserved-1yr", "reserved-3yr", "spot"] = "on-demand"
    instances: int = Field(default=1, ge=1)
    prices: ExistingPath | None = None


class TelemetrySettings(_Section):
    """The `[telemetry]` table. otlp_endpoint: an OpenTelemetry collector to send a span of each generation
    to, such as http://127.0.0.1:4318. log_format: json is one object a line. neuron_monitor: where
    neuron-monitor's Prometheus exporter answers, such as http://127.0.0.1:8000/metrics; its metrics are
    passed on with the server's own."""

    otlp_endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    log_format: Literal["text", "json"] = "text"
    neuron_monitor: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")


class StorageSettings(_Section):
    """The `[storage]` table: where jobs read and write. folder: what `file://` may name; None forbids it.
    s3_endpoint: URL of an S3 that is not Amazon's. Credentials are found as AWS clients find them. models:
    the folder that imported weights are copied to."""

    folder: ExistingFolder | None = None
    s3_endpoint: str | None = Field(default=None, pattern="^https?://.+$")
    models: Path = Field(default_factory=_default_models)


class JobSettings(_Section):
    """The `[jobs]` table. rows: records of a batch job in progress at once. side_by_side: jobs of a kind.
    lease_seconds: after how long the jobs of a server that died are taken over."""

    rows: int = Field(default=16, ge=1, le=1024)
    side_by_side: int = Field(default=4, ge=1, le=64)
    lease_seconds: float = Field(default=10.0, ge=0.5, le=3600)


class _Sources(BaseSettings):
    """Where values come from."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """First wins: the command line, the environment, the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


class KeySettings(_Sources):
    """What `outcrop keys` needs to know of a server."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    state: str = Field(default_factory=_default_state, min_length=1)
    auth: AuthSettings = Field(default_factory=AuthSettings)


class LedgerSettings(_Sources):
    """What `outcrop cost usage` needs to know of a server."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    state: str = Field(default_factory=_default_state, min_length=1)
    cost: CostSettings = Field(default_factory=CostSettings)


class Settings(_Sources):
    """The whole server. models: at least one; a single model without an id answers to every Bedrock model id
    (demo mode). max_inflight: calls in progress beyond which new ones are throttled, for each replica that is
    ready, of the model that has most of them. notice_seconds: how long calls are still taken after SIGTERM,
    while /health/ready says 503; drain_seconds: how long open calls may go on then. step_timeout: seconds
    without a finished step after which an engine is taken for hung. strict: refuse what Bedrock's own Llama
    refuses. fault_injection: let a call ask for the error, delay or broken stream it is to get. state: the
    database of what outlives the server (`outcrop.ledger.database`): an SQLite file, or the URL of a
    PostgreSQL database, which servers on other hosts may share. inspect: how many of the last requests and
    answers are kept in memory, for GET /inspector. sagemaker: answer as a SageMaker container, too: /ping,
    and /invocations, which asks nobody who they are. seed: of calls that give none; without it each draws its
    own. prompts: folder of stored prompts that calls may name instead of a model. tls_certificate, tls_key:
    PEM files; with them the server speaks HTTPS alone, which boto3 insists on before it sends an API key."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    models: tuple[ModelSettings, ...] = Field(min_length=1)
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    region: str = Field(default="us-east-1", pattern="^[a-z0-9-]{1,20}$")
    max_inflight: int = Field(default=256, ge=1)
    notice_seconds: float = Field(default=0.0, ge=0, le=86_400)
    drain_seconds: float = Field(default=30.0, ge=0, le=86_400)
    step_timeout: float = Field(default=120.0, gt=0, le=86_400)
    strict: bool = False
    fault_injection: bool = False
    inspect: int = Field(default=0, ge=0, le=10_000)
    sagemaker: bool = False
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    prompts: ExistingFolder | None = None
    state: str = Field(default_factory=_default_state, min_length=1)
    tls_certificate: ExistingPath | None = None
    tls_key: ExistingPath | None = None
    auth: AuthSettings = Field(default_factory=AuthSettings)
    cost: CostSettings = Field(default_factory=CostSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    jobs: JobSettings = Field(default_factory=JobSettings)

    @field_validator("tls_key")
    @classmethod
    def _of_a_certificate(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if key is not None and info.data.get("tls_certificate", key) is None:
            raise ValueError("the key is of no use without tls_certificate")
        return key

    @field_validator("auth")
    @classmethod
    def _closed_to_strangers(cls, auth: AuthSettings, info: ValidationInfo) -> AuthSettings:
        host = info.data.get("host", "localhost")
        if auth.mode == "off" and not _is_loopback(host):
            raise ValueError(
                f"off would let everybody who reaches {host} call this server; make keys with "
                "`outcrop keys create` and leave auth on, or listen on 127.0.0.1"
            )
        return auth

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if len(self.models) > 1 and any(model.id is None for model in self.models):
            raise ValueError("with more than one model each needs an id")
        owners: dict[str, ModelSettings] = {}
        for model in self.models:
            for name in filter(None, (model.id, *model.aliases)):
                if owners.setdefault(name, model) is not model:
                    raise ValueError(f"two models are named {name!r}; ids and aliases must be distinct")
        return self

    @property
    def demo(self) -> bool:
        """One model without an id answers to every id."""
        return self.models[0].id is None

    @property
    def authenticated(self) -> bool:
        """Whether callers must say, and prove, who they are."""
        mode = self.auth.mode
        return mode == "required" or (mode == "auto" and not _is_loopback(self.host))


SomeSettings = TypeVar("SomeSettings", bound=_Sources)


def load_settings(
    *,
    config: Path | None,
    model: Mapping[str, Any] | None = None,
    server: Mapping[str, Any] | None = None,
) -> Settings:
    """Merge all sources. model, server: what the command line set, without the options left out. A model
    given there (by its path or artifact) replaces those of the file; other model options change the file's
    one model. Raises SettingsError."""
    given = _Given(_config_file(config), model or {}, server or {})
    if not given.model:
        return _load(Settings, given)
    if "path" in given.model or "artifact" in given.model:
        return _load(Settings, given, [given.model])
    configured = _load(Settings, replace(given, model={})).models
    if len(configured) > 1:
        options = ", ".join(map(_option, given.model))
        raise SettingsError(
            f"{options}: there are {len(configured)} models; set this in their [[models]] tables"
        )
    return _load(Settings, given, [configured[0].model_dump(exclude_unset=True) | dict(given.model)])


def load_key_settings(config: Path | None) -> KeySettings:
    """The `[auth]` table and the database of the server that the environment and the file describe. Raises
    SettingsError."""
    return _load(KeySettings, _Given(_config_file(config), {}, {}))


def load_ledger_settings(config: Path | None) -> LedgerSettings:
    """The database and `[cost]` table of the server that the environment and the file describe. Raises
    SettingsError."""
    return _load(LedgerSettings, _Given(_config_file(config), {}, {}))


def _config_file(config: Path | None) -> Path | None:
    if config is None and (named := os.environ.get(CONFIG_VARIABLE)):
        config = Path(named)
    if config is not None and not config.is_file():
        raise SettingsError(f"configuration file {config}: there is no such file")
    return config


def _load(
    kind: type[SomeSettings], given: _Given, models: Sequence[Mapping[str, Any]] | None = None
) -> SomeSettings:
    """All sources together; `models`, where there are any, in place of those of environment and file."""

    class FromFile(kind):  # type: ignore[misc, valid-type]
        model_config = SettingsConfigDict(toml_file=given.config)

    values = dict(given.server)
    if models:
        values["models"] = models
    try:
        loaded: SomeSettings = FromFile(**values)
        return loaded
    except ValidationError as error:
        raise SettingsError(given.describe(error)) from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"configuration file {given.config}: {error}") from None
    except SourceError as error:  # raised for the fields that are JSON in the environment
        match = _FIELD.search(str(error))
        field = match[1] if match else "models"
        raise SettingsError(f"{_PREFIX}{field.upper()}: this must be JSON, {_JSON_EXAMPLES[field]}") from None


@dataclass(frozen=True, slots=True)
class _Given:
    """Where settings were given, so that a complaint names each as its author wrote it."""

    config: Path | None
    model: Mapping[str, Any]
    server: Mapping[str, Any]

    def describe(self, error: ValidationError) -> str:
        """One line for everything that is wrong."""
        # A model that is wrong also counts as missing; only the first of the two is news.
        found = [each for each in error.errors() if each["type"] != "too_short"] or error.errors()
        return "\n".join(self._describe(each) for each in found)

    def _describe(self, error: Any) -> str:
        kind, where = error["type"], error["loc"]
        if where == ("models",) and kind in ("missing", "too_short"):
            return "no model: give --model PATH, or a configuration file with a [[models]] table"
        name = self._name(where)
        if where[:1] == ("models",) and len(where) <= 2:
            return f"{name}: write each model as a [[models]] table"
        if kind == "extra_forbidden":
            return f"{name}: there is no such setting"
        if kind == "missing":
            return f"{name}: this is required"
        message = error["msg"].removeprefix("Value error, ")
        return (
            f"{name}: {message}"
            if kind == "value_error"
            else f"{name}: {message} (given: {error['input']!r})"
        )

    def _name(self, where: tuple[str | int, ...]) -> str:
        if where[:1] == ("models",) or not where:
            if self.model:
                return "--model" if where[2] == "path" else _option(where[2])
            parts = ["models"] if len(where) < 2 else [f"model {int(where[1]) + 1}"]
            if len(where) > 2:
                parts.append(".".join(map(str, where[2:])))
            return ": ".join([self._source("models"), *parts])
        field = str(where[0])
        if field in self.server:
            return _option(field)
        source = self._source(field)
        return source if source.startswith(_PREFIX) else f"{source}: {'.'.join(map(str, where))}"

    def _source(self, field: str) -> str:
        """What a field came from, if not from the command line: its variable or the file."""
        variable = f"{_PREFIX}{field.upper()}"
        return variable if variable in map(str.upper, os.environ) else str(self.config)


def _option(field: object) -> str:
    return f"--{str(field).replace('_', '-')}"
