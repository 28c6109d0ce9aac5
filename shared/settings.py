"""Settings: read once from the environment, typed, secrets redacted.

The README's configuration table is generated from the descriptions here (`scripts/lint` checks
that it has not drifted), and a test holds `render.yaml`, `docker-compose.yml` and `.env.example`
against these names.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.postgres.roles import ROLES

__all__ = ["Settings", "SettingsError", "duration", "load"]

_SCHEMES = {"database_url": ("postgresql", "postgres"), "amqp_url": ("amqp", "amqps")}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(:\d{0,5})?", re.ASCII)
_NAMED = re.compile(r"\$\{(\w+)\}", re.ASCII)
_DURATION = re.compile(r"(\d{1,5})\s*([mhd])", re.ASCII)
RENDER_PROXIES = 3
"""Render's header reads "caller, Cloudflare, Render" (https://github.com/arcjet/arcjet-js/issues/5411);
what the caller claims stands before these."""
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta | None:
    """The time that `90m`, `24h` or `7d` says; None for anything else."""
    found = _DURATION.fullmatch(text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def _variable(named: re.Match[str]) -> str:
    """What `${NAME}` stands for: that environment variable, percent-encoded.

    Raises:
        ValueError: it is not set.
    """
    value = os.environ.get(named[1])
    if not value:
        raise ValueError(f"names {named[0]}, which is not set in the environment")
    return quote(value, safe="")


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    """Whether an address is whole. What is not ends up in the libraries' errors, password and all."""
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        return False
    hosts = parts.netloc.rpartition("@")[2].split(",")  # PostgreSQL takes several
    return parts.scheme in schemes and not parts.fragment and all(map(_HOST.fullmatch, hosts))


