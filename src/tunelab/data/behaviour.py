"""Suites of CheckList behaviour tests (Ribeiro et al. 2020): from YAML to the cases of a data set.

A suite's file is read and checked; templates are filled and texts are changed (`CHANGES`), each
from a seed, so that the same suite on the same data gives the same cases. What a classifier does
with them is told by `analysis.behaviour`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunelab.core.errors import ConfigError, suggest
from tunelab.core.values import Classifier, Predictions
from tunelab.core.words import kind_of, short

__all__ = [
    "BUNDLED_SUITE",
    "CHANGES",
    "PART",
    "Case",
    "Role",
    "Suite",
    "Test",
    "TestKind",
    "are_of_cases",
    "cases",
    "load_suite",
    "predict_cases",
    "roles",
    "suite_from_json",
    "suite_to_json",
    "texts_of_cases",
]


TestKind = Literal["minimum", "invariance", "direction"]
Role = Literal["positive", "neutral", "negative"]
BUNDLED_SUITE = "sentiment_en"
PART = "behaviour"  # the name of these predictions in a trial's predictions
KINDS = ("minimum", "invariance", "direction")
ROLES = ("positive", "neutral", "negative")
_SLOT = re.compile(r"\{(\w+)\}")


# --- values ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Test:
    """One test: `templates` with {word lists}, and what is expected of the filled texts.

    "minimum": the role `expect`. "invariance": `change` (a row of CHANGES) or another word of the
    list `vary` leaves the class as it is. "direction": a phrase of `add` does not lower `expect`.
    """

    test: str
    capability: str
    kind: TestKind
    templates: tuple[str, ...]
    cases: int = 30
    expect: Role | None = None
    change: str | None = None
    vary: str | None = None
    add: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests with their word lists; `labels` are class names by role, in lower case."""

    name: str
    labels: Mapping[str, tuple[str, ...]]
    words: Mapping[str, tuple[str, ...]]
    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A text to be classified, and its changed form `other` where the test compares two."""

    test: str
    capability: str
    kind: TestKind
    text: str
    other: str | None
    expect: Role | None


# --- reading a suite ------------------------------------------------------------------------


def load_suite(source: str | Path = BUNDLED_SUITE) -> Suite:
    """Read a suite: the bundled one by its name, or a YAML file. Raises ConfigError, one line."""
    import yaml

    from tunelab.core.bounded_yaml import BoundedLoader

    path = Path(source)
    try:
        if str(source) == BUNDLED_SUITE:
            file = resources.files("tunelab.data") / "lists" / f"{BUNDLED_SUITE}.yaml"
            value = yaml.safe_load(file.read_text(encoding="utf-8"))
        else:
            value = yaml.load(path.read_text(encoding="utf-8"), Loader=BoundedLoader)  # noqa: S506
    except FileNotFoundError:
        raise ConfigError(
            f"{source}: no such suite. Expected {BUNDLED_SUITE} or a YAML file of tests."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise ConfigError(f"{source}: not a YAML file ({' '.join(str(e).split())}).") from None
    return _parse_suite(value, path.name)


MOST_CASES = 10_000


def _parse_suite(value: Any, where: str) -> Suite:
    if not isinstance(value, dict) or not isinstance(value.get("tests"), list):
        raise ConfigError(
            f"{where}: expected a mapping with `tests`, a list; see docs/behaviour.md."
        )
    sections: dict[str, Mapping[str, object]] = {}
    for section in ("words", "labels"):
        sections[section] = value.get(section) or {}
        if not isinstance(sections[section], dict):
            raise ConfigError(f"{where}: {section}: expected a section of lists of strings.")
    words = {k: _strings(v, f"{where}: words.{k}") for k, v in sections["words"].items()}
    labels = sections["labels"]
    for role in labels:
        if role not in ROLES:
            raise ConfigError(f"{where}: labels.{role}: no such role.{suggest(role, ROLES)}")
    named = {
        r: tuple(x.lower() for x in _strings(v, f"{where}: labels.{r}")) for r, v in labels.items()
    }
    tests = tuple(
        _parse_test(t, words, f"{where}: tests.{i}") for i, t in enumerate(value["tests"])
    )
    names = [t.test for t in tests]
    twice = [n for n in names if names.count(n) > 1]
    if twice or not tests:
        raise ConfigError(
            f"{where}: {f'the test {twice[0]!r} stands twice' if twice else 'no tests'}; expected "
            "tests with different names."
        )
    return Suite(str(value.get("name", where)), named, words, tests)


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        given = short(repr(value), 100)
        raise ConfigError(f"{where}: expected a list of strings, found {given}. Quote numbers.")
    return tuple(value)


def _parse_test(value: Any, words: Mapping[str, tuple[str, ...]], where: str) -> Test:
    known = tuple(Test.__dataclass_fields__)
    if not isinstance(value, dict) or not isinstance(value.get("test"), str):
        raise ConfigError(f"{where}: expected a mapping with `test`, the test's name.")
    where = f"{where} ({value['test']})"
    for key in value:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}.{suggest(key, known, what='Keys')}")
    for key in ("kind", "expect", "change", "vary", "capability"):
        if not isinstance(value.get(key), str | None):
            raise ConfigError(f"{where}: {key}: expected a text, found {kind_of(value[key])}.")
    cases = value.get("cases", 30)
    if not isinstance(cases, int) or not 1 <= cases <= MOST_CASES:
        given = short(repr(cases), 100)
        raise ConfigError(
            f"{where}: cases: expected a number from 1 to {MOST_CASES:,}, found {given}."
        )
    kind = value.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind is {kind!r}.{suggest(str(kind), KINDS, what='Kinds')}")
    templates = _strings(value.get("templates"), f"{where}: templates")
    for slot in (s for t in templates for s in _SLOT.findall(t)):
        if slot not in words:
            raise ConfigError(f"{where}: no words {slot!r}.{suggest(slot, words, what='Words')}")
    test = Test(
        test=value["test"],
        capability=str(value.get("capability", kind)),
        kind=kind,
        templates=templates,
        cases=cases,
        expect=value.get("expect"),
        change=value.get("change"),
        vary=value.get("vary"),
        add=_strings(value["add"], f"{where}: add") if "add" in value else (),
    )
    _check_kind(test, words, where)
    return test


def _check_kind(t: Test, words: Mapping[str, tuple[str, ...]], where: str) -> None:
    if t.kind in ("minimum", "direction") and t.expect not in ROLES:
        raise ConfigError(f"{where}: expect is {t.expect!r}, expected one of {', '.join(ROLES)}.")
    if t.kind == "direction" and not t.add:
        raise ConfigError(f"{where}: a direction test needs `add`, phrases to be added.")
    if t.kind == "invariance":
        if (t.change is None) == (t.vary is None):
            raise ConfigError(f"{where}: an invariance test needs `change` or `vary`, one of them.")
        if t.change is not None and t.change not in CHANGES:
            raise ConfigError(
                f"{where}: no change {t.change!r}.{suggest(t.change, CHANGES, what='Changes')}"
            )
        if t.vary is not None and len(words.get(t.vary, ())) < 2:
            raise ConfigError(f"{where}: vary: expected a list of two words or more in `words`.")
        if t.vary is not None and any(f"{{{t.vary}}}" not in s for s in t.templates):
            raise ConfigError(f"{where}: vary: every template needs {{{t.vary}}}.")


# --- cases ----------------------------------------------------------------------------------


def _typo(text: str, rng: np.random.Generator) -> str:
    """Two neighbouring letters within one word of five letters or more swapped."""
    places = [
        m.start() + i
        for m in re.finditer(r"[^\W\d_]{5,}", text)
        for i in range(1, len(m[0]) - 2)
        if m[0][i] != m[0][i + 1]
    ]
    if not places:
        return text
    i = places[int(rng.integers(len(places)))]
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def _punctuation(text: str, rng: np.random.Generator) -> str:
    """The final mark dropped, doubled or set apart; commas dropped."""
    bare = text.rstrip(".!?")
    return [bare, f"{bare}..", f"{bare} .", text.replace(",", "")][int(rng.integers(4))]


_IN_FULL = {
    "it is": "it's",
    "was not": "wasn't",
    "is not": "isn't",
    "will not": "won't",
    "we are": "we're",
    "i am": "i'm",
    "you will": "you'll",
    "does not": "doesn't",
    "do not": "don't",
    "did not": "didn't",
    "cannot": "can't",
}


def _contraction(text: str, _rng: np.random.Generator) -> str:
    """Every long form contracted: "was not" to "wasn't"."""

    def short(m: re.Match[str]) -> str:
        contracted = _IN_FULL[m[0].lower()]
        return contracted[0].upper() + contracted[1:] if m[0][0].isupper() else contracted

    # "will not" before "you will", so that no "you'll not" comes of it.
    pattern = "|".join(sorted(_IN_FULL, key=lambda k: (not k.endswith("not"), k)))
    for part in pattern.split("|"):
        text = re.sub(rf"\b{part}\b", short, text, flags=re.IGNORECASE)
    return text


CHANGES: dict[str, Callable[[str, np.random.Generator], str]] = {
    "typo": _typo,
    "punctuation": _punctuation,
    "contraction": _contraction,
    "upper": lambda text, _: text.upper(),
    "lower": lambda text, _: text.lower(),
}


def cases(suite: Suite) -> tuple[Case, ...]:
    """All cases of a suite, test by test, without repetitions; the same whenever it is asked.

    A test has as many cases as it asks for, or fewer where its templates give no more.
    """
    out: list[Case] = []
    for t in suite.tests:
        digest = hashlib.blake2b(f"{suite.name}/{t.test}".encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "big"))
        seen: set[tuple[str, str | None]] = set()
        for attempt in range(40 * t.cases):
            if len(seen) == t.cases:
                break
            template = t.templates[attempt % len(t.templates)]
            text, other = _filled_template(t, template, suite.words, rng)
            if (text, other) not in seen and text != other:
                seen.add((text, other))
                out.append(Case(t.test, t.capability, t.kind, text, other, t.expect))
    return tuple(out)


def _filled_template(
    t: Test, template: str, words: Mapping[str, Sequence[str]], rng: np.random.Generator
) -> tuple[str, str | None]:
    chosen = {s: str(rng.choice(words[s])) for s in dict.fromkeys(_SLOT.findall(template))}
    text = _with_words(template, chosen)
    if t.kind == "minimum":
        return text, None
    if t.kind == "direction":
        return text, f"{text} {rng.choice(t.add)}"
    if t.vary is not None:
        others = [w for w in words[t.vary] if w != chosen[t.vary]]
        return text, _with_words(template, {**chosen, t.vary: str(rng.choice(others))})
    assert t.change is not None  # noqa: S101  checked when the suite was read
    return text, CHANGES[t.change](text, rng)


def _with_words(template: str, chosen: Mapping[str, str]) -> str:
    text = _SLOT.sub(lambda m: chosen[m[1]], template)
    return text[:1].upper() + text[1:]


def texts_of_cases(some: Sequence[Case]) -> list[str]:
    """What is to be classified: each case's text, then its changed form where it has one."""
    return [t for c in some for t in (c.text, c.other) if t is not None]


