"""Settings: the only reader of the environment."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ml_backend.errors import SettingsError


def default_data_dir() -> Path:
    """Return the folder for records, models and caches when DATA_DIR is not set."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "label-studio-cell-backend"


class ClientSettings(BaseSettings):
    """What a program needs that asks a backend; it needs none of the other settings."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    ml_backend_url: str | None = Field(
        None,
        description=(
            "Address of a running backend that our commands and the Python client ask; without it "
            "commands work on DATABASE_URL and DATA_DIR themselves."
        ),
    )
    ml_backend_token: SecretStr | None = Field(
        None, description="Token for that backend, as `ml-backend tokens create` shows it."
    )

    @field_validator("ml_backend_url")
    @classmethod
    def _backend_address(cls, value: str | None) -> str | None:
        return _checked_address(value, like="http://localhost:9090")

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the fields; what is for clients comes last."""
        own = [name for name in cls.model_fields if name not in ClientSettings.model_fields]
        return own + list(ClientSettings.model_fields)


class Settings(ClientSettings):
    """All settings, one environment variable each (the field's name in capitals)."""

    port: int = Field(9090, ge=0, le=65535, description="Port that Label Studio talks to.")
    host: str = Field("127.0.0.1", description="Address to listen on; containers set 0.0.0.0.")
    workers: int = Field(2, ge=1, le=64, description="Web processes (they never run a network).")
    data_dir: Path = Field(
        default_factory=default_data_dir, description="Folder for records, models and caches."
    )
    predict_budget_s: float = Field(
        80.0,
        ge=1,
        le=90,  # what the answer may be late is part of the 100
        description="Seconds until /predict answers with what is done (Label Studio waits 100).",
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Value of the X-Backend-Secret header that webhooks must carry."
    )
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy address of the records; default: SQLite in DATA_DIR."
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis for the training queue; default: SQLite in DATA_DIR."
    )
    engine_url: str | None = Field(
        None, description="Address of the engine; `serve` starts one and sets this itself."
    )
    engine_secret: SecretStr | None = Field(
        None, description="Shared by web and engine; `serve` makes one up."
    )
    model: str = Field(
        "auto",
        description=(
            "auto, a model's name (nuclei-1, cpsam_v2, one that was trained or uploaded), a "
            "session's id or the path of a checkpoint."
        ),
    )
    embedder: str = Field(
        "auto",
        description=(
            "What classes are learned from: auto, shapes-1, the name of a timm model (hf-hub names "
            "too), or the path of one; auto takes DINOv2 or ResNet where their weights are at hand."
        ),
    )
    embedding_cache_mb: int = Field(
        1024, ge=1, description="Size of the embeddings of images kept on disk."
    )
    toolkit_model: str | None = Field(
        None,
        description=(
            "model.py of the label-studio-ml toolkit, with :ClassName if it has several classes; "
            "projects are then served by that class instead of MODEL."
        ),
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    cellpose_local_models_path: Path | None = Field(
        None, description="Folder of Cellpose's downloaded weights; default: ~/.cellpose/models."
    )
    label_studio_url: str | None = Field(
        None, description="Address of Label Studio as this machine reaches it."
    )
    label_studio_api_key: SecretStr | None = Field(
        None, description="Legacy token or personal access token; sent to LABEL_STUDIO_URL only."
    )
    setup_hostname: Literal["auto", "allow", "refuse"] = Field(
        "auto",
        description=(
            "Whether the address and token in Label Studio's /setup request may be used to fetch "
            "images; auto: only when LABEL_STUDIO_URL is not set and strangers cannot call us "
            "(HOST is a loopback address, or Basic auth is on)."
        ),
    )
    basic_auth_user: str | None = Field(None, description="User name Label Studio must send.")
    basic_auth_pass: SecretStr | None = Field(None, description="Password Label Studio must send.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="How much is logged."
    )
    allowed_hosts: str = Field(
        "",
        description=(
            "Comma-separated hosts, addresses or networks with private addresses that images may "
            "come from; LABEL_STUDIO_URL's host always may."
        ),
    )
    fetch_timeout_s: float = Field(30.0, gt=0, le=600, description="Seconds to download one image.")
    data_roots: str = Field(
        "",
        description=(
            "Comma-separated folders whose files programs may name to /api/v1 (images, data sets, "
            "checkpoints); default: none."
        ),
    )
    infer_budget_s: float = Field(
        3600.0, ge=1, le=86400, description="Seconds that a program's images may take in a request."
    )
    max_request_mb: int = Field(256, ge=1, le=4096, description="Largest request accepted.")
    max_model_mb: int = Field(
        4096, ge=1, le=65536, description="Largest file of weights that people may upload."
    )
    max_image_mb: int = Field(512, ge=1, le=65536, description="Largest image file downloaded.")
    max_image_megapixels: int = Field(150, ge=1, le=10000, description="Largest image decoded.")
    max_dataset_mb: int = Field(
        4096,
        ge=1,
        description="Largest archive of a dataset downloaded; it may unpack to four times as much.",
    )
    image_cache_mb: int = Field(2048, ge=1, description="Size of the image cache on disk.")
    kept_results_mb: int = Field(512, ge=1, description="Size of the kept predictions.")
    engine_threads: int = Field(
        0, ge=0, le=64, description="Images in work at once per engine; 0 = chosen by the device."
    )
    max_networks: int = Field(
        3, ge=2, le=64, description="Networks that an engine keeps on its device."
    )
    flow_cache_mb: int = Field(
        512, ge=0, description="Memory for what networks said about recent images."
    )
    predict_ahead_tasks: int = Field(
        500,
        ge=0,
        description="Tasks without annotation that are predicted before a new version is shown.",
    )
    predict_ahead_s: float = Field(
        300.0, ge=0, description="Seconds after which that prediction ahead ends."
    )
    training: Literal["auto", "manual"] = Field(
        "auto", description="Whether new annotations start a training, or only people do."
    )
    training_tasks: int = Field(
        10, ge=1, description="Tasks that are new or changed before a training starts by itself."
    )
    training_quiet_s: float = Field(
        60.0, ge=0, description="Seconds without a new annotation before it starts."
    )
    training_pause_s: float = Field(
        300.0, ge=0, description="Seconds between the end of a training and the next by itself."
    )
    training_min_tasks: int = Field(
        3, ge=1, description="Annotated tasks in all before it starts by itself."
    )
    training_minutes: float | None = Field(
        None, gt=0, description="Longest training in minutes; default: the network's own steps."
    )
    training_device: str | None = Field(
        None, description="auto, cpu, cuda, cuda:N or mps for training; default: what DEVICE says."
    )
    training_threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of a training; 0 = chosen by the machine."
    )
    training_gpu_share: float = Field(
        0.6, gt=0, le=1, description="Part of a GPU's memory that a training may take."
    )
    promote: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether a trained network is served: when it scores better, always or never.",
    )
    reconcile_s: float = Field(
        600.0,
        ge=10,
        description="Seconds between two looks for annotations whose events were lost.",
    )

    @field_validator("data_dir", "cellpose_local_models_path")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        # a shell expands no ~ in an env file or after `docker run -e`
        return None if value is None else value.expanduser()

    @field_validator("label_studio_url", "engine_url")
    @classmethod
    def _http_address(cls, value: str | None) -> str | None:
        return _checked_address(value, like="http://localhost:8080")

    @field_validator("log_level", mode="before")
    @classmethod
    def _capitals(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _belong_together(self) -> Settings:
        if (self.basic_auth_user is None) != (self.basic_auth_pass is None):
            raise ValueError("set both BASIC_AUTH_USER and BASIC_AUTH_PASS, or neither")
        if self.label_studio_api_key is not None and self.label_studio_url is None:
            raise ValueError(
                "LABEL_STUDIO_API_KEY needs LABEL_STUDIO_URL, so that the key goes nowhere else"
            )
        return self

    @property
    def database_address(self) -> str:
        """Return the SQLAlchemy address of the records, default filled in."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'records.sqlite3'}"

    @property
    def cellpose_models_dir(self) -> Path:
        """Return the folder of Cellpose's downloaded weights, default filled in."""
        return self.cellpose_local_models_path or Path.home() / ".cellpose" / "models"

    @property
    def setup_hostname_allowed(self) -> bool:
        """Return whether the address and token of a /setup request may be used."""
        if self.setup_hostname != "auto":
            return self.setup_hostname == "allow"
        strangers_kept_out = is_loopback(self.host) or self.basic_auth_user is not None
        return self.label_studio_url is None and strangers_kept_out

    @classmethod
    def describe(cls) -> list[tuple[str, str, str]]:
        """Return (variable, default, description) of every setting, in order."""
        rows = []
        for name in cls.names():
            info = cls.model_fields[name]
            default = (
                "~/.local/share/label-studio-cell-backend"
                if name == "data_dir"
                else ("" if info.default is None else str(info.default))
            )
            rows.append((name.upper(), default, info.description or ""))
        return rows

    def shown(self) -> dict[str, str]:
        """Return every variable with its value as a person may see it, secrets masked."""
        return {name.upper(): _masked(getattr(self, name)) for name in self.names()}


def _checked_address(value: str | None, *, like: str) -> str | None:
    if value is None:
        return None
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} needs a scheme and a host, like {like}")
    return value.rstrip("/")


def _masked(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "********"
    text = str(value)
    if "@" in text and "://" in text:  # a password inside an address
        scheme, _, rest = text.partition("://")
        return f"{scheme}://********@{rest.rpartition('@')[2]}"
    return text


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: with every problem at once, a line each.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(_explained(error)) from None


def read_client_settings(**overrides: Any) -> ClientSettings:
    """Read from the environment what a program needs that asks a backend, and nothing else.

    Raises:
        SettingsError: the address is none.
    """
    try:
        return ClientSettings(**overrides)
    except ValidationError as error:
        raise SettingsError(_explained(error)) from None


def _explained(error: ValidationError) -> str:
    problems = []
    for item in error.errors():
        variable = str(item["loc"][0]).upper() if item["loc"] else ""
        text = item["msg"].removeprefix("Value error, ")
        problems.append(f"{variable}: {text}" if variable else text)
    return "; ".join(problems)
