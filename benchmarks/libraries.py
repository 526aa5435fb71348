"""Where tunelab has code of its own and a library does the same: which is better, which is faster?

    pip install rensa datasketch py3langid lingua-language-detector pycld2 ftfy humanize
    python benchmarks/libraries.py                  # every table, of what is installed
    python benchmarks/libraries.py --only mojibake  # one of them

Quality first: what was planted and is found, and what is found on real texts where nothing is.
Times are processor seconds of one process over `--rows` real reviews (../shared/data, or
TUNELAB_DATA). Results: docs/log.md.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from _measure import shared_data
from gate import COPIES, base_texts, plant
from tunelab.analysis.numbers import format_bytes, format_parameters, format_seconds
from tunelab.data import decode, duplicates
from tunelab.data.gate import texts as textss
from tunelab.data.gate.texts import LEAST_WORDS_TO_NAME_LANGUAGE, mended
from tunelab.data.gate.values import bag_of

Pairs = set[tuple[int, int]]
NEAR, SHINGLE_WIDTH = 0.6, 5  # what the libraries are asked for: Jaccard similarity of shingles


def installed(name: str, package: str | None = None) -> Any:
    """The library's module; None, with a line, where it is not installed."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        print(f"  {package or name}: not installed")
        return None
    return module


def version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def show(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row) + " |")


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def real_texts(rows: int) -> list[str]:
    """English reviews, phrases and posts, in a fixed order."""
    import pandas as pd

    files = sorted(shared_data().parent.glob("*/*.parquet"))
    found = [t for f in files for t in _column(pd.read_parquet(f))]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[order[i % len(found)]] for i in range(rows)]


def _column(frame: Any) -> list[str]:
    return [str(t) for t in frame["sentence" if "sentence" in frame else "text"]]


# --- texts that are nearly the same ---------------------------------------------------------


def shingles(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[i : i + SHINGLE_WIDTH] for i in range(len(padded) - SHINGLE_WIDTH + 1)}


def jaccard(a: str, b: str) -> float:
    left, right = shingles(a), shingles(b)
    return len(left & right) / len(left | right)


def own_pairs(texts: Sequence[str]) -> Pairs:
    return {(int(a), int(b)) for a, b in duplicates.find_twins(texts).pairs}


def datasketch_pairs(texts: Sequence[str]) -> Pairs:
    import datasketch

    sets = [[s.encode() for s in shingles(t)] for t in texts]
    sketches = list(datasketch.MinHash.generator(sets, num_perm=128))
    index = datasketch.MinHashLSH(threshold=NEAR, num_perm=128)
    found: Pairs = set()
    for i, sketch in enumerate(sketches):
        found |= {(j, i) for j in index.query(sketch)}
        index.insert(i, sketch)
    return _near(texts, found)


def rensa_pairs(texts: Sequence[str]) -> Pairs:
    import rensa

    sketches = rensa.RMinHash.from_token_sets([list(shingles(t)) for t in texts], 160, 0)
    index = rensa.RMinHashLSH(NEAR, 160, 40)  # bands of four
    index.insert_many(sketches)
    near = enumerate(index.query_all(sketches))
    return _near(texts, {(i, j) for i, found in near for j in found if i < j})


def _near(texts: Sequence[str], pairs: Pairs) -> Pairs:
    return {(a, b) for a, b in pairs if jaccard(texts[a], texts[b]) >= NEAR}


def near_duplicates(rows: int) -> None:
    contestants: dict[str, Callable[[Sequence[str]], Pairs]] = {"own": own_pairs}
    for name, find in (("rensa", rensa_pairs), ("datasketch", datasketch_pairs)):
        if installed(name):
            contestants[version(name)] = find
    planted = [plant(base_texts(), seed) for seed in range(3)]
    plain = dict.fromkeys(map(duplicates.normalise, real_texts(rows)))
    many = [t for t in plain if len(t) >= 20]
    table = []
    for name, find in contestants.items():
        hits = [_planted_found(find, p.train, p.test, p.truth, p.kinds) for p in planted]
        found: list[Pairs] = []
        took = seconds(lambda find=find, found=found: found.append(find(many)))
        table.append([name, float(np.mean(hits)), took, len(found[0])])
    heads = ["near duplicates", "planted pairs found", f"s for {len(many):,} texts", "pairs"]
    show(heads, table)


