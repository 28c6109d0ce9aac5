"""Why answers were disliked, as far as the data can tell. Pure.

What is guaranteed: the same dislikes give the same causes; each dislike has exactly one, that of the
first of these rules which finds what it needs.

1. *Stale document*: the user says `outdated`. Needs a reason; cannot know whether the document has been
   mended since, or ever will be.
2. *Answer fault*: the user, or another one for the same question, liked a chunk that was shown here.
   Needs votes on citations; cannot know whether the answer made use of it.
3. *Retrieval miss*: another user liked, for the same question, a chunk that was not shown here. Needs
   that, and what was shown; cannot know whether the answer would have been better.
4. *Answer fault*: the user says `unclear`, `tone`, `slow` or `unsafe`. Needs a reason; cannot know
   whether more is wrong.
5. *Stale document*: what the answer cites (else: what was shown first) is the text of no document any
   more. Needs a search of the conversation, or citations, and generations that are still kept; cannot
   know whether the edit has to do with the question.
6. *Coverage gap*: nothing that was shown is near. Needs a search of the conversation; what it cannot
   know is said of `FAR`.
7. *Retrieval miss*: the user says `irrelevant` or `source`, or disliked citations and liked none. Needs
   what was shown; cannot know that a better chunk exists, which is assumed.
8. *Unknown*: anything else, such as no reason at all, or `wrong` and `incomplete`, which fit any cause.

What is not: that a cause is true. Votes on citations are believed as they stand, one user is enough, and
whoever casts them can shift these counts; no decision rests on them. The same question is the same by
its text, so what others liked for it in other words is not found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from shared.events import Because
from shared.requester import printable

__all__ = ["FAR", "Cause", "Causes", "Dislike", "Filed", "count", "sort"]

Cause = Literal["retrieval_miss", "stale_document", "coverage_gap", "answer_fault", "unknown"]

FAR = (0.35, 0.6)
"""Nothing is near where the best `dense` is below the first and the best `lexical` below the second.

Chosen on a third of the questions (development), as what finds the most gaps among the pairs of a grid
that call at most 2 % of the covered questions a gap, with the model `use` (`scripts/bench causes`). Of the
other questions, called gaps:

- rightly: 66 % of KorQuAD's questions whose article is not in the knowledge base (half of the articles
  are), 70 % of small talk in Korean, all of Cranfield's questions asked of KorQuAD (n = 145);
- wrongly: 1.3 % of KorQuAD's covered questions, none of Cranfield's (n = 145), and 0.7 % of these with
  every second word left out; but 62 % of KorQuAD's with every second word made gibberish.

So a covered question is often mistaken for a gap where half of its words stand in no document: somebody
should look before writing one. Another model's `dense` is on a scale for which this was not measured.
Only what was shown counts, so a search for one result may look farther off than it was.
"""

MOST_GAPS, LONGEST_GAP = 5, 200
"""Questions listed, and characters of each."""

_OF_THE_ANSWER = frozenset({"unclear", "tone", "slow", "unsafe"})
_OF_RETRIEVAL = frozenset({"irrelevant", "source"})


class Filed(NamedTuple):
    """What is entered of a dislike.

    Attributes:
        said: digest of its comment; None where it says nothing.
        group: the group that it is in, which may be its reason code's.
    """

    cause: str
    said: str | None
    group: str | None


class Dislike(NamedTuple):
    """One 👎 and what is known of its answer: a tuple, for a thousand are made at once.

    Attributes:
        reason: a code of the ledger.
        question: as it was asked; empty where unknown.
        asked: what makes it the same question as another.
        shown: hashes of the chunks that search showed or the answer cites; none where unknown.
        dense, lexical: the best of what was shown, as search scores it; None where unknown.
        text_left: what the answer rests on is no longer the text of any document.
        citations: the user's own votes, chunk hash → 1 or 0.
        liked: what other users liked for the same question, of the chunks that search can show today.
        vote, voted, user: which vote it is, when it was cast, and whose it is; no cause depends on them.
        comment: what the user wrote; no cause depends on it either.
        filed: as an earlier evaluation entered it; None where none did.
    """

    reason: str | None = None
    question: str = ""
    asked: str = ""
    shown: frozenset[str] = frozenset()
    dense: float | None = None
    lexical: float | None = None
    text_left: bool = False
    citations: Mapping[str, int] = MappingProxyType({})
    liked: frozenset[str] = frozenset()
    vote: int = 0
    voted: datetime = datetime.min.replace(tzinfo=UTC)
    user: str = ""
    comment: str | None = None
    filed: Filed | None = None


@dataclass(frozen=True, slots=True)
class Causes:
    """Dislikes by cause, and the questions of coverage gaps, each once, asked most first."""

    counts: Mapping[Cause, int]
    gaps: tuple[str, ...] = ()

    @property
    def because(self) -> Because | None:
        """The counts, to be worded; None where no cause is known."""
        total, unknown = sum(self.counts.values()), self.counts.get("unknown", 0)
        if total == unknown:
            return None
        misses, stale, gaps, faults = (self.counts.get(cause, 0) for cause in get_args(Cause)[:4])
        return Because(
            code="causes",
            figures={
                "total": total,
                "mendable": misses + stale,
                "misses": misses,
                "stale": stale,
                "gaps": gaps,
                "faults": faults,
                "unknown": unknown,
            },
        )


def sort(dislike: Dislike) -> Cause:
    """The cause of a dislike: the first whose rule (see the module) finds what it needs."""
    if dislike.reason == "outdated":
        return "stale_document"
    own_likes = [chunk for chunk, vote in dislike.citations.items() if vote == 1] if dislike.citations else []
    if dislike.shown:
        if not (dislike.shown.isdisjoint(own_likes) and dislike.shown.isdisjoint(dislike.liked)):
            return "answer_fault"
        if dislike.liked:
            return "retrieval_miss"
    if dislike.reason in _OF_THE_ANSWER:
        return "answer_fault"
    if dislike.text_left:
        return "stale_document"
    if _nothing_near(dislike):
        return "coverage_gap"
    blamed = dislike.reason in _OF_RETRIEVAL or (dislike.citations and not own_likes)
    return "retrieval_miss" if blamed and dislike.shown else "unknown"


def count(dislikes: Sequence[tuple[Dislike, Cause]]) -> Causes:
    """Count dislikes by their causes: every cause, unless there is no dislike at all. Their order does not
    matter."""
    counts = Counter(cause for _, cause in dislikes)
    asked: Counter[str] = Counter()
    wording: dict[str, str] = {}
    for dislike, cause in dislikes:
        if cause == "coverage_gap" and (text := printable(dislike.question, LONGEST_GAP)):
            asked[dislike.asked] += 1
            wording[dislike.asked] = min(text, wording.get(dislike.asked, text))
    most = sorted(asked, key=lambda question: (-asked[question], wording[question], question))
    gaps = dict.fromkeys(wording[question] for question in most)
    return Causes(
        {cause: counts[cause] for cause in get_args(Cause)} if counts else {}, tuple(gaps)[:MOST_GAPS]
    )


def _nothing_near(dislike: Dislike) -> bool:
    dense, lexical = dislike.dense, dislike.lexical
    return dense is not None and lexical is not None and dense < FAR[0] and lexical < FAR[1]
