"""Checks of the texts themselves: too short, mojibake, HTML, scripts, languages, lengths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import resources

import numpy as np

from tunelab.core.words import agreeing, counted, short
from tunelab.data import duplicates
from tunelab.data.gate.values import Bag, DatasetView, Finding, Ints

__all__ = [
    "find_html",
    "find_mojibake",
    "find_other_languages",
    "find_unusual_lengths",
    "find_wordless_texts",
]


# --- texts ----------------------------------------------------------------------------------


def find_wordless_texts(look: DatasetView) -> list[Finding]:
    """Texts of one word, or of none once marks and HTML are gone."""
    few = np.array([len(t.split()) for t in look.twins.texts])[look.twins.group]
    wordless = np.array([not any(map(str.isalnum, t)) for t in look.twins.texts])[look.twins.group]
    rows = np.flatnonzero((few <= 1) | wordless)
    if not len(rows):
        return []
    none = int(wordless.sum())
    return [
        finding_of_texts(
            look,
            "short",
            rows,
            what=f"have one word or none ({none:,} without any letter)",
            advice="There is hardly anything to classify.",
            numbers={"wordless": none},
        )
    ]


def finding_of_texts(
    look: DatasetView,
    check: str,
    rows: Ints,
    *,
    what: str,
    advice: str,
    numbers: Mapping[str, float] | None = None,
    note: Callable[[int], str] = lambda _: "",
) -> Finding:
    n = len(look.texts)
    return Finding(
        check=check,
        where="all",
        level="warning" if len(rows) / n >= 0.01 else "note",
        count=len(rows),
        of=n,
        says=f"{len(rows):,} of {counted(n, 'text')} {agreeing(len(rows), what)}",
        advice=advice,
        numbers={"share": len(rows) / n, **(numbers or {})},
        examples=look.examples(rows, note),
        test_ids=look.test_ids(rows),
    )


# What a wrong decoding leaves: a letter's bytes side by side, or a code of no character. Ã alone is
# a letter.
_SUSPECT = re.compile("[^\x00-\x7f]{2}|[\x80-\x9f]")


def mended(text: str) -> str | None:
    """The text with what was decoded with the wrong encoding put right; None if it has none.

    "cafÃ©" gives "café" (Speer 2019, ftfy; https://ftfy.readthedocs.io).
    """
    import ftfy

    if text.isascii() or not _SUSPECT.search(text):
        return None
    fixed = ftfy.fix_encoding(text)
    return fixed if fixed != text else None


def find_mojibake(look: DatasetView) -> list[Finding]:
    """Text read in another encoding ("cafÃ©"), and the mark of what could not be decoded."""
    right: dict[int, str | None] = {}
    for i, text in enumerate(look.texts):
        if "\ufffd" in text:
            right[i] = None
        elif (fixed := mended(text)) is not None:
            right[i] = fixed
    if not right:
        return []
    rows = np.array(list(right), dtype=np.int64)
    return [
        finding_of_texts(
            look,
            "mojibake",
            rows,
            what="were decoded with the wrong encoding",
            advice="Read the file again with --encoding.",
            note=lambda i: f"meant: {short(right[i] or '', 120)}" if right[i] else "U+FFFD",
        )
    ]


_HTML = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|body|br|center|code|div|em|font|h[1-6]|head|hr|html|i|img|li|"
    r"link|meta|ol|p|pre|script|small|span|strong|style|sub|sup|table|tbody|td|th|tr|tt|u|ul)\b"
    r"[^<>]{0,300}>|&(?:[a-z]{2,8}|#[0-9]{1,6}|#x[0-9a-f]{1,5});",
    re.IGNORECASE,
)


def find_html(look: DatasetView) -> list[Finding]:
    """Tags and entities of HTML."""
    rows = np.array(
        [i for i, t in enumerate(look.texts) if ("<" in t or "&" in t) and _HTML.search(t)],
        dtype=np.int64,
    )
    if not len(rows):
        return []

    def note(i: int) -> str:
        markup = _HTML.search(look.texts[i])
        return markup[0] if markup else ""

    advice = "Strip it, unless texts in use hold it too."
    return [finding_of_texts(look, "html", rows, what="hold HTML", advice=advice, note=note)]


SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    "Greek": ((0x370, 0x3FF),),
    "Cyrillic": ((0x400, 0x52F),),
    "Hebrew": ((0x590, 0x5FF),),
    "Arabic": ((0x600, 0x6FF), (0x750, 0x77F)),
    "Devanagari": ((0x900, 0x97F),),
    "Thai": ((0xE00, 0xE7F),),
    "Korean": ((0xAC00, 0xD7AF), (0x1100, 0x11FF)),
    "Japanese or Chinese": ((0x3040, 0x30FF), (0x4E00, 0x9FFF)),
}
LEAST_WORDS_TO_NAME_LANGUAGE = 6  # a shorter text says little about its language


def _stop_words() -> dict[str, str]:
    import yaml

    text = (resources.files("tunelab.data") / "lists" / "stop_words.yaml").read_text(
        encoding="utf-8"
    )
    return dict(yaml.safe_load(text))


def languages(look_texts: duplicates.Twins, bag: Bag) -> list[str | None]:
    """The language or script of each distinct text; None where the words do not tell.

    Counts the different frequent words of eleven languages (lists/stop_words.yaml); a language is
    named where at least three of its own, as many as a sixth of all words, and twice as many as
    of any other occur. Scripts are told by their letters.
    """
    stop_words = _stop_words()
    names = list(stop_words)
    lists = np.zeros((len(bag.number), len(names)), dtype=np.float32)
    for j, words in enumerate(stop_words.values()):
        for word in words.split():
            if word in bag.number:
                lists[bag.number[word], j] = 1
    present = bag.matrix(bag.flat, len(bag.number))
    present.data[:] = 1
    counts = np.asarray(present @ lists)
    size = np.diff(bag.starts)
    ranked = np.sort(counts, axis=1)
    sure = (
        (ranked[:, -1] >= 3)
        & (ranked[:, -1] >= size / 6)
        & (ranked[:, -1] >= 2 * ranked[:, -2])
        & (size >= LEAST_WORDS_TO_NAME_LANGUAGE)
    )
    best = counts.argmax(axis=1)
    out: list[str | None] = [names[b] if s else None for b, s in zip(best, sure, strict=True)]
    for i, text in enumerate(look_texts.texts):
        if not text.isascii():
            script = _script(text)
            if script is not None:
                out[i] = script
    return out


def _script(text: str) -> str | None:
    """The script of most letters, where it is one of SCRIPTS."""
    letters = [ord(c) for c in text[:1000] if c.isalpha()]
    if not letters:
        return None
    for name, ranges in SCRIPTS.items():
        inside = sum(any(low <= c <= high for low, high in ranges) for c in letters)
        if inside > len(letters) / 2:
            return name
    return None


def find_other_languages(look: DatasetView) -> list[Finding]:
    """Texts in another language or script than most."""
    of_group = languages(look.twins, look.bag)
    known = Counter(of_group[g] for g in look.twins.group if of_group[g] is not None)
    if not known:
        look.notes.append("languages are not told apart: no text has enough words that are known")
        return []
    main = known.most_common(1)[0][0]
    rows = np.array(
        [i for i, g in enumerate(look.twins.group) if of_group[g] not in (None, main)],
        dtype=np.int64,
    )
    if not len(rows):
        return []
    others = Counter(str(of_group[look.twins.group[i]]) for i in rows)
    named = ", ".join(f"{k} {v:,}" for k, v in others.most_common(4))
    return [
        finding_of_texts(
            look,
            "language",
            rows,
            what=f"are not in {main} as most are ({named})",
            advice="A model of one language reads them badly.",
            numbers=dict(others),
            note=lambda i: str(of_group[look.twins.group[i]]),
        )
    ]


def find_unusual_lengths(look: DatasetView) -> list[Finding]:
    """Texts far longer or shorter than the rest: outside Tukey's far fences of log length."""
    logs = np.log(np.maximum(1, look.words))
    low, high = np.percentile(logs, [25, 75])
    # Where most texts are of one length, a quarter of it either way is still no outlier.
    spread = max(float(high - low), 0.2)
    rows = np.flatnonzero((logs < low - 3 * spread) | (logs > high + 3 * spread))
    if not len(rows):
        return []
    rows = rows[np.argsort(-np.abs(logs[rows] - np.median(logs)), kind="stable")]
    middle = float(np.median(look.words))
    return [
        finding_of_texts(
            look,
            "length",
            rows,
            what=f"are far from the usual length (median {counted(round(middle), 'word')}; these "
            f"{look.words[rows].min():,} to {look.words[rows].max():,})",
            advice="Long ones are cut at max_length.",
            numbers={"median": middle},
            note=lambda i: counted(int(look.words[i]), "word"),
        )
    ]
