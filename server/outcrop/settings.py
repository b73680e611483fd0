"""Everything that can be set: the command line, then the environment, then outcrop.toml, then defaults.

pydantic stays at this edge; the rest of the server gets plain values. The environment variables are
OUTCROP_CONFIG (which file to read) and OUTCROP_ with the name of a field of Settings.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as SourceError

from outcrop.engine.config import DEFAULT_KV_MEMORY, EngineConfig, PolicyName

CONFIG_VARIABLE = "OUTCROP_CONFIG"

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class SettingsError(ValueError):
    """A setting is wrong; the message names it, its value and what is accepted."""


def _parse_bytes(value: Any) -> Any:
    """Accept 512M, 2GiB, 1.5G or a plain number of bytes."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMG]?)(?:i?B)?\s*", value, re.IGNORECASE)
        if match is None:
            raise ValueError(f"{value!r} is not a size; write bytes or a number with K, M or G, such as 512M")
        return int(float(match[1]) * _UNITS[match[2].upper()])
    return value


Bytes = Annotated[int, BeforeValidator(_parse_bytes)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(_Section):
    """One `[[models]]` table: a checkpoint and how to serve it. Engine fields as in EngineConfig."""

    path: Path
    id: str | None = Field(default=None, min_length=1, max_length=2048)
    aliases: tuple[str, ...] = ()
    name: str = ""
    backend: Literal["cpu", "fake"] = "cpu"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    kv_memory: Bytes = Field(default=DEFAULT_KV_MEMORY, ge=1 << 20)
    max_model_len: int | None = Field(default=None, ge=16)
    max_rows: int = Field(default=32, ge=1, le=1024)
    block_size: int = Field(default=32, ge=1, le=1024)
    depth: int = Field(default=2, ge=1, le=4)
    policy: PolicyName = "interleave"
    prefix_cache: bool = True
    threads: int | None = Field(default=None, ge=1)
    fake_step_ms: float = Field(default=0.0, ge=0)

    def engine_config(self, **more: Any) -> EngineConfig:
        """What the engine process is told; `more` sets fields that are not settings."""
        shared = {name: getattr(self, name) for name in EngineConfig.__struct_fields__ if hasattr(self, name)}
        return EngineConfig(model=str(self.path), **shared, **more)


class Settings(BaseSettings):
    """The whole server. models: at least one; a single model without an id answers to every Bedrock
    model id (demo mode). drain_seconds: how long open calls may go on after SIGTERM. step_timeout:
    seconds without a finished step after which an engine is taken for hung."""

    model_config = SettingsConfigDict(env_prefix="OUTCROP_", frozen=True, extra="forbid")

    models: tuple[ModelSettings, ...] = Field(min_length=1)
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    region: str = "us-east-1"
    max_inflight: int = Field(default=256, ge=1)
    drain_seconds: float = Field(default=30.0, ge=0)
    step_timeout: float = Field(default=120.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if len(self.models) > 1 and any(model.id is None for model in self.models):
            raise ValueError("models: with more than one model each needs an id")
        return self

    @property
    def demo(self) -> bool:
        """One model without an id answers to every id."""
        return self.models[0].id is None

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


def load_settings(
    *, config: Path | None, model: dict[str, Any] | None = None, server: dict[str, Any] | None = None
) -> Settings:
    """Merge all sources. model, server: what the command line set, without the options left out. A model
    given there replaces those of the file. Raises SettingsError."""
    if config is None and (named := os.environ.get(CONFIG_VARIABLE)):
        config = Path(named)
    if config is not None and not config.is_file():
        raise SettingsError(f"configuration file {config}: there is no such file")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    given = dict(server or {})
    if model:
        given["models"] = [model]
    try:
        return FromFile(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(map(_describe, error.errors()))) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"configuration file {config}: {error}") from None
    except SourceError as error:
        raise SettingsError(str(error)) from None


def _describe(error: Any) -> str:
    where = list(error["loc"])
    if where == ["models"] and error["type"] in ("missing", "too_short"):
        return "no model: give --model PATH, or a configuration file with a [[models]] table"
    if where[:1] == ["models"]:
        where = where[2:]
    name = ".".join(map(str, where))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    given = "" if error["type"] in ("missing", "value_error") else f" (given: {error['input']!r})"
    return f"{name}: {message}{given}" if name else f"{message}{given}"