def _planted_found(
    find: Callable[[Sequence[str]], Pairs],
    train: list[str],
    test: list[str],
    truth: np.ndarray,
    kinds: list[str],
) -> float:
    texts = [duplicates.normalise(t) for t in (*train, *test)]
    distinct = {t: i for i, t in enumerate(dict.fromkeys(texts))}
    true = {
        tuple(sorted((distinct[texts[s]], distinct[texts[len(train) + i]])))
        for i, s in enumerate(truth)
        if kinds[i] in COPIES
        and texts[s] != texts[len(train) + i]
        and jaccard(texts[s], texts[len(train) + i]) >= NEAR
    }
    return len(true & find(list(distinct))) / len(true)


# --- languages ------------------------------------------------------------------------------

_SENTENCES = """
German: Der Film war viel zu lang, aber die Musik hat mir sehr gut gefallen.
German: Wir haben eine Stunde auf das Essen gewartet und es war kalt.
German: Das Buch ist spannend bis zur letzten Seite, ich kann es nur empfehlen.
French: Le repas était délicieux et le service vraiment très aimable.
French: Je ne comprends pas pourquoi ce film a reçu autant de prix.
French: La chambre était propre mais il y avait du bruit toute la nuit.
Spanish: La película es demasiado larga y los actores no convencen a nadie.
Spanish: El hotel está muy bien situado y el personal fue amable con nosotros.
Spanish: No me gustó nada la comida, estaba fría y muy salada.
Italian: Il film è bello ma il finale non mi ha convinto per niente.
Italian: La camera era piccola e sporca, non ci torneremo mai più.
Italian: Ho letto questo libro in due giorni, una storia davvero commovente.
Portuguese: O filme é muito bom e os atores são excelentes do começo ao fim.
Portuguese: Não gostei do hotel, o quarto estava sujo e o café era fraco.
Portuguese: A comida chegou fria, mas o rapaz foi muito simpático com a gente.
Dutch: De film was veel te lang, maar het einde vond ik erg mooi.
Dutch: Wij hebben een uur op het eten gewacht en het was niet lekker.
Dutch: Dit boek kan ik aan iedereen aanraden die van een goed verhaal houdt.
Swedish: Filmen var alldeles för lång men musiken tyckte jag mycket om.
Swedish: Vi fick vänta en timme på maten och den var inte ens varm.
Swedish: Boken är spännande från första till sista sidan och jag vill läsa mer.
Polish: Film był za długi, ale muzyka bardzo mi się podobała.
Polish: Na jedzenie czekaliśmy godzinę i w dodatku było zimne.
Polish: To jest najlepsza książka, jaką czytałem od wielu lat.
Turkish: Film çok uzundu ama müziği gerçekten çok beğendim.
Turkish: Yemek için bir saat bekledik ve geldiğinde soğuktu.
Turkish: Bu kitap son yıllarda okuduğum en güzel kitap oldu.
Indonesian: Film ini terlalu panjang tapi saya sangat suka dengan musiknya.
Indonesian: Kami menunggu makanan selama satu jam dan rasanya tidak enak.
Indonesian: Buku ini adalah cerita yang paling bagus dari penulis itu.
Cyrillic: Фильм слишком длинный, но музыка мне очень понравилась.
Greek: Η ταινία ήταν πολύ μεγάλη αλλά η μουσική μου άρεσε πολύ.
Arabic: كان الفيلم طويلا جدا لكن الموسيقى أعجبتني كثيرا.
Hebrew: הסרט היה ארוך מדי אבל המוזיקה מצאה חן בעיניי מאוד.
Devanagari: फ़िल्म बहुत लंबी थी लेकिन संगीत मुझे बहुत पसंद आया।
Thai: หนังเรื่องนี้ยาวเกินไปแต่ฉันชอบเพลงประกอบมาก
Korean: 영화는 너무 길었지만 음악은 정말 마음에 들었어요.
Japanese or Chinese: 映画は長すぎたけれど、音楽はとても良かったです。
Japanese or Chinese: 电影太长了，但是我非常喜欢里面的音乐。
"""  # noqa: RUF001
FOREIGN: dict[str, list[str]] = {}
for _line in _SENTENCES.strip().splitlines():
    _language, _, _text = _line.partition(": ")
    FOREIGN.setdefault(_language, []).append(_text)
