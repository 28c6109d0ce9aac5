"""Which comments mean the same, by their vectors and their letters. Pure; needs numpy.

What is guaranteed: the same comments give the same groups; a comment is in one group at most; a group
that is there keeps its members and is never merged or split; a new one has three votes of two users.
What is not: that a group is about one thing only, nor that everything about it is in there (`CUT` has
the figures, `scripts/bench complaints` measures them).

The similarity of two comments is `1 - LETTERS` times the cosine of their vectors plus `LETTERS` times
that of their character n-grams, which finds what short texts share when a model makes little of them.
Before that, vectors lose what all comments of this kind have in common: the mean and the first `COMMON`
principal components of `ANCHORS` (J. Mu, P. Viswanath, "All-but-the-Top", ICLR 2018). The anchors are
fixed texts, so that a comment looks the same tomorrow, among others. One of the components is the
language, so comments in Korean and English come closer.

Groups are made by average linkage (UPGMA) by nearest-neighbour chains (F. Murtagh, "A survey of recent
advances in hierarchical clustering algorithms", The Computer Journal 26 (1983) 354-359): O(n²) time and
memory in different comments.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from services.analyzer.complaints import enough

__all__ = ["ANCHORS", "CUT", "Said", "clusters", "features", "group"]

Matrix: TypeAlias = NDArray[np.float32]

CUT = 0.16
"""Average similarity above which comments are of one group.

