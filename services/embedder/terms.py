"""The terms of a text, for lexical search: one rule for every script, and no dictionary. Pure.

Text is taken in NFKC, without regard to case. What is no letter, digit or mark separates words;
soft hyphens, joiners and the like are passed over.

- In scripts that join words, or write them without spaces (Hangul, Han, Kana, Thai, Lao, Burmese,
  Khmer), terms are the pairs of neighbouring characters, over spaces too, for the spacing of Korean
  varies ("환불 규정", "환불규정"): 환불 불규 규정; and a character that is alone.
- Elsewhere they are the words and, of longer ones, their first four letters too, which stand in for
  a stemmer ("heated", "heating": heat), as in McNamee, Nicholas and Mayfield, "Addressing
  morphological variation in alphabetic languages" (SIGIR 2009).
- Where the two meet in one word, there is the pair across: "2026년": 2026 6년.

Terms are numbers of `BITS` bits. Those of characters are exact, those of words are hashes, where two
of a million words may meet.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["BITS", "occurrences"]

BITS = 40
PREFIX = 4

_BETWEEN, _PASSED, _LETTER, _DENSE = range(4)
_CODES = 0x32400
"""Characters from here on are variants, tags and private ones: passed over. 18 bits hold the others."""
_PAIRED = [
    range(0x0E00, 0x1000), range(0x1000, 0x10A0), range(0x1100, 0x1200), range(0x1780, 0x1800),
    range(0x3005, 0x3008), range(0x3040, 0x3100), range(0x3130, 0x3190), range(0x31F0, 0x3200),
    range(0x3400, 0xA000), range(0xA960, 0xA980), range(0xAC00, 0xD800), range(0xF900, 0xFB00),
    range(0x20000, _CODES),
]  # fmt: skip
_SELECTORS = range(0xFE00, 0xFE10)
_ODD = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: its multiples are spread evenly."""


def occurrences(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Every occurrence of every term in `texts`, in no order.

    Returns:
        The terms, shape (occurrences,), and for each the index of its text, same shape.
    """
    folded = [unicodedata.normalize("NFKC", text).casefold() + "\n" for text in texts]
    codes = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), "<u4")
    codes = np.minimum(codes, _CODES)
    kinds = _kinds()[codes]
    shown = kinds != _PASSED
    owners = np.repeat(np.arange(len(folded), dtype=np.int32), [len(text) for text in folded])
    codes, kinds, owners = codes[shown], kinds[shown], owners[shown]

    places = np.flatnonzero(kinds > _PASSED)
    codes, kinds, owners = codes[places].astype(np.uint64), kinds[places], owners[places]
    # Each text ends with a line break: what begins one begins a word.
    begins = np.diff(places, prepend=-2) != 1
    parts = [_pairs(codes, kinds == _DENSE, owners, begins), _words(codes, kinds == _LETTER, owners, begins)]
    return np.concatenate([terms for terms, _ in parts]), np.concatenate([of for _, of in parts])


def _pairs(
    codes: NDArray[np.uint64], dense: NDArray[np.bool_], owners: NDArray[np.int32], begins: NDArray[np.bool_]
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    both, either = dense[:-1] & dense[1:], dense[:-1] | dense[1:]
    joined = np.flatnonzero((owners[:-1] == owners[1:]) & (both | either & ~begins[1:]))
    alone = np.flatnonzero(dense & begins & np.append(begins[1:], True))
    terms = np.concatenate(
        [codes[joined] << np.uint64(18) | codes[joined + 1], codes[alone] << np.uint64(18)]
    )
    return terms, np.concatenate([owners[joined], owners[alone]])


def _words(
    codes: NDArray[np.uint64], letter: NDArray[np.bool_], owners: NDArray[np.int32], begins: NDArray[np.bool_]
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    first = letter & (begins | ~np.append(False, letter[:-1]))
    codes, owners, first = codes[letter], owners[letter], first[letter]
    starts = np.flatnonzero(first)
    if not len(starts):
        return codes[:0], owners[:0]
    lengths = np.diff(starts, append=len(codes))
    inside = np.arange(len(codes)) - np.repeat(starts, lengths)
    powers = np.cumprod(np.full(lengths.max(), _ODD, np.uint64))  # modulo 2^64
    scrambled = _scramble(codes) * powers[inside]
    words = np.add.reduceat(scrambled, starts)
    scrambled[inside >= PREFIX] = 0
    long = lengths > PREFIX
    prefixes = np.add.reduceat(scrambled, starts)[long] + np.uint64(1)  # apart from the word itself
    terms = _scramble(np.concatenate([words, prefixes])) >> np.uint64(64 - BITS)
    return terms | np.uint64(1 << BITS - 1), np.concatenate([owners[starts], owners[starts[long]]])


def _scramble(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection in which every bit weighs on the high ones (the finisher of MurmurHash3)."""
    numbers = (numbers ^ numbers >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
    numbers = (numbers ^ numbers >> np.uint64(33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return numbers ^ numbers >> np.uint64(33)


@cache
def _kinds() -> NDArray[np.uint8]:
    """What each character is to us, by its code; 205 kB, made in 50 ms."""
    kinds = np.full(_CODES + 1, _BETWEEN, np.uint8)
    for code in range(_CODES):
        category = unicodedata.category(chr(code))
        if category[0] in "LNM":
            kinds[code] = _LETTER
        elif category == "Cf":
            kinds[code] = _PASSED
    for dense in _PAIRED:
        part = kinds[dense.start : dense.stop]
        part[part == _LETTER] = _DENSE
    kinds[_SELECTORS.start : _SELECTORS.stop] = kinds[_CODES] = _PASSED
    return kinds
