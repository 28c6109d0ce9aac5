"""What a promotion led to: the votes before it against those after it.

What is guaranteed: `better` and `worse` are said only where the two 95 % Wilson intervals are disjoint,
which is stricter than a test of their difference: a generation that is no worse is called so in 0.3 % of
cases with as many votes on either side, in 2 % with 1,000 before and 20 after (exact binomials, ratios of
5 to 30 %). What is not: the cause. Whatever else changed with the promotion (a season, an outage) has
changed the votes too.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from datetime import timedelta

from shared.events import Aftermath, Because, Evidence, RollbackRequested
from shared.policy import percent

__all__ = ["DUE", "LONGEST", "compare", "rollback"]

DUE = timedelta(days=7)
"""How old a promotion is when it is first looked at."""

LONGEST = timedelta(days=28)
"""How far votes are counted back before a promotion and on after it; then nothing more is waited for."""


def compare(
    generation: int, previous: int, before: Evidence, after: Evidence, min_votes: int
) -> Aftermath | None:
    """The verdict on `generation`; None where too few have voted so far.

    Args:
        previous: the generation it was built on.
        before: votes of the predecessor up to the promotion, with their 95 % interval.
        after: votes since, likewise; once they cover `LONGEST`, too few make it `unknown`.
        min_votes: needed on either side.
    """
    if min(before.total, after.total) < min_votes:
        if after.end - after.start < LONGEST:
            return None
        verdict, says = "unknown", f"a comparison needs {min_votes} votes on either side"
    elif after.low > before.high:
        verdict, says = "worse", "worse, intervals disjoint"
    elif after.high < before.low:
        verdict, says = "better", "better, intervals disjoint"
    else:
        verdict, says = "same", "no difference beyond doubt, intervals overlap"
    return Aftermath(
        generation=generation,
        previous=previous,
        before=before,
        after=after,
        verdict=verdict,
        sentence=f"negative votes {_figures(before)} → {_figures(after)}: {says}",
    )


def rollback(app: str, aftermath: Aftermath | None) -> list[RollbackRequested]:
    """The rollback that a verdict asks for: of a generation that is worse, to the one before it."""
    if aftermath is None or aftermath.verdict != "worse":
        return []
    return [
        RollbackRequested(
            app=app,
            to_generation=aftermath.previous,
            why=aftermath.sentence,
            because=[Because(code="aftermath_worse", figures=_compared(aftermath))],
            requested_by="verdict",
        )
    ]


def _compared(aftermath: Aftermath) -> dict[str, str | int | float]:
    figures: dict[str, str | int | float] = {}
    for side, votes in (("before", aftermath.before), ("after", aftermath.after)):
        figures |= {
            side: votes.ratio,
            f"{side}_low": votes.low,
            f"{side}_high": votes.high,
            f"{side}_total": votes.total,
            f"{side}_dislikes": votes.dislikes,
        }
    return figures


def _figures(votes: Evidence) -> str:
    if not votes.total:
        return "none of 0"
    interval = f"{percent(votes.low)} to {percent(votes.high)}"
    return f"{percent(votes.ratio)} ({votes.dislikes} of {votes.total}, {interval})"
