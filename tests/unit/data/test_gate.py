"""The data gate finds what is planted and keeps quiet where nothing is wrong."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from commands import run_here
from studies import make_study
from tiny import reviews
from tunelab import analysis
from tunelab.analysis.effects import effects
from tunelab.core import study_folder
from tunelab.core.values import Dataset, DataSpec, Predictions, Split
from tunelab.data import Gate, duplicates, inspect, load, write_table
from tunelab.data.gate import values
from tunelab.data.gate.checks import CHECKS
from tunelab.data.gate.labels import _features
from tunelab.data.gate.leaks import against
from tunelab.data.gate.texts import find_other_languages, mended
from tunelab.stats import Runs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def planter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planter", ROOT / "benchmarks" / "gate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planter"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo() -> Dataset:
    return load(DataSpec("demo"))


def change(
    dataset: Dataset, part: str, texts: dict[int, str] | None = None, **columns: Any
) -> Dataset:
    """The dataset with some texts of a part replaced, and further columns."""
    split = dataset.parts[part]
    new = tuple((texts or {}).get(i, t) for i, t in enumerate(split.texts))
    made = Split(split.ids, new, split.labels, {**split.columns, **columns})
    return replace(dataset, **{part: made})


def one(found: Gate, check: str, where: str | None = None) -> values.Finding:
    (finding,) = found.of(check, where)
    return finding


# --- nothing wrong --------------------------------------------------------------------------


def test_clean_data_gives_no_fault_and_no_warning(demo: Dataset):
    found = inspect(demo)
    assert {f.check for f in found.findings} <= {"label-errors"}
    assert all(f.level == "note" for f in found.findings)
    assert set(found.seconds) == set(CHECKS)
    assert found.fingerprint == demo.fingerprint


def test_json_and_back(demo: Dataset):
    found = inspect(change(demo, "test", {0: demo.train.texts[5]}))
    again = values.gate_from_json(json.loads(json.dumps(values.gate_to_json(found))))
    assert again == found
    assert len(values.lines(found)) == len(found.findings)
    assert values.lines(replace(found, findings=())) == ["nothing found by the data gate"]


# --- duplicates -----------------------------------------------------------------------------


def test_planted_leaks_and_repeats(planter: ModuleType):
    texts = planter.base_texts()[:1200]
    for seed in (0, 1):
        planted = planter.plant(texts, seed)
        for score in (planter.score_leaks(planted), planter.score_repeats(planted)):
            assert score["recall"] >= 0.95
            assert score["precision"] >= 0.95


def test_leaks_are_found_between_parts(demo: Dataset):
    copies = {i: demo.train.texts[10 + i].upper() for i in range(4)}
    long = next(i for i, t in enumerate(demo.train.texts) if len(t) > 150)
    copies[4] = demo.train.texts[long] + " Really"
    found = inspect(change(demo, "test", copies))
    leak = one(found, "leak")
    assert (leak.where, leak.level, leak.count, leak.of) == ("train/test", "fault", 5, 288)
    assert leak.numbers["same"] == 4
    assert set(leak.test_ids) == set(demo.test.ids[:5])
    assert leak.examples[0].rows[0].part == "train"
    assert leak.examples[0].rows[1].id in leak.test_ids
    assert "--on-leak drop" in leak.advice
    other = sum(demo.train.labels[10 + i] != demo.test.labels[i] for i in range(4))
    assert other <= leak.numbers["other_label"] <= other + 1


def test_conflicts_and_repeats_within_a_part(demo: Dataset):
    labels = demo.train.labels
    a, b = int(np.flatnonzero(labels == 0)[0]), int(np.flatnonzero(labels == 1)[0])
    found = inspect(change(demo, "train", {b: demo.train.texts[a] + "!"}))
    conflict = one(found, "conflicts")
    assert conflict.count == 2
    assert {r.label for r in conflict.examples[0].rows} == {"negative", "positive"}
    assert one(found, "duplicates", "train").numbers["same"] == 1


def test_against_another_dataset(demo: Dataset):
    held = list(demo.train.texts[:30]) + [
        f"entirely other words number {i} here" for i in range(30)
    ]
    test = Split(tuple(f"x:{i}" for i in range(60)), tuple(held), np.arange(60) % 2)
    other = replace(demo, name="other", test=test)
    (finding,) = against(demo, other, parts=("test",))
    assert finding.count == 30
    assert finding.where == "train/other test"
    assert set(finding.test_ids) == {f"x:{i}" for i in range(30)}
    clean = Split(test.ids[30:], test.texts[30:], test.labels[30:])
    assert against(demo, replace(demo, name="other", test=clean), parts=("test",)) == ()


# --- labels ---------------------------------------------------------------------------------


def learnable(n: int = 600, flip: int = 0) -> tuple[Dataset, np.ndarray]:
    """Texts that a bag of words learns almost perfectly, `flip` labels of them wrong."""
    rng = np.random.default_rng(0)
    words = [["warm", "lovely", "clever", "bright"], ["dull", "grim", "clumsy", "cold"]]
    plain = [f"w{i}" for i in range(80)]
    labels = np.arange(n) % 2
    texts = [" ".join([*rng.choice(words[y], 3), *rng.choice(plain, 7)]) for y in labels]
    wrong = np.zeros(n, dtype=bool)
    wrong[rng.choice(n, flip, replace=False)] = True
    labels = np.where(wrong, 1 - labels, labels)
    cuts = [(0, n * 7 // 10), (n * 7 // 10, n * 85 // 100), (n * 85 // 100, n)]
    parts = [Split(tuple(f"r:{i}" for i in range(a, b)), tuple(texts[a:b]), labels[a:b])
             for a, b in cuts]  # fmt: skip
    base = load(DataSpec("demo"))
    return replace(base, name="made", train=parts[0], validation=parts[1], test=parts[2]), wrong


def test_planted_label_errors():
    dataset, wrong = learnable(2000, flip=200)
    finding = one(inspect(dataset, ["label-errors"]), "label-errors")
    ids = [i for s in dataset.parts.values() for i in s.ids]
    planted = {ids[i] for i in np.flatnonzero(wrong)}
    assert 100 <= finding.count <= 250
    assert len(finding.examples) == 20
    assert {e.rows[0].id for e in finding.examples[:10]} <= planted
    test_rows = set(finding.test_ids)
    assert len(test_rows & planted) / len(test_rows) >= finding.numbers["precision"] > 0.4
    assert f"at least {100 * finding.numbers['precision']:.0f}% of these are wrong" in finding.says
    assert "sure" not in finding.says
    assert finding.level == "warning"
    clean, _ = learnable(2000)
    assert not inspect(clean, ["label-errors"]).findings


def test_label_errors_are_not_looked_for_where_words_say_nothing(demo: Dataset):
    rng = np.random.default_rng(0)
    split = demo.train
    noise = replace(demo, train=Split(split.ids, split.texts, rng.integers(0, 2, len(split))))
    found = inspect(noise, ["label-errors"])
    assert not found.findings
    assert "no label is called doubtful: the model that judges them" in found.notes[0]
    few = Split(split.ids[:10], split.texts[:10], np.arange(10) % 2)
    small = inspect(replace(demo, train=few, validation=few, test=few), ["label-errors"])
    assert "too few rows" in small.notes[0]


def test_imbalance_and_other_mixtures(demo: Dataset):
    assert not inspect(demo, ["imbalance"]).findings
    positive = np.flatnonzero(demo.test.labels == 1)[:120]
    negative = np.flatnonzero(demo.test.labels == 0)[:6]
    rows = np.concatenate([positive, negative])
    skewed = Split(tuple(demo.test.ids[i] for i in rows), tuple(demo.test.texts[i] for i in rows),
                   demo.test.labels[rows])  # fmt: skip
    found = inspect(replace(demo, test=skewed), ["imbalance"])
    assert one(found, "imbalance", "labels").numbers["majority"] == pytest.approx(120 / 126)
    assert "f1_macro" in one(found, "imbalance", "labels").advice
    assert one(found, "imbalance", "train/test").numbers["p_value"] < 1e-4


# --- texts ----------------------------------------------------------------------------------

GERMAN = "Das ist nicht der Film, den ich mir gewünscht habe, aber er war auch nicht schlecht."
TEXTS = [
    ("short", "Wow!"),
    ("short", "?! ..."),
    ("mojibake", "The cafÃ© was lovely and the staff were kind to us all evening."),
    ("mojibake", "Itâ€™s a wonderful place to spend an evening with friends and family."),
    ("mojibake", "A text with a \ufffd mark where a letter was before somebody lost it."),
    ("html", "A line<br />break in a text that is otherwise of the usual kind here."),
    ("html", "Salt &amp; pepper on everything that we ordered at this restaurant today."),
    ("language", GERMAN),
    ("language", "Ce film est très beau et nous avons ri avec les acteurs dans la salle."),
    ("language", "Это очень хороший фильм, и мы смотрели его всей семьёй в кино."),  # noqa: RUF001
    ("length", "word and another " * 400),
]


@pytest.mark.parametrize(("check", "text"), TEXTS, ids=[f"{c}-{t[:12]}" for c, t in TEXTS])
def test_planted_texts(demo: Dataset, check: str, text: str):
    found = inspect(change(demo, "test", {7: text}), [check])
    finding = one(found, check)
    assert finding.count == 1
    assert finding.test_ids == (demo.test.ids[7],)
    assert finding.examples[0].rows[0].id == demo.test.ids[7]


@pytest.mark.parametrize(
    "text",
    [
        "The café in São Paulo — « très bon » — was naïve, and cost £5 or €6.",
        "I < 3 this & that; a > b, R&B and AT&T; 5 <6",
        "Ã and Â are letters, and so are Ñ, ß and Ø.",
        "“Quoted” words, and an ellipsis… don’t make mojibake™ of a text.",  # noqa: RUF001
        "He said that the das and the der of German are hard for us.",
    ],
)
def test_texts_that_only_look_wrong(demo: Dataset, text: str):
    checks = ["mojibake", "html", "language", "short", "length"]
    assert not inspect(change(demo, "test", {7: text}), checks).findings


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("a dog \x96 and even he \x91barks\x92", "a dog – and even he ‘barks’"),  # noqa: RUF001
        ("na√Øve caf√©", "naïve café"),
        ("voilÃƒÂ  le cafÃƒÂ©", "voilà le café"),
    ],
    ids=["Windows-1252 as Latin-1", "Mac", "twice"],
)
def test_mending_knows_rarer_wrong_decodings(wrong: str, text: str):
    assert mended(wrong) == text


@pytest.mark.parametrize("text", ["café", "naïve – “so”", "Zürich’s £", "日本語 and Ελλάδα"])  # noqa: RUF001
def test_mending_undoes_a_wrong_decoding(text: str):
    raw = text.encode("utf-8")
    wrong = "".join(
        bytes([b]).decode("latin-1" if b in {0x81, 0x8D, 0x8F, 0x90, 0x9D} else "cp1252")
        for b in raw
    )
    assert mended(wrong) == text
    assert mended(text) is None


# --- what gives the label away --------------------------------------------------------------


def columns_of(dataset: Dataset, make: Callable[[int, int], Any]) -> Dataset:
    for part in ("train", "validation", "test"):
        labels = dataset.parts[part].labels.tolist()
        dataset = change(dataset, part, c=tuple(make(i, y) for i, y in enumerate(labels)))
    return dataset


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (lambda i, y: y, "value"),
        (lambda i, y: f"{['neg', 'pos'][y]}/{i}.txt", "word"),
        (lambda i, y: f"img{i} {['bad', 'fine'][y]}", "word"),
        (lambda i, y: y * 1000 + i % 977 * 0.7, "range"),
    ],
)
def test_columns_that_tell_the_label(demo: Dataset, make: Callable[[int, int], Any], how: str):
    finding = one(inspect(columns_of(demo, make), ["leaking-column"]), "leaking-column", "c")
    assert finding.level == "warning"
    assert finding.numbers["accuracy"] > 0.95
    assert how in finding.says


@pytest.mark.parametrize(
    "make",
    [lambda i, y: i, lambda i, y: f"row{i}", lambda i, y: i % 5, lambda i, y: None,
     lambda i, y: f"film number {i * 37 % 101}"],
)  # fmt: skip
def test_columns_that_do_not(demo: Dataset, make: Callable[[int, int], Any]):
    assert not inspect(columns_of(demo, make), ["leaking-column"]).findings


def test_a_label_within_the_texts(demo: Dataset):
    marked = demo
    for part, split in demo.parts.items():
        texts = {i: f"{t} cert-fresh" for i, t in enumerate(split.texts)
                 if split.labels[i] == 1 and i % 2}  # fmt: skip
        marked = change(marked, part, texts)
    found = inspect(marked, ["giveaway"])
    assert {f.where for f in found.findings} == {"cert", "fresh"}
    assert not inspect(demo, ["giveaway"]).findings


# --- the conclusion -------------------------------------------------------------------------


def made_runs(test: Split, right: dict[str, Callable[[int], bool]], seeds: int = 3) -> list[Runs]:
    runs = []
    for label, is_right in right.items():
        scores = np.zeros((len(test), 2))
        for i, y in enumerate(test.labels):
            scores[i, y if is_right(i) else 1 - y] = 1.0
        p = Predictions(test.ids, test.labels, scores, "logit")
        runs.append(Runs(label, dict.fromkeys(range(seeds), p)))
    return runs


def test_effect_on_the_conclusion(demo: Dataset):
    found = inspect(change(demo, "test", dict(enumerate(demo.train.texts[:48]))), ["leak"])
    # "memory" is right on the 48 leaked rows and on half of the others; "skill" on 6 of 10 of all.
    runs = made_runs(demo.test, {
        "memory": lambda i: i < 48 or i % 2 == 0, "skill": lambda i: i % 20 < 11,
    })  # fmt: skip
    (effect,) = effects(found, runs)
    assert (effect.removed, effect.rows) == (48, 288)
    memory, skill = effect.methods
    assert memory.without is not None
    assert memory.alone is not None
    assert memory.all.value == pytest.approx((48 + 120) / 288)
    assert memory.without.value == pytest.approx(0.5)
    assert memory.alone.value == 1.0
    assert (effect.first, effect.first_without) == ("memory", "skill")
    assert "skill is first then, not memory" in effect.sentence
    assert skill.all.value == pytest.approx(np.mean([i % 20 < 11 for i in range(288)]))
    assert effects(inspect(demo, ["leak"]), runs) == ()


def test_a_method_without_a_value_is_not_first(demo: Dataset):
    found = inspect(change(demo, "test", dict(enumerate(demo.train.texts[:48]))), ["leak"])
    svm, lora = made_runs(demo.test, {"svm": lambda i: i % 3 > 0, "lora": lambda i: i % 2 == 0})
    margins = {s: replace(p, score_kind="margin") for s, p in svm.by_seed.items()}
    (effect,) = effects(found, [Runs("svm", margins), lora], "log_loss")
    assert [m.label for m in effect.methods] == ["lora"]
    assert (effect.first, effect.first_without) == ("lora", "lora")
    assert effects(found, [Runs("svm", margins)], "log_loss") == ()
    (nothing,) = effects(found, [lora])  # and not "changes by -0.0 points"
    assert nothing.sentence == (
        "48 of 288 test rows are leaked from train: without them accuracy stays the same"
    )


# --- the command line -----------------------------------------------------------------------


def test_inspect_data_says_it(tmp_path: Path):
    rows = [
        [f"text of its own number {i} with words {i * 7}", ["no", "yes"][i % 2]] for i in range(80)
    ]
    twice = [["a text that stands in it twice", "no"], ["A text that stands in it twice!", "yes"]]
    rows += 6 * twice  # some of them in the test part, whatever the seed
    columns = {"text": [r[0] for r in rows], "label": [r[1] for r in rows],
               "path": [f"{r[1]}/{i}" for i, r in enumerate(rows)]}  # fmt: skip
    write_table(tmp_path / "r.csv", columns)
    said = run_here("inspect", "data", tmp_path / "r.csv")
    assert said.code == 0, said.err
    assert "carry more than one label" in said.out
    assert "column 'path' alone" in said.out
    facts = json.loads(run_here("inspect", "data", tmp_path / "r.csv", "--json",
                                "--test-on", tmp_path / "r.csv").out)  # fmt: skip
    found = values.gate_from_json(facts["gate"])
    assert found.of("conflicts")
    assert {f["where"] for f in facts["test_on"]} >= {"train/r.csv train"}
    failed = run_here("inspect", "data", tmp_path / "r.csv", "--on-leak", "fail")
    assert failed.code == 2
    assert "--on-leak drop" in failed.err


def test_a_study_keeps_it_and_says_what_it_changes(tmp_path: Path):
    folder = make_study(tmp_path, rows=60)
    plain = analysis.summarise(study_folder.read_study(folder))
    test = study_folder.read_predictions(
        folder, study_folder.read_study(folder).done[0].spec.trial_id
    )["test"]
    leak = values.Finding(
        "leak", "train/test", "fault", 12, 60, "12 of 60 rows", "", test_ids=test.ids[:12]
    )
    found = Gate("demo", "f", {}, (leak,), {})
    study_folder.write_extra(folder, "gate", values.gate_to_json(found))
    record = study_folder.read_study(folder)
    assert record.gate is not None
    assert values.gate_from_json(record.gate) == found
    (new,) = set(analysis.summarise(record).warnings) - set(plain.warnings)
    assert new.startswith("12 of 60 test rows are leaked from train: without them accuracy changes")


def test_counting_in_pieces_gives_the_same_features() -> None:
    """Pieces bound the memory; the numbers must not know of them, nor pairs cross two texts."""
    texts = ["a good film", "", "bad", *(t for t, _ in reviews(40)), "good good film film", "x"]
    bag = values.bag_of(duplicates.find_twins(texts))
    whole = _features(bag, rows=1000)
    for rows in (1, 3, 43):
        some = _features(bag, rows=rows)
        assert some.shape == whole.shape
        for part in ("indptr", "indices", "data"):
            assert np.array_equal(getattr(some, part), getattr(whole, part))
    # "bad" stands alone between two others: one word, no pair.
    alone = whole[[i for i, t in enumerate(duplicates.find_twins(texts).texts) if t == "bad"]]
    assert alone.nnz == 1
    assert alone.data[0] == pytest.approx(1.0)


def test_a_look_at_the_words_leaves_them_as_they_were():
    """Counting words once must not move them for the check that looks next: what languages were
    found once hung on the order of the rows, and so on folds.
    """
    german = "Das ist ein sehr schöner Film und das ist nicht das Ende, sondern das ist erst der"
    texts = tuple(f"{german} Anfang {i}" for i in range(8)) + tuple(t for t, _ in reviews(60, 3))
    view = values.DatasetView(("a", "b"), np.zeros(68, dtype=np.int64), tuple(map(str, range(68))),
                              texts, np.zeros(68, dtype=np.int64), {})  # fmt: skip
    flat, starts = view.bag.flat.copy(), view.bag.starts.copy()
    first = view.bag.matrix(view.bag.flat, len(view.bag.number)).toarray()
    assert np.array_equal(view.bag.flat, flat)
    assert np.array_equal(view.bag.starts, starts)
    again = view.bag.matrix(view.bag.flat, len(view.bag.number)).toarray()
    assert np.array_equal(first, again)
    assert first[0, view.bag.number["das"]] == 4
    for order in (slice(None), slice(None, None, -1)):
        turned = replace(view, texts=texts[order])
        turned.bag.matrix(turned.bag.flat, len(turned.bag.number))
        (found,) = find_other_languages(turned)
        assert found.count == 8