_CODES = """
de German, fr French, es Spanish, it Italian, pt Portuguese, nl Dutch, sv Swedish, pl Polish,
tr Turkish, id Indonesian, ru Cyrillic, el Greek, ar Arabic, he Hebrew, iw Hebrew, hi Devanagari,
th Thai, ko Korean, ja Japanese or Chinese, zh Japanese or Chinese, zh-Hant Japanese or Chinese,
en English
"""
CODES = dict(c.strip().split(" ", 1) for c in _CODES.split(","))
Named = list[str | None]


def own_languages(texts: Sequence[str]) -> Named:
    twins = duplicates.find_twins(texts)
    named = textss.languages(twins, bag_of(twins))
    return [named[g] for g in twins.group]


def py3langid_languages(texts: Sequence[str]) -> Named:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    judge = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    judge.set_languages(sorted({c for c in CODES if len(c) == 2} - {"iw"}))
    return [_known(code, p >= 0.99) for code, p in map(judge.classify, texts)]


def lingua_languages(texts: Sequence[str]) -> Named:
    import lingua

    codes = [
        c for c in CODES if c in {x.iso_code_639_1.name.lower() for x in lingua.Language.all()}
    ]
    chosen = [x for x in lingua.Language.all() if x.iso_code_639_1.name.lower() in codes]
    judge = lingua.LanguageDetectorBuilder.from_languages(*chosen).build()
    best = [judge.compute_language_confidence_values(t)[0] for t in texts]
    return [_known(b.language.iso_code_639_1.name.lower(), b.value >= 0.9) for b in best]


def pycld2_languages(texts: Sequence[str]) -> Named:
    import pycld2

    out: Named = []
    for text in texts:
        clean = "".join(c for c in text if c.isprintable())  # it refuses others
        reliable, _, details = pycld2.detect(clean.encode("utf-8"), bestEffort=True)
        out.append(_known(details[0][1], reliable))
    return out


def _known(code: str, sure: bool) -> str | None:
    return CODES.get(code, code) if sure else None


def languages(rows: int) -> None:
    contestants: dict[str, Callable[[Sequence[str]], Named]] = {"own": own_languages}
    libraries = (
        ("py3langid", "py3langid", py3langid_languages),
        ("lingua", "lingua-language-detector", lingua_languages),
        ("pycld2", "pycld2", pycld2_languages),
    )
    for module, package, name in libraries:
        if installed(module, package):
            contestants[version(package)] = name
    foreign = [(t, language) for language, texts in FOREIGN.items() for t in texts]
    english = [t for t in real_texts(rows) if len(t.split()) >= LEAST_WORDS_TO_NAME_LANGUAGE]
    table = []
    for title, name in contestants.items():
        right = [a == b for (_, b), a in zip(foreign, name([t for t, _ in foreign]), strict=True)]
        named: list[Named] = []
        took = seconds(lambda name=name, named=named: named.append(name(english)))
        false = sum(n not in (None, "English") for n in named[0])
        alarms = 10_000 * false / len(english)
        table.append([title, f"{sum(right)} of {len(right)}", alarms, took])
    heads = [
        "languages",
        "foreign sentences named",
        "English texts called foreign, of 10,000",
        f"s for {len(english):,} texts",
    ]
    show(heads, table)


# --- mojibake and encodings -----------------------------------------------------------------

FINE = (
    "Ã and Â are letters, and so are Ñ, ß and Ø.",
    "“Quoted” words, and an ellipsis… don’t make mojibake™ of a text.",  # noqa: RUF001
    "The café in São Paulo — « très bon » — was naïve, and cost £5 or €6.",
)