Chosen, with `LETTERS` and `COMMON`, on 220 comments on 15 topics, half Korean, half English. On 100
others, on 10 topics, and 10 on nothing: of the pairs within a group 70 % are of one topic, and 46 % of
the pairs of one topic are within a group; 62 % and 44 % where they come in four parts, in any order
(the mean of five). Another model's vectors are on another scale, for which this was not measured.
"""

LETTERS = 0.2
COMMON = 6
BINS = 1024

_WORD, _HANGUL = re.compile(r"\w+"), re.compile(r"[가-힣]")

ANCHORS = (
    *("답변이 마음에 들지 않아요", "내용이 틀렸어요", "정보가 부족합니다", "화면이 잘 안 보여요"),
    *("사진이 안 올라가요", "결제가 안 됩니다", "예약을 취소하고 싶어요", "주소를 바꿀 방법이 없네요"),
    *("앱이 자꾸 꺼져요", "이해하기 어려워요", "도움이 안 됐어요", "담당자가 누구인지 모르겠어요"),
    *("쿠폰이 사라졌어요", "글자가 너무 작아요", "설정 메뉴를 못 찾겠어요", "문의한 내용과 달라요"),
    *("알림이 너무 많이 와요", "표가 깨져서 보여요", "시간이 안 맞아요", "이름이 잘못 나와요"),
    *("I do not like this answer", "the content is wrong", "not enough information"),
    *("the screen is hard to see", "pictures do not upload", "payment fails"),
    *("I want to cancel my booking", "no way to change my address", "the app keeps crashing"),
    *("hard to understand", "this did not help", "I do not know who is in charge"),
    *("my coupon disappeared", "the letters are too small", "cannot find the settings menu"),
    *("different from what I asked for", "too many notifications", "the table looks broken"),
    *("the time does not match", "the name is shown wrongly"),
    *(
        "답변",
        "이 답변",
        "답변이 이상해요",
        "챗봇 답변이 별로예요",
        "질문에 대한 답",
        "물어본 내용에 대한 대답",
    ),
    *("대답을 해 주세요", "설명이 이상해요", "응답", "내용", "정보", "알려주세요"),
    *("the answer", "this answer is bad", "your reply", "the chatbot's response", "please answer"),
    *("the answer to my question", "what I asked about", "the explanation is strange", "response"),
    *("the content", "information", "please tell me"),
)
"""Comments as users write them, on things that have nothing to do with each other; and the words for
questions and answers, that are in comments about anything."""


@dataclass(frozen=True, slots=True)
class Said:
    """One comment.

    Attributes:
        vote, user: whose it is.
        group: the group that it is in already.
    """

    vote: int
    user: str
    text: str
    group: str | None = None


def group(said: Sequence[Said], matrix: Matrix) -> dict[str | int, list[Said]]:
    """Put comments that are in no group into the nearest one whose members they resemble, and make
    groups of those that resemble none.

    Args:
        said: comments in any order, also those that keep alive a group which nobody joined lately.
        matrix: their `features`.

    Returns:
        The members of each group, the nearest to the others first. A new group stands under the
        smallest vote of it.
    """
    order = sorted(range(len(said)), key=lambda row: said[row].vote)
    members: dict[str | int, list[int]] = defaultdict(list)
    for row in order:
        if (known := said[row].group) is not None:
            members[known].append(row)
    names, free = list(members), [row for row in order if said[row].group is None]
    # A last column, that of no group, wins where nothing else is near.
    centres = [matrix[members[name]].mean(axis=0) for name in names]
    near = np.full((len(free), len(names) + 1), CUT, np.float32)
    near[:, :-1] = matrix[free] @ np.reshape(centres, (len(names), matrix.shape[1])).T
    left = []
    for row, best in zip(free, near.argmax(axis=1).tolist(), strict=True):
        if best < len(names):
            members[names[best]].append(row)
        else:
            left.append(row)
    for cluster in _alike(said, matrix, left):
        if enough([said[row].user for row in cluster]):
            members[min(said[row].vote for row in cluster)] = cluster
    return {name: _nearest_first(said, matrix, rows) for name, rows in members.items()}


def features(texts: Sequence[str], vectors: Matrix, anchors: Matrix) -> Matrix:
    """Rows whose inner products are the similarities of texts.

    Args:
        vectors: of the texts; rows of length 1, as those of `anchors`: the vectors of `ANCHORS`.
    """
    mean = anchors.mean(axis=0)
    common = np.linalg.svd(anchors - mean, full_matrices=False)[2][:COMMON]
    own = vectors - mean
    own = own - (own @ common.T) @ common
    return np.hstack([(1 - LETTERS) ** 0.5 * _unit(own), LETTERS**0.5 * _unit(_grams(texts))])


def clusters(matrix: Matrix, sizes: Sequence[int], cut: float = CUT) -> list[list[int]]:
    """Rows of `matrix` by average linkage, as long as the average similarity is `cut` at least.

    Args:
        sizes: how many comments each row stands for.
    """
    similar = matrix @ matrix.T
    similar = (similar + similar.T) / 2  # a chain ends because it is symmetric to the last bit
    np.fill_diagonal(similar, -np.inf)
    size, members = list(sizes), [[row] for row in range(len(matrix))]
    chain: list[int] = []
    for start in range(len(matrix)):
        if members[start]:
            chain.append(start)
        while chain:
            last = chain[-1]
            next = int(similar[last].argmax())
            if similar[last, next] < cut:
                # Nothing is near, and whatever others come to be, it will be no nearer.
                similar[last, :] = similar[:, last] = -np.inf
                chain.pop()
            elif len(chain) > 1 and similar[last, chain[-2]] >= similar[last, next]:
                chain.pop()
                other = chain.pop()
                joined = size[last] * similar[last] + size[other] * similar[other]
                joined /= size[last] + size[other]
                similar[last, :] = similar[:, last] = -np.inf
                joined[[last, other]] = -np.inf
                similar[other, :] = similar[:, other] = joined
                size[other] += size[last]
                members[other] += members[last]
                members[last] = []
                if not chain:
                    chain.append(other)
            else:
                chain.append(next)
    return [sorted(ones) for ones in members if ones]


def _alike(said: Sequence[Said], matrix: Matrix, rows: Sequence[int]) -> list[list[int]]:
    """`clusters` of these rows; what says the same in the same words counts as often as it is said."""
    same: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        same[said[row].text.casefold()].append(row)
    texts = list(same.values())
    found = clusters(matrix[[text[0] for text in texts]], [len(text) for text in texts])
    return [sorted(row for text in cluster for row in texts[text]) for cluster in found]


def _nearest_first(said: Sequence[Said], matrix: Matrix, rows: Sequence[int]) -> list[Said]:
    ones = matrix[list(rows)]
    near = (ones @ ones.mean(axis=0)).tolist()
    ranked = sorted(zip(rows, near, strict=True), key=lambda one: (-one[1], said[one[0]].vote))
    return [said[row] for row, _ in ranked]


def _grams(texts: Sequence[str]) -> Matrix:
    """Character n-grams within words, hashed: pairs of Korean, triples of other letters."""
    rows = np.zeros((len(texts), BINS), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in _WORD.findall(text.casefold()):
            size = 2 if _HANGUL.search(word) else 3
            padded = f" {word} "
            for start in range(len(padded) - size + 1):
                row[crc32(padded[start : start + size].encode("utf-8", "replace")) % BINS] = 1
    return _unit(rows)


def _unit(rows: NDArray[Any]) -> Matrix:
    """Rows at length 1; zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1, lengths), dtype=np.float32)