def predict_cases(classifier: Classifier, some: Sequence[Case]) -> Predictions:
    """A classifier's predictions on the cases; they have no label, so `labels` are all -1.

    Their ids name the texts, so that those of a suite that was changed are known for it.
    """
    asked = texts_of_cases(some)
    scores = classifier.scores(asked)
    ids = ids_of_cases(some)
    labels = np.full(len(asked), -1, dtype=np.int64)
    return Predictions(ids, labels, scores, classifier.score_kind)


def ids_of_cases(some: Sequence[Case]) -> tuple[str, ...]:
    asked = texts_of_cases(some)
    mark = hashlib.blake2b("\0".join(asked).encode(), digest_size=6).hexdigest()
    return tuple(f"{PART}:{mark}:{i}" for i in range(len(asked)))


def are_of_cases(p: Predictions, some: Sequence[Case]) -> bool:
    """Whether predictions are of the texts of these cases."""
    return p.ids == ids_of_cases(some)


def suite_to_json(suite: Suite, some: Sequence[Case]) -> dict[str, object]:
    """The content of a study's behaviour.json: the cases as they were asked, and the labels."""
    return {
        "suite": suite.name,
        "labels": {k: list(v) for k, v in suite.labels.items()},
        "cases": [asdict(c) for c in some],
    }