_HIGH = re.compile("[\u0080-\u20ff\u2122]{2,}")


def strictly_mended(text: str) -> str | None:
    """What the gate did before ftfy: runs that decode as UTF-8, to the last byte, are decoded."""
    out = _HIGH.sub(lambda m: _as_utf8(m[0]) or m[0], text)
    return out if out != text else None


def _as_utf8(run: str) -> str | None:
    try:
        raw = (c.encode("latin-1" if "\x80" <= c <= "\x9f" else "cp1252") for c in run)
        return b"".join(raw).decode("utf-8")
    except UnicodeError:
        return None


def ftfy_mended(text: str) -> str | None:
    import ftfy

    fixed = str(ftfy.fix_encoding(text))
    return fixed if fixed != text else None


def names_of_places() -> list[str]:
    """Names of countries, languages and currencies in every language of babel (Unicode's CLDR)."""
    if not installed("babel"):
        return []
    from babel import Locale, localedata

    known = [Locale.parse(name) for name in localedata.locale_identifiers()]
    found = {
        str(v)
        for x in known
        for d in (x.territories, x.languages, x.currencies)
        for v in d.values()
    }
    return sorted(name for name in found if not name.isascii())


def mojibake(rows: int) -> None:
    contestants: dict[str, Callable[[str], str | None]] = {"own, strict": strictly_mended}
    if installed("ftfy"):
        contestants |= {version("ftfy"): ftfy_mended, "gate.mended (ftfy, guarded)": mended}
    latin = [t for texts in FOREIGN.values() for t in texts if not t.isascii()]
    usual = [(_misread(t, codec), t) for codec in ("cp1252", "latin-1") for t in latin]
    rare = [(_misread(_misread(t, "cp1252"), "cp1252"), t) for t in latin]
    for codec in ("cp1250", "mac_roman", "cp437"):
        rare += [(bad, t) for t in latin if (bad := _decoded(t, codec))]
    fine = [*FINE, *latin, *names_of_places()]
    real = real_texts(rows)
    accents = [t for t in dict.fromkeys(real) if not t.isascii()]
    # What Latin-1 makes of Windows-1252: codes of no character, where quotes and dashes were.
    faulty = {t for t in accents if re.search("[\x80-\x9f]", t)}
    table = []
    for title, mend in contestants.items():
        found = {t for t in accents if mend(t) is not None}
        took = seconds(lambda mend=mend: [mend(t) for t in real])
        table.append(
            [
                title,
                *(
                    f"{sum(mend(bad) == good for bad, good in some)} of {len(some)}"
                    for some in (usual, rare)
                ),
                f"{sum(mend(t) is not None for t in fine)} of {len(fine):,}",
                f"{len(found & faulty)} of {len(faulty)}",
                len(found - faulty),
                took,
            ]
        )
    heads = [
        "mojibake",
        "Windows-1252 and Latin-1 put right",
        "twice, Windows-1250, Mac, DOS",
        "fine texts changed",
        "real faults found",
        "other real texts changed",
        f"s for {rows:,} texts",
    ]
    show(heads, table)


def _decoded(text: str, codec: str) -> str | None:
    try:
        return text.encode("utf-8").decode(codec)
    except UnicodeDecodeError:
        return None


def _misread(text: str, codec: str) -> str:
    """UTF-8 read as Latin-1 or as browsers read Windows-1252: five bytes stand for themselves."""
    undefined = {0x81, 0x8D, 0x8F, 0x90, 0x9D}
    raw = text.encode("utf-8")
    return "".join(bytes([b]).decode("latin-1" if b in undefined else codec) for b in raw)


_WRITTEN_IN = """
German cp1252, French cp1252, Spanish cp1252, Italian latin-1, Portuguese latin-1, Dutch cp1252,
Swedish latin-1, Polish cp1250, Turkish cp1254, Cyrillic cp1251, Greek cp1253, Arabic cp1256,
Hebrew cp1255, Thai cp874, Korean cp949, Japanese or Chinese gb18030
"""
WRITTEN_IN = dict(c.strip().rsplit(" ", 1) for c in _WRITTEN_IN.split(","))


