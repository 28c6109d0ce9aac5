"""Which addresses an answer may be sent to."""

from __future__ import annotations

import pytest

from services.notifier.signed import trusted

API = "https://slack.com/api/"


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/actions/T0/1/abc",
        "https://hooks.slack.com:443/actions/T0/1/abc",
        "https://hooks.slack-gov.com/actions/T0/1/abc",
        "https://slack.com/api/anything",
    ],
)
def test_slack_s_own_hosts_are_answered(url: str) -> None:
    assert trusted(url, API)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.slack.com/actions",
        "https://hooks.slack.com.evil.example/",
        "https://evil.example/hooks.slack.com",
        "https://hooks.slack.com@evil.example/",
        "https://hooks.slack.com:8443/",
        "http://169.254.169.254/latest/meta-data/",
        "https://[::1/",
        "https://slack.com:99999999/",
        "file:///etc/passwd",
        "",
    ],
)
def test_no_other_address_is(url: str) -> None:
    assert not trusted(url, API)
