"""Texts that are the same or nearly: found where planted, and nowhere else."""

from __future__ import annotations

import difflib
from itertools import combinations

import numpy as np
import pytest

from tunelab.data import passages
from tunelab.data.duplicates import find_twins, match, normalise
from tunelab.data.passages import Likeness, usual

WORDS = [f"{a}{b}{c}" for a in ("ba", "ko", "mi", "ru", "ste") for b in ("lo", "na", "pri", "vu")
         for c in ("m", "nt", "r", "sk", "x")]  # fmt: skip


def sentences(n: int, length: int = 15, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) for _ in range(n)]


def kind_of(a: str, b: str, *others: str, labels: tuple[int, int] | None = None) -> Likeness | None:
    """How two texts are alike among others; None where they are not."""
    known = None if labels is None else [*labels, *[0] * len(others)]
    twins = find_twins([a, b, *others], known)
    if twins.group[0] == twins.group[1]:
        return Likeness.SAME
    kinds = [k for p, k in zip(twins.pairs.tolist(), twins.kind, strict=True) if p == [0, 1]]
    return Likeness(int(kinds[0])) if kinds else None


def changed(text: str, share: float, rng: np.random.Generator) -> str:
    """The text with some of its words replaced."""
    words = text.split()
    for i in rng.choice(len(words), max(1, round(share * len(words))), replace=False):
        words[i] = str(rng.choice(WORDS))
    return " ".join(words)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("A quiet, wonderful film.", "a quiet wonderful FILM!"),
        ("A<br />line", "a line"),
        ("Tom &amp; Jerry", "tom jerry"),
        ("It's fine", "its fine"),
        ("It’s fine", "It's fine"),  # noqa: RUF001
        ("caf\u00e9", "cafe\u0301"),
        ("ＦＵＬＬ width", "full width"),  # noqa: RUF001
        ("über_gut", "Über gut"),
    ],
)
def test_same_but_for_marks(a: str, b: str):
    assert normalise(a) == normalise(b)
    assert kind_of(a, b) == Likeness.SAME


@pytest.mark.parametrize(
    ("a", "b"), [("!!!", "???"), ("😀", "😢"), ("not good", "good"), ("1", "2")]
)
def test_not_the_same(a: str, b: str):
    assert normalise(a) != normalise(b)
    assert len(find_twins([a, b]).first) == 2


# --- nearly the same ------------------------------------------------------------------------


def test_finds_the_pairs_that_comparing_all_finds():
    rng = np.random.default_rng(1)
    base = sentences(150)
    texts = [*base, *(changed(t, rng.uniform(0.05, 0.4), rng) for t in base[:90])]
    twins = find_twins(texts)
    found = {(int(a), int(b)) for a, b in np.sort(twins.first[twins.pairs], axis=1)}

    def in_order(a: str, b: str) -> float:
        blocks = difflib.SequenceMatcher(None, a.split(), b.split(), autojunk=False)
        return sum(m.size for m in blocks.get_matching_blocks()) / 15

    true = {p: in_order(*(texts[i] for i in p)) for p in combinations(range(len(texts)), 2)}
    assert found >= {p for p, share in true.items() if share >= 0.73}  # 11 of 15 words
    assert found <= {p for p, share in true.items() if share >= 0.45}  # or half of it in a piece
    assert sum(share >= 0.73 for share in true.values()) > 50


@pytest.mark.parametrize("length", [8, 12, 20, 50, 150, 400])
def test_a_fifth_of_the_words_may_be_others(length: int):
    rng = np.random.default_rng(length)
    texts = sentences(40, length, seed=length)
    copies = [changed(t, 0.2, rng) for t in texts]
    found = match([*texts, *sentences(200, length, seed=1)], copies)
    assert (found.row == np.arange(40)).mean() >= 0.95
    assert found.count(Likeness.NEAR) >= 38


def test_sentences_in_another_order_are_near_and_shuffled_words_are_not():
    (text,) = sentences(1, 24)
    words = text.split()
    assert kind_of(text, " ".join(words[12:] + words[:12])) == Likeness.NEAR
    shuffled = " ".join(np.random.default_rng(0).permutation(words))
    assert kind_of(text, shuffled) is None