def normalizer_guess(raw: bytes) -> str:
    import charset_normalizer

    best = charset_normalizer.from_bytes(raw).best()
    return "none" if best is None else str(best.encoding)


def windows_guess(raw: bytes) -> str:
    """What tables did before charset-normalizer: Windows-1252 where that is possible."""
    return "cp1252" if _decoded_by(raw, "cp1252") else "latin-1"


def _decoded_by(raw: bytes, codec: str) -> str | None:
    try:
        return raw.decode(codec)
    except (LookupError, UnicodeDecodeError):
        return None


def encodings(_: int) -> None:
    guesses: dict[str, Callable[[bytes], str]] = {
        "own, Windows-1252": windows_guess,
        version("charset-normalizer"): normalizer_guess,
        "tables (its guess among old encodings)": decode._likely_encoding,
    }
    table = []
    files = [
        ("".join(f"{t},yes\n" for t in FOREIGN[name][-3:] * 20), codec)
        for name, codec in WRITTEN_IN.items()
        if any(not t.isascii() for t in FOREIGN[name])
    ]
    west = [(text, codec) for text, codec in files if codec in ("cp1252", "latin-1")]
    rest = [pair for pair in files if pair not in west]
    for title, guess in guesses.items():
        took = seconds(lambda guess=guess: [guess(t.encode(c)) for t, c in files])
        table.append(
            [
                title,
                *(
                    f"{sum(_reads(t, c, guess) for t, c in some)} of {len(some)}"
                    for some in (west, rest)
                ),
                1000 * took / len(files),
            ]
        )
    heads = ["encoding guess", "Western files read right", "other files read right", "ms a file"]
    show(heads, table)


def _reads(text: str, codec: str, guess: Callable[[bytes], str]) -> bool:
    raw = text.encode(codec)
    return _decoded_by(raw, guess(raw)) == text


# --- numbers, locks -------------------------------------------------------------------------


def numbers(_: int) -> None:
    """How many of what is printed a library would print too."""
    humanize, babel = installed("humanize"), installed("babel.numbers", "babel")
    values = [1.0, 770.0, 12_345.0, 300_000.0, 1_200_000.0, 22_713_986.0, 1.3e9]
    spans = [0.45, 4.4, 44.0, 126.0, 10_800.0]
    table = []
    if humanize:
        alike = sum(humanize.naturalsize(v, format="%.1f") == format_bytes(v) for v in values)
        spoken = sum(humanize.precisedelta(v) == format_seconds(v) for v in spans)
        table.append(
            [version("humanize"), f"{alike} of {len(values)}", f"{spoken} of {len(spans)}", "-"]
        )
    if babel:
        short = [babel.format_compact_decimal(v, locale="en", fraction_digits=1) for v in values]
        same = sum(a == format_parameters(v) for a, v in zip(short, values, strict=True))
        table.append([version("babel"), "-", "-", f"{same} of {len(values)}"])
    show(["numbers written as tunelab does", "bytes", "durations", "parameters"], table)


def locks(_: int) -> None:
    from tunelab.core.files import locked

    filelock = installed("filelock")
    with tempfile.TemporaryDirectory() as root:
        own, other = Path(root, "own"), Path(root, "other")
        with locked(own):
            pass
        other.mkdir()
        rows: list[list[object]] = [["own", len(list(own.iterdir()))]]
        if filelock:
            with filelock.FileLock(other / ".lock", timeout=0):
                pass
            rows.append([version("filelock"), len(list(other.iterdir()))])
    show(["locks", "files left in the study's folder"], rows)


TABLES: dict[str, Callable[[int], None]] = {
    "near-duplicates": near_duplicates,
    "languages": languages,
    "mojibake": mojibake,
    "encodings": encodings,
    "numbers": numbers,
    "locks": locks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", choices=TABLES, action="append")
    given = parser.parse_args()
    for name in given.only or TABLES:
        TABLES[name](given.rows)
        print()


if __name__ == "__main__":
    main()