def _parts(text: str) -> list[str]:
    """What stands between the commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _webhook_key(text: str) -> bytes:
    """The bytes of a key as Standard Webhooks writes it; empty where it is none."""
    try:
        return b64decode(text.removeprefix("whsec_"), validate=True) if text.startswith("whsec_") else b""
    except ValueError:
        return b""


class SettingsError(Exception):
    """The environment does not make a valid configuration; the message names each variable."""


class Settings(BaseSettings):
    """Every field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,  # which may be a secret
    )

    # Where it runs
    port: int = Field(8080, ge=0, le=65535, description="HTTP port to listen on (0: any free port)")
    host: str = Field("0.0.0.0", description="Address to listen on")
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL with pgvector; not set: an embedded PostgreSQL 18 in `DATA_DIR`",
    )
    database_pool_size: int = Field(
        5, ge=2, le=50, description="Most connections one process opens to PostgreSQL"
    )
    amqp_url: SecretStr | None = Field(
        None,
        description="RabbitMQ (`amqp://` or `amqps://`); not set: the bus within one process. `${NAME}`"
        " in it, as in `DATABASE_URL`, stands for another variable",
    )
    amqp_queue_type: Literal["quorum", "classic"] = Field(
        "quorum", description="Kind of RabbitMQ queue to declare"
    )
    amqp_exchange: str = Field(
        "feedback-loop",
        pattern=r"^[A-Za-z0-9._-]{1,80}$",
        description="Topic exchange, and the prefix of every queue's name",
    )
    amqp_declare: bool = Field(
        True, description="`0`: the user of `AMQP_URL` may not declare queues; `doctor --fix` has made them"
    )
    rabbitmq_management_url: SecretStr | None = Field(
        None,
        description="RabbitMQ's HTTP API with an administrator's user and password, for `doctor --fix` alone",
    )
    role_passwords: SecretStr | None = Field(
        None,
        description="Passwords of the services' own users, such as `trigger=…,collector=…`, for"
        " `migrate --roles` and `doctor --fix` alone",
    )
    data_dir: Path = Field(
        Path(".data"), description="Folder of the embedded PostgreSQL (used when `DATABASE_URL` is not set)"
    )
    retention_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days after which what users wrote, and who they are, is removed; the counts stay"
        " (`0`: never)",
    )
    environment: Literal["development", "production"] = Field(
        "development", description="`production` warns at start about an open trigger; implied on Render"
    )
    render: bool = Field(False, description="Set by Render itself: its disk is not kept")
    render_external_url: str | None = Field(
        None, description="Set by Render itself: the public URL of this service"
    )
    log_format: Literal["text", "json"] = Field("text", description="Logs for people or as JSON lines")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level logged")
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="OpenTelemetry collector that traces go to (OTLP over HTTP), such as `http://localhost:4318`;"
        " needs the extra `otel`; not set: no traces",
    )

    # Trigger
    trigger_token: SecretStr | None = Field(
        None, description="Bearer token for `/run-feedback-loop` and `/events`; not set: open to anyone"
    )
    trigger_window: int = Field(
        20, ge=1, le=1440, description="Minutes after a run's start in which further hits join it"
    )
    trigger_url: str | None = Field(
        None,
        description="Where the trigger runs, for the command `feedback-loop trigger` (default: this machine)",
    )
    cron_job_org_api_key: SecretStr | None = Field(
        None, description="API key of cron-job.org, for `feedback-loop schedule` alone"
    )
    cron_job_org_api_url: str = Field("https://api.cron-job.org", description="cron-job.org's REST API")

    # Access
    api_token: SecretStr | None = Field(
        None,
        description="Bearer token for votes, conversations and search; not set: open to anyone",
    )
    read_token: SecretStr | None = Field(
        None,
        description="Bearer token for the dashboard and search; not set: its figures are open, and in"
        " production what people wrote needs `API_TOKEN`",
    )
    admin_token: SecretStr | None = Field(
        None,
        description="Bearer token for everything, documents and the dashboard's actions among it (default:"
        " `API_TOKEN`)",
    )
    vote_token_secret: SecretStr | None = Field(
        None,
        description="Key that signs vote tokens for browsers, 32 characters or more; several with commas"
        " between: the first signs, all are taken; not set: there are none",
    )
    cors_origins: str = Field(
        "",
        pattern=r"^\s*(https?://[a-z0-9.-]+(:\d{1,5})?(\s*,\s*|\s*$))*$",
        description="Origins whose pages may call `/feedback`, such as `https://shop.example`, with commas"
        " between; empty: none",
    )
    rate_limit: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Requests a minute of one caller without a token; `0`: no limit (default: 600 in"
        " production, else 60,000)",
    )
    trusted_proxies: int | None = Field(
        None,
        ge=0,
        le=10,
        description="Proxies in front that add to `X-Forwarded-For`; 0: the header is not believed"
        " (default: 3 on Render, else 0)",
    )

    # Mirror
    mirror: Literal["off", "langfuse"] = Field(
        "off", description="`langfuse`: votes from now on are scores there too; `off`: nowhere"
    )
    mirror_url: str = Field("https://cloud.langfuse.com", description="Where Langfuse is")
    mirror_public_key: SecretStr | None = Field(None, description="Public key of the Langfuse project")
    mirror_secret_key: SecretStr | None = Field(None, description="Secret key of the Langfuse project")
    mirror_comments: bool = Field(True, description="`0`: comments are not mirrored")

    # Decision
    policy: Literal["wilson", "ratio"] = Field(
        "wilson", description="`wilson`: act on what is certain; `ratio`: negative ratio over the threshold"
    )
    threshold: float = Field(0.3, gt=0, lt=1, description="Negative ratio above which retrieval is rebuilt")
    min_votes: int = Field(20, ge=1, description="Fewest votes in a window for a decision (`POLICY=wilson`)")
    cooldown_days: float = Field(
        7, ge=0, le=3650, description="Days of rest after a retrain or a rollback (`POLICY=wilson`)"
    )

    # Report
    timezone: str = Field("Asia/Seoul", description="Time zone of the report")
    report_language: Literal["ko", "en"] = Field("ko", description="Language of the report")
    report_window: str = Field(
        "since_last",
        description="Votes that the report counts: `since_last` scheduled report, or `24h`, `7d`, …",
    )
    report: Literal["always", "on_change"] = Field(
        "always",
        description="`always`: a report of every run; `on_change`: only where the state changes, or acts",
    )
    weekly_summary: Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun", "off"] = Field(
        "mon", description="Day of the weekly summary, sent with the first run of that day; `off`: none"
    )
    dashboard_url: str | None = Field(
        None, description="Address behind the report's link (default: the public URL of this service)"
    )

    # Slack
    slack_bot_token: SecretStr | None = Field(
        None, description="Bot token (`xoxb-…`, scopes `chat:write`, and `files:write` for the picture)"
    )
    slack_channel: str | None = Field(None, description="Channel the bot posts to, name or id")
    slack_webhook_url: SecretStr | None = Field(
        None, description="Incoming webhook, instead of bot and channel"
    )
    slack_start_notice: bool = Field(False, description="`1`: also post when a run starts")
    slack_quotes: bool = Field(True, description="`0`: nothing that users wrote goes to Slack")
    slack_signing_secret: SecretStr | None = Field(
        None, description="Signing secret of the Slack app: turns on `/ai-report` and the buttons"
    )
    slack_allowed_users: str = Field(
        "",
        pattern=r"^\s*([UW][A-Z0-9]{2,20}(\s*,\s*|\s*$))*$",
        description="Ids of the Slack users who may use `/ai-report` and the buttons, with commas between;"
        " empty: nobody",
    )
    slack_api_url: str = Field("https://slack.com/api/", description="Slack's Web API (GovSlack has its own)")

    # Webhook
    webhook_url: SecretStr | None = Field(
        None, description="Where everything that Slack is told is sent as signed JSON too (`docs/webhook.md`)"
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Key that signs it, `whsec_` and 24 to 64 bytes in base64; several with commas between:"
        " each signs",
    )

    # Knowledge
    knowledge_dir: Path | None = Field(
        None, description="Folder of documents (`.md .txt .html .pdf`), read again at every retrain"
    )
    embedder: Literal["use", "openai"] = Field(
        "use", description="`use`: Universal Sentence Encoder, offline; `openai`: any OpenAI-compatible API"
    )
    openai_base_url: str = Field("https://api.openai.com/v1", description="Base URL of the embeddings API")
    openai_api_key: SecretStr | None = Field(None, description="Key of the embeddings API")
    openai_embedding_model: str = Field("text-embedding-3-small", description="Model of the embeddings API")
    golden_set: Path | None = Field(
        None,
        description="File of questions and the documents they should find, that no retrain may make worse",
    )
    embedding_batch: int = Field(32, ge=1, le=512, description="Chunks in one embedding batch")

    @field_validator("database_url", "amqp_url", mode="before")
    @classmethod
    def _filled_in(cls, value: object) -> object:
        """Platforms hand out a broker's host and password one by one, and the password in base64."""
        return _NAMED.sub(_variable, value) if isinstance(value, str) else value

    @field_validator("database_url", "amqp_url")
    @classmethod
    def _whole_address(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        schemes = _SCHEMES[str(info.field_name)]
        if value is not None and not _is_address(value.get_secret_value(), schemes):
            raise ValueError(
                f"must look like {schemes[0]}://user:password@host:port/name; in the password write / as %2F,"
                " # as %23, ? as %3F, @ as %40"
            )
        return value

    @field_validator("vote_token_secret")
    @classmethod
    def _long_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and any(len(key) < 32 for key in _parts(value.get_secret_value())):
            raise ValueError("each key must have at least 32 characters")
        return value

    @field_validator("webhook_url")
    @classmethod
    def _web_address(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value is not None else "https://example.com"
        if not _is_address(text, ("https", "http")) or not urlsplit(text.strip()).hostname:
            raise ValueError("must look like https://host/path")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _webhook_keys(cls, value: SecretStr | None) -> SecretStr | None:
        keys = [_webhook_key(part) for part in _parts(value.get_secret_value())] if value is not None else []
        if value is not None and not all(24 <= len(key) <= 64 for key in keys or [b""]):
            raise ValueError("each key must be whsec_ and 24 to 64 bytes in base64")
        return value

    @field_validator("role_passwords")
    @classmethod
    def _known_roles(cls, value: SecretStr | None) -> SecretStr | None:
        for part in _parts(value.get_secret_value()) if value else ():
            name, _, password = part.partition("=")
            if name not in ROLES or not password:
                raise ValueError(f"each part must be a service and its password: {', '.join(ROLES)}")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("not a time zone name such as Asia/Seoul") from error
        return value

    @field_validator("report_window")
    @classmethod
    def _window_form(cls, value: str) -> str:
        if value != "since_last" and (not _DURATION.fullmatch(value) or int(value[:-1]) == 0):
            raise ValueError("must be `since_last` or a duration such as 24h or 7d")
        return value

    @field_validator("mirror_url")
    @classmethod
    def _mirror_address(cls, value: str) -> str:
        if not _is_address(value, ("https", "http")) or "@" in value or "?" in value:
            raise ValueError("must look like https://cloud.langfuse.com")
        return value

    @model_validator(mode="after")
    def _mirror_is_whole(self) -> Settings:
        if self.mirror != "off" and not (self.mirror_public_key and self.mirror_secret_key):
            raise ValueError("MIRROR needs MIRROR_PUBLIC_KEY and MIRROR_SECRET_KEY")
        return self

    @model_validator(mode="after")
    def _slack_is_whole(self) -> Settings:
        if bool(self.slack_bot_token) != bool(self.slack_channel):
            raise ValueError("SLACK_BOT_TOKEN and SLACK_CHANNEL go together: set both or neither")
        return self

    @model_validator(mode="after")
    def _webhook_is_whole(self) -> Settings:
        if bool(self.webhook_url) != bool(self.webhook_secret):
            raise ValueError("WEBHOOK_URL and WEBHOOK_SECRET go together: set both or neither")
        return self

    @property
    def production(self) -> bool:
        return self.environment == "production" or self.render

    @property
    def vote_token_keys(self) -> tuple[bytes, ...]:
        """The keys of vote tokens, the one that signs first."""
        secret = self.vote_token_secret
        return tuple(key.encode() for key in _parts(secret.get_secret_value())) if secret else ()

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        """The keys that sign what the webhook is sent."""
        secret = self.webhook_secret
        return tuple(map(_webhook_key, _parts(secret.get_secret_value()))) if secret else ()

    @property
    def passwords(self) -> dict[str, str]:
        """The passwords of the services' own users, by service."""
        parts = _parts(self.role_passwords.get_secret_value()) if self.role_passwords else []
        return {name: password for name, _, password in (part.partition("=") for part in parts)}

    @property
    def origins(self) -> frozenset[str]:
        """The origins whose pages may vote."""
        return frozenset(_parts(self.cors_origins))

    @property
    def requests_a_minute(self) -> int:
        """How often one caller without a token may call; 0: as often as it likes."""
        if self.rate_limit is not None:
            return self.rate_limit
        return 600 if self.production else 60_000

    @property
    def proxies(self) -> int:
        """How many entries of `X-Forwarded-For`, from the right, are the platform's word."""
        if self.trusted_proxies is not None:
            return self.trusted_proxies
        return RENDER_PROXIES if self.render else 0

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def public_url(self) -> str:
        return (self.dashboard_url or self.render_external_url or f"http://localhost:{self.port}").rstrip("/")


def load(**overrides: object) -> Settings:
    """Read the environment (and `.env`).

    Raises:
        SettingsError: one line per variable that does not fit.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            name = ".".join(str(part) for part in problem["loc"]).upper()
            reason = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {reason}" if name else reason)
        raise SettingsError("\n".join(lines)) from None
