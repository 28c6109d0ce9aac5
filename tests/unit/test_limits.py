"""How often a caller may call, and who a caller is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.web.limits import Buckets, Limits, address_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- buckets --------------------------------------------------------------------------------


def test_a_bucket_holds_a_minute_of_calls_and_refills(clock: Clock) -> None:
    buckets = Buckets(60, clock)
    assert [buckets.take("a") for _ in range(60)] == [0.0] * 60
    assert buckets.take("a") == pytest.approx(1.0)
    clock.now += 0.5
    assert buckets.take("a") == pytest.approx(0.5)
    clock.now += 0.5
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0


def test_it_never_holds_more_than_a_minute_of_calls(clock: Clock) -> None:
    buckets = Buckets(3, clock)
    buckets.take("a")
    clock.now += 3600
    assert [buckets.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_callers_do_not_share_a_bucket(clock: Clock) -> None:
    buckets = Buckets(1, clock)
    assert (buckets.take("a"), buckets.take("b")) == (0.0, 0.0)
    assert buckets.take("a") > 0


def test_asking_how_long_takes_nothing(clock: Clock) -> None:
    buckets = Buckets(1, clock)
    assert [buckets.wait("a") for _ in range(5)] == [0.0] * 5
    assert buckets.take("a") == 0.0
    assert buckets.wait("a") == pytest.approx(60)


def test_zero_is_no_limit(clock: Clock) -> None:
    buckets = Buckets(0, clock)
    assert not any(buckets.take("a") for _ in range(10_000))
    assert len(buckets) == 0


def test_the_callers_remembered_are_bounded_and_the_busy_ones_stay(clock: Clock) -> None:
    buckets = Buckets(5, clock, most=10)
    for number in range(1000):
        buckets.take(number)
        buckets.take("busy")
    assert len(buckets) == 10
    assert buckets.take("busy") > 0


@given(st.lists(st.floats(0, 100), max_size=60), st.integers(1, 20))
def test_nobody_gets_more_than_the_bucket_and_what_dripped_into_it(pauses: list[float], rate: int) -> None:
    clock = Clock()
    buckets = Buckets(rate, clock)
    begun, taken = clock.now, 0
    for pause in pauses:
        clock.now += pause
        while not buckets.take("a"):
            taken += 1
        assert taken <= rate + (clock.now - begun) * rate / 60 + 1e-6


# --- tokens ---------------------------------------------------------------------------------


def test_too_many_wrong_tokens_make_deaf_for_right_ones_that_are_new_there(clock: Clock) -> None:
    limits = Limits(100, clock)
    assert limits.proven("known", 1)
    for address in ("known", "new"):
        assert [limits.failed(address) > 0 for _ in range(11)] == [False] * 10 + [True]
    assert (limits.proven("known", 1), limits.proven("known", 2), limits.proven("new", 1)) == (
        True,
        False,
        False,
    )
    clock.now += 6.01
    assert limits.proven("new", 1)


def test_a_scheduler_may_call_ten_times_as_often(clock: Clock) -> None:
    limits = Limits(7, clock)
    assert sum(not limits.call("a", "ample") for _ in range(200)) == 70
    assert sum(not limits.call("a", "plain") for _ in range(200)) == 7
    assert sum(not limits.call("a", "none") for _ in range(200)) == 200


# --- addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "caller"),
    [
        ("10.0.0.1", [], 0, "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4"], 0, "10.0.0.1"),  # nobody of ours has said so
        ("10.0.0.1", ["9.9.9.9, 1.2.3.4"], 1, "1.2.3.4"),  # what stands left of it is a claim
        ("10.0.0.1", ["9.9.9.9", "1.2.3.4"], 1, "1.2.3.4"),  # two headers are one list
        ("10.0.0.1", ["2.2.2.2,1.1.1.1, 172.71.95.118, 10.19.64.237"], 3, "1.1.1.1"),  # Render
        ("10.0.0.1", ["1.2.3.4"], 3, "1.2.3.4"),
        ("10.0.0.1", ["unknown"], 1, "10.0.0.1"),
        ("10.0.0.1", [], 1, "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", [], 0, "2001:db8:1:2::/64"),
        ("fe80::1%eth0", [], 0, "fe80::/64"),
        ("::ffff:1.2.3.4", [], 0, "1.2.3.4"),
        (None, [], 0, "unknown"),
    ],
)
def test_a_caller_is_an_address_that_somebody_of_ours_has_seen(
    peer: str | None, forwarded: list[str], proxies: int, caller: str
) -> None:
    assert address_of(peer, forwarded, proxies) == caller


@given(st.lists(st.text()), st.integers(0, 10))
def test_any_header_gives_some_caller(forwarded: list[str], proxies: int) -> None:
    assert address_of("10.0.0.1", forwarded, proxies)
