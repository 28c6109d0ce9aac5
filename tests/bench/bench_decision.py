"""How often each rule acts for nothing, and how soon on a real change: simulated years, judged each day.

`shared.backtest.replay` judges, with the code that judges in earnest. Votes of a day are Poisson, each 👎
with the true rate; beside the two policies stands the ratio of all votes since the beginning. Not simulated:
that a retrain helps, days of the week, users who vote often.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np
import pytest

from shared.backtest import Count, Day, replay
from shared.policy import Rules

RULES = Rules(policy="wilson", threshold=0.3, min_votes=20, cooldown=timedelta(days=7))
YEARS = 200
BEFORE = 60
"""Days at the old rate before the step."""
START = date(2026, 1, 1)


def votes(rates: np.ndarray, a_day: int, seed: int) -> list[Count]:
    random = np.random.default_rng(seed)
    total = random.poisson(a_day, len(rates))
    down = random.binomial(total, rates)
    return [
        (START + timedelta(days=at), int(n - d), int(d))
        for at, (n, d) in enumerate(zip(total, down, strict=True))
    ]


def acts(counts: list[Count]) -> Iterator[tuple[str, list[bool]]]:
    """For each rule, on which days it acts."""
    days: list[Day] = replay(counts, RULES)
    yield "ratio of the day", [day.ratio_rule == "act" for day in days]
    likes, dislikes = (np.cumsum([count[at] for count in counts[: len(days)]]) for at in (1, 2))
    yield "ratio of all time", list(dislikes > RULES.threshold * (likes + dislikes))
    yield "wilson (the default)", [day.wilson == "act" for day in days]


def false_acts(rate: float, a_day: int) -> dict[str, float]:
    """Days with an act in a year, on average, at a rate that never calls for one."""
    sums: dict[str, int] = {}
    for seed in range(YEARS):
        for rule, acted in acts(votes(np.full(365, rate), a_day, seed)):
            sums[rule] = sums.get(rule, 0) + sum(acted)
    return {rule: total / YEARS for rule, total in sums.items()}


def delays(a_day: int) -> dict[str, tuple[float, float]]:
    """Days from a step of the rate from 0.15 to 0.45 until the first act: median and 95th percentile."""
    rates = np.r_[np.full(BEFORE, 0.15), np.full(200, 0.45)]
    found: dict[str, list[float]] = {}
    for seed in range(YEARS):
        for rule, acted in acts(votes(rates, a_day, seed)):
            first = next((day + 1 for day, act in enumerate(acted[BEFORE:]) if act), np.inf)
            found.setdefault(rule, []).append(first)
    return {
        rule: (float(np.median(d)), float(np.quantile(d, 0.95, method="higher"))) for rule, d in found.items()
    }


@pytest.mark.parametrize("a_day", [5, 20, 100, 1000])
def test_what_each_rule_does(a_day: int) -> None:
    calm, near, step = false_acts(0.15, a_day), false_acts(0.25, a_day), delays(a_day)
    print(f"\n{a_day} votes a day: acts a year at .15 · at .25 · days to see .15 → .45, median/95 %")
    for rule in calm:
        median, late = step[rule]
        print(f"{rule:22} {calm[rule]:7.2f} · {near[rule]:7.2f} · {median:g}/{late:g}")
    default = "wilson (the default)"
    assert near[default] <= min(near["ratio of the day"], 1.0)