def test_short_texts_that_differ_in_a_word_and_in_label_are_two_texts():
    best, worst = "one of the best movies of the year", "one of the worst movies of the year"
    assert kind_of(best, worst) == Likeness.NEAR
    assert kind_of(best, worst, labels=(0, 0)) == Likeness.NEAR
    assert kind_of(best, worst, labels=(1, 0)) is None
    (text,) = sentences(1, 60)
    copy = text.replace(text.split()[30], "another")
    assert kind_of(text, copy, labels=(1, 0)) == Likeness.NEAR  # a copy, whoever labelled it
    assert kind_of(best, best.upper(), labels=(1, 0)) == Likeness.SAME


def test_a_group_of_two_labels_has_none():
    texts = ["one of the best movies of the year", "One of the best movies of the year!",
             "one of the worst movies of the year"]  # fmt: skip
    assert len(find_twins(texts, [0, 0, 1]).pairs) == 0
    assert find_twins(texts, [0, 1, 1]).kind.tolist() == [Likeness.NEAR]


# --- contained ------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [14, 20, 50, 150, 400])
@pytest.mark.parametrize("which", ["first half", "last half", "half and new words", "within"])
def test_half_a_text_is_found_in_another(length: int, which: str):
    texts, others = sentences(30, length, seed=length), sentences(30, 2 * length, seed=7)
    half = (length + 1) // 2
    made = []
    for text, other in zip(texts, others, strict=True):
        words, new = text.split(), other.split()
        made.append(" ".join({
            "first half": words[:half],
            "last half": words[-half:],
            "half and new words": words[:half] + new[:half],
            "within": new[: length // 2] + words + new[length // 2 :],
        }[which]))  # fmt: skip
    found = match([*texts, *sentences(200, length, seed=1)], made)
    assert (found.row == np.arange(30)).all()
    assert found.count(Likeness.CONTAINED) == 30


def test_a_prefix_is_found_however_long_the_texts():
    texts, others = sentences(30, 300, seed=5), sentences(30, 300, seed=6)
    made = [f"{a[:100]} {b}" for a, b in zip(texts, others, strict=True)]
    assert (match(texts, made).row == np.arange(30)).all()


def test_a_phrase_in_another_text_is_nothing():
    texts = sentences(200, 20)
    for words in (1, 2, 3, 4):
        phrases = [" ".join(t.split()[3 : 3 + words]) for t in texts]
        assert not match(texts, phrases).found.any()
    assert kind_of("not good", "good") is None
    assert kind_of("a good film", "a good film with a slow start and a strange end") is None


# --- what many texts have -------------------------------------------------------------------


def test_how_many_texts_make_wording_usual():
    assert [usual(n) for n in (2, 100, 400, 1_000, 10_000, 100_000)] == [5, 5, 20, 25, 50, 500]


@pytest.mark.parametrize("words", [3, 12, 60])
@pytest.mark.parametrize("kinds", [1, 6])
@pytest.mark.parametrize("place", ["footer", "header", "both"])
def test_what_stands_below_many_texts_makes_no_twins(words: int, kinds: int, place: str):
    rng = np.random.default_rng(words)
    texts = sentences(900, 12, seed=2)
    more = sentences(kinds, words, seed=3)
    made = []
    for i, text in enumerate(texts):
        extra = more[i % kinds] if rng.random() < 0.5 else ""
        above, below = extra if place != "footer" else "", extra if place != "header" else ""
        made.append(f"{above} {text} {below}")
    assert len(find_twins(made).pairs) == 0
    again = [made[0], changed(texts[3], 0.2, rng) + " " + more[0], f"{more[0]} {texts[5][:60]}"]
    assert match(made, again).row.tolist() == [0, 3, 5]


def test_texts_of_a_template_are_not_near():
    texts = [
        f"the staff at hotel number {i} was friendly and the room was clean" for i in range(500)
    ]
    assert len(find_twins(texts).pairs) == 0


def test_many_versions_of_one_text_are_linked_and_stay_cheap():
    rng = np.random.default_rng(0)
    rest = sentences(4000, 15, seed=8)
    texts = [changed(sentences(1, 40)[0], 0.1, rng) for _ in range(20)]
    twins = find_twins([*rest, *texts])
    linked = set(twins.pairs[twins.kind == Likeness.NEAR].ravel().tolist())
    assert linked >= set(twins.group[4000:].tolist())


# --- scripts --------------------------------------------------------------------------------

CHINESE = "这部电影的故事非常感人演员的表演也很自然我和家人一起看了两遍都觉得值得推荐给朋友"
JAPANESE = "この映画の物語はとても感動的で俳優の演技も自然でした家族と二回見て友達にも"
THAI = "หนังเรื่องนี้ยาวเกินไปแต่ฉันชอบเพลงประกอบมากและนักแสดงก็เล่นได้ดีทุกคนในครอบครัวชอบ"


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI])
def test_languages_without_spaces(text: str):
    n = len(text)
    other = {
        CHINESE: "昨天下雨所以我们没有去公园",
        JAPANESE: "昨日は雨だったので公園に行きませんでした",
        THAI: "เมื่อวานฝนตกเราจึงไม่ได้ไปสวนสาธารณะ",
    }[text]
    assert kind_of(text, text[: n // 3] + "新しい" + text[n // 3 + 3 :]) == Likeness.NEAR
    assert kind_of(text, text[: n // 2] + other) == Likeness.CONTAINED
    assert kind_of(text, other + text[n // 2 :]) in (Likeness.NEAR, Likeness.CONTAINED)
    assert kind_of(text, other) is None
    assert kind_of(text, text[:3] + other) is None


# --- groups, matches ------------------------------------------------------------------------


def test_groups_and_matches():
    texts = ["One two three, four five six.", "other words entirely, all of them",
             "one two three four five six", "one two three four five sixx"]  # fmt: skip
    twins = find_twins(texts)
    assert twins.group.tolist() == [0, 1, 0, 2]
    assert twins.first.tolist() == [0, 1, 3]
    assert twins.pairs.tolist() == [[0, 2]]
    found = match(texts[:2], [*texts[2:], "nothing like it at all here"])
    assert found.row.tolist() == [0, 0, -1]
    assert found.kind.tolist() == [Likeness.SAME, Likeness.NEAR, -1]
    assert found.similarity[0] == 1.0
    assert found.similarity[1] == pytest.approx(7 / 9)  # of 5 + 4 neighbours all but two
    assert found.similarity[2] == 0.0
    assert found.found.tolist() == [True, True, False]


def test_the_likest_reference_wins():
    reference = ["alpha beta gamma delta epsilon zeta eta theta iota",
                 "alpha beta gamma delta epsilon zeta eta theta kappa"]  # fmt: skip
    found = match(reference, ["alpha beta gamma delta epsilon zeta eta theta kappa mu"])
    assert found.row.tolist() == [1]


def test_nothing_and_little():
    assert find_twins([]).pairs.shape == (0, 2)
    assert match([], ["a"]).row.tolist() == [-1]
    assert match(["a"], []).row.shape == (0,)
    assert find_twins(["", " ", "."]).group.tolist() == [0, 0, 1]


def test_a_share_at_a_time_finds_what_all_at_once_finds(monkeypatch: pytest.MonkeyPatch):
    texts = sentences(400, length=12) + sentences(4, length=90, seed=1)
    texts += [" ".join([*t.split()[:9], "other", "words", "here"]) for t in texts[:200]]
    texts += [f"{t} {texts[i + 1]}" for i, t in enumerate(texts[:100])]
    whole = find_twins(texts)
    for name, size in (("GRAMS", 300), ("ENTRIES", 200), ("PAIRS", 7)):
        monkeypatch.setattr(passages, f"{name}_AT_A_TIME", size)
    in_parts = find_twins(texts)
    assert len(whole.pairs) > 200
    assert set(whole.kind) == {Likeness.NEAR, Likeness.CONTAINED}
    for field in ("group", "first", "pairs", "kind", "similarity"):
        np.testing.assert_array_equal(getattr(in_parts, field), getattr(whole, field))