def suite_from_json(value: Mapping[str, Any]) -> tuple[Suite, tuple[Case, ...]]:
    """The cases of behaviour.json, and a suite that has their name and labels."""
    labels = {k: tuple(v) for k, v in value["labels"].items()}
    return Suite(value["suite"], labels, {}, ()), tuple(Case(**c) for c in value["cases"])


# --- roles --------------------------------------------------------------------------------


def roles(suite: Suite, label_names: Sequence[str]) -> tuple[Role | None, ...]:
    """What each class means to the suite: by its name, or by its order where all are numbers.

    Of numbers (stars, 0 and 1) the lower half is negative, the upper positive, a middle one
    neutral. Raises ConfigError where no class is positive or none negative.
    """
    role_of_class: list[Role | None] = []
    numbers = all(re.fullmatch(r"-?\d+", n) for n in label_names)
    k = len(label_names)
    for i, name in enumerate(label_names):
        if numbers:
            place = 2 * i - (k - 1)
            role_of_class.append(
                "negative" if place < 0 else "positive" if place > 0 else "neutral"
            )
            continue
        of = [r for r in ROLES if name.strip().lower() in suite.labels.get(r, ())]
        role_of_class.append(of[0] if of else None)  # type: ignore[arg-type]
    for role in ("positive", "negative"):
        if role not in role_of_class:
            raise ConfigError(
                f"{suite.name}: no class of {', '.join(map(repr, label_names))} is {role}. "
                f"Name it in the suite's labels.{role}, or give another suite with --suite."
            )
    return tuple(role_of_class)
