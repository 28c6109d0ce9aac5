"""Settings from the environment: typed, complete in their complaints, silent about secrets."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.cli import main
from shared.settings import Settings, SettingsError, duration, load

SECRETS = {
    name.upper() for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
}
CANARY = "c4n4ry"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment, and a folder, that say nothing."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_nothing_needs_to_be_set() -> None:
    settings = load()
    assert settings.database_url is None
    assert settings.amqp_url is None
    assert (settings.port, settings.timezone, settings.report_language) == (8080, "Asia/Seoul", "ko")
    assert not settings.production


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("THRESHOLD", "0.25")
    monkeypatch.setenv("SLACK_START_NOTICE", "1")
    settings = load()
    assert (settings.port, settings.threshold, settings.slack_start_notice) == (9000, 0.25, True)


def test_a_dotenv_file_is_read_and_the_environment_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("PORT=9000\nMIN_VOTES=30\n", encoding="utf-8")
    monkeypatch.setenv("PORT", "9001")
    settings = load()
    assert (settings.port, settings.min_votes) == (9001, 30)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    assert load() == Settings(_env_file=None)


def test_variables_of_others_are_no_business_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "ko:en")
    Path(".env").write_text("SOMEBODY_ELSES=1\n", encoding="utf-8")
    load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("DATABASE_POOL_SIZE", "1"),
        ("AMQP_QUEUE_TYPE", "stream"),
        ("AMQP_EXCHANGE", "two words"),
        ("ENVIRONMENT", "test"),
        ("LOG_LEVEL", "LOUD"),
        ("TRIGGER_WINDOW", "0"),
        ("POLICY", "guess"),
        ("THRESHOLD", "1.5"),
        ("THRESHOLD", "nan"),
        ("COOLDOWN_DAYS", "-1"),
        ("COOLDOWN_DAYS", "inf"),
        ("TIMEZONE", "Seoul"),
        ("TIMEZONE", "../etc/passwd"),
        ("REPORT_LANGUAGE", "fr"),
        ("REPORT_WINDOW", "0d"),
        ("REPORT_WINDOW", "1w"),
        ("REPORT_WINDOW", "9999999999d"),
        ("SLACK_START_NOTICE", "perhaps"),
        ("EMBEDDING_BATCH", "0"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: "):
        load()


def test_every_variable_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "http")
    monkeypatch.setenv("TIMEZONE", "Seoul")
    with pytest.raises(SettingsError) as caught:
        load()
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["PORT", "TIMEZONE"]


@pytest.mark.parametrize("name", ["SLACK_BOT_TOKEN", "SLACK_CHANNEL"])
def test_half_a_slack_bot_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError, match="SLACK_BOT_TOKEN and SLACK_CHANNEL go together"):
        load()


def test_what_holds_a_secret_is_declared_as_one() -> None:
    telling = ("TOKEN", "KEY", "SECRET", "PASSWORD", "WEBHOOK", "DATABASE_URL", "AMQP_URL", "MANAGEMENT_URL")
    assert {
        name.upper() for name in Settings.model_fields if any(w in name.upper() for w in telling)
    } == SECRETS


def test_secrets_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, f"trigger={CANARY * 6}")  # long enough for a key, and a role's password
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:{CANARY}@host/db")
    monkeypatch.setenv("AMQP_URL", f"amqp://u:{CANARY}@host/")
    monkeypatch.setenv("WEBHOOK_URL", f"https://host/{CANARY}")
    monkeypatch.setenv("WEBHOOK_SECRET", f"whsec_{CANARY * 6}")
    monkeypatch.setenv("SLACK_CHANNEL", "#reports")
    settings = load()
    for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert CANARY not in shown
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(SettingsError) as caught:
        load()
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("ENVIRONMENT", "production"), ("RENDER", "true")])
def test_production_is_said_or_implied(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert load().production


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://localhost:8080"),
        ({"PORT": "9000"}, "http://localhost:9000"),
        ({"RENDER_EXTERNAL_URL": "https://x.onrender.com"}, "https://x.onrender.com"),
        ({"RENDER_EXTERNAL_URL": "https://x", "DASHBOARD_URL": "https://board/"}, "https://board"),
    ],
)
def test_the_public_url(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load().public_url == url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(hours=24)),
        ("7 d", timedelta(days=7)),
        ("since_last", None),
        ("1w", None),
        ("٣d", None),
    ],
)
def test_durations(text: str, expected: timedelta | None) -> None:
    assert duration(text) == expected


def test_overrides_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    assert load(port=0).port == 0


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1  # type: ignore[misc]


# --- the webhook ----------------------------------------------------------------------------

WEBHOOK_KEY = "whsec_" + "A" * 32  # 24 bytes


@pytest.mark.parametrize(
    "key", ["A" * 32, "whsec_AAAA", "whsec_" + "A" * 88, f"{WEBHOOK_KEY},x", "whsec_!", ","]
)
def test_a_key_of_the_webhook_must_be_one(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_URL", "https://hooks.example.com/1")
    monkeypatch.setenv("WEBHOOK_SECRET", key)
    with pytest.raises(SettingsError, match="WEBHOOK_SECRET: each key must be whsec_"):
        load()


@pytest.mark.parametrize("url", ["hooks.example.com", "ftp://h/x", "https://", "https://h:port/"])
def test_the_webhook_s_address_must_be_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_URL", url)
    monkeypatch.setenv("WEBHOOK_SECRET", WEBHOOK_KEY)
    with pytest.raises(SettingsError, match="WEBHOOK_URL: must look like"):
        load()


@pytest.mark.parametrize("name", ["WEBHOOK_URL", "WEBHOOK_SECRET"])
def test_a_webhook_needs_both_its_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"WEBHOOK_URL": "https://hooks.example.com/1", "WEBHOOK_SECRET": WEBHOOK_KEY}
    monkeypatch.setenv(name, values[name])
    with pytest.raises(SettingsError, match="go together"):
        load()


@pytest.mark.parametrize(
    "rest", ["127.0.0.1:99999/x", "127.0.0.1:1/x?sslmode=bogus", "127.0.0.1:1/x?target_session_attrs=bogus"]
)
def test_a_database_that_cannot_be_is_told_in_a_line(rest: str) -> None:
    environment = {"DATABASE_URL": f"postgresql://u:pa55word@{rest}"}
    done = CliRunner().invoke(main, ["status"], env=environment)
    assert isinstance(done.exception, SystemExit)
    assert done.output.startswith("Error: DATABASE_URL cannot be used") and "pa55word" not in done.output


@pytest.mark.parametrize(
    "wrong", [{"OPENAI_API_KEY": "pa55word\nx"}, {"OPENAI_BASE_URL": "http://u:pa55word@127.0.0.1:1/v1"}]
)
def test_an_embedder_that_cannot_be_is_a_finding_of_the_doctor(wrong: dict[str, str]) -> None:
    environment = {"DATABASE_URL": "postgresql://u@127.0.0.1:1/x", "EMBEDDER": "openai", **wrong}
    done = CliRunner().invoke(main, ["doctor"], env=environment)
    assert isinstance(done.exception, SystemExit)
    assert "embedder: OPENAI_" in done.output and "pa55word" not in done.output
