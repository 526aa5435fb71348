"""What users get wrong: each a real run of the command line that must say so in one line.

Every case asserts the same: exit code 2, one line for each fault that begins with "tunelab: ", no
traceback, the named words in it, and not a file more or less in the working folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands import Said, run_fresh, run_here
from tiny import make_tiny, reviews, write_csv

Put = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """`put` writes what is needed into the working folder; `says` are words of each fault."""

    name: str
    args: str
    says: Sequence[str]
    put: Put = lambda _: None
    faults: int = 1


def text(name: str, content: str | bytes) -> Put:
    def put(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return put


def rows(*labels: object, head: str = "text,label", name: str = "r.csv") -> Put:
    lines = [f"some words of row {i},{label}" for i, label in enumerate(labels)]
    return text(name, "\n".join([head, *lines]) + "\n")


def good(name: str = "r.csv", n: int = 40) -> Put:
    return lambda folder: write_csv(folder / name, reviews(n), ["text", "label"])


def study(content: str) -> Put:
    def put(folder: Path) -> None:
        good()(folder)
        text("study.yaml", content)(folder)

    return put


def both(*puts: Put) -> Put:
    def put(folder: Path) -> None:
        for p in puts:
            p(folder)

    return put


def parquet(**columns: list[object]) -> Put:
    def put(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), folder / "r.parquet")

    return put


TWENTY = ["good", "bad"] * 10
BODY = "".join(f"words of row {i},{label}\n" for i, label in enumerate(TWENTY))
CLASSES = [f"class {i}" for i in range(1001) for _ in range(3)]
OUT = "--output-dir out"

DATA = [
    Case("no such file", "compare reveiws.csv", ["reveiws.csv", "reviews.csv"],
         good("reviews.csv")),
    Case("no such folder above it", "compare nowhere/r.csv", ["nowhere", "no folder"]),
    Case("hub id offline", "compare some-owner/some-data",
         ["some-owner/some-data", "HF_HUB_OFFLINE", "local folder"]),
    Case("hub alias offline", "compare --data rotten_tomatoes",
         ["rotten_tomatoes", "HF_HUB_OFFLINE"]),
    Case("a URL", "compare https://example.org/r.csv", ["https://example.org/r.csv", "Download"]),
    Case("no data", "compare", ["No data", "tunelab compare reviews.csv"]),
    Case("empty name", "compare --data=", ["data"]),
    Case("data twice", "compare r.csv --data r.csv", ["twice", "Give one"], good()),
    Case("unknown demo", "compare demo:star", ["demo:star", "demo:stars"]),
    Case("unknown text column", "compare r.csv --text-column txt",
         ["'txt'", "text, label", "'text'"], good()),
    Case("unknown label column", "compare r.csv --label-column lable",
         ["'lable'", "Did you mean 'label'"], good()),
    Case("same column twice", "compare r.csv --text-column text --label-column text",
         ["text", "label"], good()),
    Case("empty file", "compare r.csv", ["r.csv", "empty"], text("r.csv", b"")),
    Case("white space only", "compare r.csv", ["r.csv"], text("r.csv", b"\n\n \n")),
    Case("header only", "compare r.csv", ["r.csv", "header"], text("r.csv", "text,label\n")),
    Case("one column", "compare r.csv", ["r.csv", "column"], text("r.csv", "text\na b\nc d\n")),
    Case("column name twice", "compare r.csv", ["r.csv", "text"],
         text("r.csv", "text,text\n" + BODY)),
    Case("null texts", "compare r.csv", ["2 rows", "lines 22, 23", "--on-bad-rows drop"],
         text("r.csv", "text,label\n" + BODY + ",good\n,bad\n")),
    Case("blank texts", "compare r.csv", ["1 row", "line 22", "--on-bad-rows drop"],
         text("r.csv", "text,label\n" + BODY + '"   ",good\n')),
    Case("null labels", "compare r.csv", ["1 row", "label", "line 22", "--on-bad-rows drop"],
         text("r.csv", "text,label\n" + BODY + "more words,\n")),
    Case("null texts in Parquet", "compare r.parquet", ["1 row", "--on-bad-rows drop"],
         parquet(text=[None, *("some words",) * 19], label=TWENTY)),
    Case("all rows bad", "compare r.csv --on-bad-rows drop", ["r.csv", "rows"],
         text("r.csv", "text,label\n,good\n,bad\n")),
    Case("one class", "compare r.csv", ["'good'", "two classes"], rows(*["good"] * 20)),
    Case("too few of a class", "compare r.csv", ["'rare' (1)", "at least 3"],
         rows(*TWENTY, "rare")),
    Case("too many classes", "compare r.csv", ["1,001 classes", "1,000", "--label-column"],
         rows(*CLASSES)),
    Case("labels that are not whole", "compare r.csv", ["not whole", "--label-column"],
         rows(*[i + 0.5 for i in range(20)])),
    Case("texts that are numbers", "compare r.csv --text-column n", ["numbers only"],
         text("r.csv", "n,label\n" + "".join(f"{i},{y}\n" for i, y in enumerate(TWENTY)))),
    Case("all labels -1", "compare r.csv", ["-1", "--label-column"], rows(*[-1] * 20)),
    Case("label only in test", "compare parts", ["'new'", "test", "never in train"],
         both(rows(*TWENTY, name="parts/train.csv"), rows(*TWENTY, "new", name="parts/test.csv"))),
    Case("not UTF-8", "compare r.csv", ["UTF-8", "line 22", "byte", "--encoding"],
         text("r.csv", ("text,label\n" + BODY).encode() + b"caf\xe9 words,good\n")),
    Case("UTF-16", "compare r.csv", ["--encoding utf-16"],
         text("r.csv", ("text,label\n" + BODY).encode("utf-16"))),
    Case("unknown encoding", "compare r.csv --encoding utf-9", ["utf-9"], good()),
    Case("ragged rows", "compare r.csv", ["line 22", "3", "2"],
         text("r.csv", "text,label\n" + BODY + "one, two,good\n")),
    Case("open quote", "compare r.csv", ["quot"],
         text("r.csv", "text,label\n" + BODY + '"open words,good\n')),
    Case("NUL bytes", "compare r.csv", ["r.csv"],
         text("r.csv", b"text,label\nab\x00c,good\nde\x00f,bad\n")),
    Case("not JSON", "compare r.jsonl", ["r.jsonl", "line 2"],
         text("r.jsonl", '{"text": "a b", "label": 1}\n{"text": \n')),
    Case("JSON of columns", "compare r.json", ["'text', 'label'", "orient='records'"],
         text("r.json", '{"text": {"0": "a b", "1": "c d"}, "label": {"0": 1, "1": 0}}')),
    Case("JSON without objects", "compare r.jsonl", ["r.jsonl"], text("r.jsonl", "[1]\n[2]\n")),
    Case("one label in lists", "compare r.jsonl", ["label", "--task classes"],
         text("r.jsonl", '{"text": "a b c", "label": ["x"]}\n' * 20)),
    Case("nested labels", "compare r.jsonl", ["label", "--label-column"],
         text("r.jsonl", '{"text": "a b c", "label": {"x": 1}}\n' * 20)),
    Case("broken Parquet", "compare r.parquet", ["r.parquet"], text("r.parquet", b"PAR1 nothing")),
    Case("a spreadsheet", "compare r.xlsx", ["Excel", "CSV"], text("r.xlsx", b"PK\x03\x04")),
    Case("a zip called CSV", "compare r.csv", ["r.csv"], text("r.csv", b"PK\x03\x04\xff\xfe\x00")),
    Case("empty folder", "compare parts", ["parts", "train"],
         lambda folder: (folder / "parts").mkdir()),
    Case("folder without train", "compare parts", ["no train file", "test.csv"],
         both(good("test.csv"), text("parts/.keep", ""), rows(*TWENTY, name="parts/test.csv"),
              rows(*TWENTY, name="parts/dev.csv"))),
    Case("two train files", "compare parts", ["more than one train", "Keep one"],
         both(rows(*TWENTY, name="parts/train.csv"), rows(*TWENTY, name="parts/train.tsv"))),
    Case("missing shard", "compare parts", ["expected 2 files", "found 1"],
         rows(*TWENTY, name="parts/train-00000-of-00002.csv")),
    Case("subset too small", "compare r.csv --subset 1", ["--subset 1", "at least 2"], good()),
    Case("inspect: no such file", "inspect data reveiws.csv", ["reveiws.csv", "reviews.csv"],
         good("reviews.csv")),
    Case("inspect: unknown column", "inspect data r.csv --label-column lable",
         ["'lable'", "Did you mean 'label'"], good()),
    Case("train: no such file", f"train reveiws.csv --method svm-tfidf {OUT}",
         ["reveiws.csv", "reviews.csv"], good("reviews.csv")),
    Case("train: into new folders", "train r.csv --method svm-tfidf --output-dir deep/er/out",
         ["two classes"], rows(*["good"] * 20)),
]  # fmt: skip

CONFIG = [
    Case("unknown key", "compare study.yaml", ["modle", "Did you mean 'model'"],
         study("data: r.csv\nmodle: minilm\n")),
    Case("unknown data key", "compare study.yaml", ["data.txt_column", "text_column"],
         study("data: {source: r.csv, txt_column: text}\n")),
    Case("no source", "compare study.yaml", ["No data given"], study("data: {subset: 10}\n")),
    Case("unknown method", "compare r.csv --methods svm,lorra", ["'lorra'", "Did you mean 'lora'"],
         good()),
    Case("unknown method in a file", "compare study.yaml", ["methods.0", "'lorra'"],
         study("data: r.csv\nmethods: [lorra]\n")),
    Case("method without a name", "compare study.yaml", ["methods.0", "no name"],
         study("data: r.csv\nmethods: [{r: 8}]\n")),
    Case("no methods", "compare study.yaml", ["methods"], study("data: r.csv\nmethods: []\n")),
    Case("no methods by flag", "compare r.csv --methods ,", ["methods"], good()),
    Case("a number as method", "compare study.yaml", ["methods"],
         study("data: r.csv\nmethods: 3\n")),
    Case("methods is null", "compare study.yaml", ["methods"],
         study("data: r.csv\nmethods:\n")),
    Case("data is null", "compare study.yaml", ["data"], study("data:\nmethods: [svm]\n")),
    Case("data is a list", "compare study.yaml", ["data"], study("data: [r.csv]\n")),
    Case("source is a number", "compare study.yaml", ["data"], study("data: 12\n")),
    Case("training is a list", "compare study.yaml", ["training"],
         study("data: r.csv\ntraining: [1]\n")),
    Case("a method twice", "compare r.csv --methods full,full", ["full", "twice"], good()),
    Case("wrong type", "compare r.csv --methods full --num-train-epochs many",
         ["num_train_epochs", "'many'"], good()),
    Case("r=0", "compare r.csv --methods lora --r 0", ["r", "greater than or equal to 1", "0"],
         good()),
    Case("learning rate below 0", "compare r.csv --methods full --learning-rate -1",
         ["learning_rate", "greater than 0"], good()),
    Case("unknown choice", "compare r.csv --methods full --lr-scheduler-type linaer",
         ["lr_scheduler_type", "linear", "'linaer'"], good()),
    Case("C of 0", "compare r.csv --methods svm-tfidf --c 0", ["c", "above 0"], good()),
    Case("a key twice", "compare study.yaml", ["data stands in line 1 and in line 3"],
         study("data: r.csv\nmethods: [svm]\ndata: demo\n")),
    Case("a word as tuning", "compare study.yaml", ["tuning: expected true or false or a whole"],
         study("data: r.csv\ntuning: maybe not\n")),
    Case("wrong value, right flag", "compare r.csv --methods svm,lora --learning-rate abc",
         ["methods.1 (lora): learning_rate: expected a number, found 'abc'"], good()),
    Case("shape and content at once", "compare study.yaml",
         ["methds", "training.learning_rte", "'learning_rate'", "metric: 'acc'"],
         study("data: r.csv\nmethds: [svm]\ntraining: {learning_rte: 1}\nmetric: acc\n"), faults=3),
    Case("two faults", "compare study.yaml", ["lorra", "seeds"],
         study("data: r.csv\nmethods: [lorra]\nseeds: 0\n"), faults=2),
    Case("five faults", "compare study.yaml",
         ["methods.0 (lora): unknown setting 'rr'", "methods.1", "metric", "seeds", "training.zz"],
         study("data: r.csv\nmethods: [{name: lora, rr: 1}, {name: full, num_train_epochs: 0}, svm]"
               "\nmetric: acc\nseeds: [1, 1]\ntraining: {zz: 1}\n"), faults=5),
    Case("not YAML", "compare study.yaml", ["study.yaml", "not valid YAML", "line 2"],
         study("data: r.csv\nmethods: [svm\n")),
    Case("a list as file", "compare study.yaml", ["study.yaml", "list"], study("- svm\n")),
    Case("empty config", "compare study.yaml", ["study.yaml", "nothing"], study("")),
    Case("binary config", "compare study.yaml", ["study.yaml"],
         text("study.yaml", b"\xff\xfe\x00\x01")),
    Case("missing config", "compare studdy.yaml", ["studdy.yaml", "study.yaml"],
         study("data: r.csv\n")),
    Case("--set without =", "compare r.csv --set methods.0.r", ["methods.0.r", "key=value"],
         good()),
    Case("--set beyond methods", "compare r.csv --set methods.9.r=4", ["methods.9", "0 to 3"],
         good()),
    Case("--set unknown key", "compare r.csv --set sedes=2", ["sedes", "seeds"], good()),
    Case("--set into a value", "compare r.csv --set model.name=x", ["model"], good()),
    Case("--set unknown setting", "compare r.csv --set methods.3.rank_=4", ["rank_", "Settings"],
         good()),
    Case("--set unknown data key", "compare r.csv --set data.colum=4", ["data.colum"], good()),
    Case("flag of another method", "compare r.csv --methods full --r 4",
         ["--r", "belongs to", "lora"], good()),
    Case("setting of another method", "compare study.yaml", ["training.lora_alpha", "lora"],
         study("data: r.csv\nmethods: [svm]\ntraining: {lora_alpha: 4}\n")),
    Case("unknown flag", "compare r.csv --learning-rte 1", ["--learning-rte", "--learning-rate"],
         good()),
    Case("unknown verb", "compair r.csv", ["compair", "compare"], good()),
    Case("flag without value", "compare r.csv --seeds", ["--seeds"], good()),
    Case("unknown metric", "compare r.csv --metric acuracy", ["'acuracy'", "'accuracy'"], good()),
    Case("seeds 0", "compare r.csv --seeds 0", ["--seeds"], good()),
    Case("seeds 0 in a file", "compare study.yaml", ["seeds", "from 1", "0"],
         study("data: r.csv\nseeds: 0\n")),
    Case("seeds repeated", "compare study.yaml", ["seeds", "different", "[1, 2, 1]"],
         study("data: r.csv\nseeds: [1, 2, 1]\n")),
    Case("seeds below 0", "compare study.yaml", ["seeds"], study("data: r.csv\nseeds: [-1]\n")),
    Case("no seeds", "compare study.yaml", ["seeds"], study("data: r.csv\nseeds: []\n")),
    Case("a word as seeds", "compare study.yaml", ["seeds"], study("data: r.csv\nseeds: three\n")),
    Case("subset 0", "compare r.csv --subset 0", ["--subset"], good()),
    Case("too many trials", "compare r.csv --methods svm-tfidf --seeds 1001",
         ["1,001 trials", "--yes"], good()),
    Case("output-dir is a file", "compare r.csv --output-dir r.csv", ["r.csv", "folder"], good()),
    Case("output-dir in a file", "compare r.csv --methods svm-tfidf --output-dir r.csv/out",
         ["r.csv"], good()),
    Case("output-dir in a file, deep", "train r.csv --method svm-tfidf --output-dir r.csv/a/b",
         ["r.csv"], good()),
    Case("output-dir not ours", f"compare r.csv {OUT}", ["out", "not empty", "--output-dir"],
         both(good(), text("out/notes.txt", "mine"))),
    Case("output-dir from YAML is a file", "compare study.yaml", ["r.csv", "folder"],
         study("data: r.csv\noutput_dir: r.csv\n")),
    Case("train: unknown method", f"train r.csv --method lorra {OUT}", ["'lorra'", "'lora'"],
         good()),
    Case("train: a grid", f"train r.csv --method lora --r [4,8] {OUT}",
         ["one method", "tunelab compare"], good()),
    Case("train: output not ours", f"train r.csv --method svm-tfidf --overwrite {OUT}",
         ["out", "not empty"], both(good(), text("out/notes.txt", "mine"))),
    Case("train: no output", "train r.csv --method svm-tfidf", ["--output-dir"], good()),
    Case("train: no method", f"train r.csv {OUT}", ["--method"], good()),
    Case("runs show: not a study", "runs show nothing", ["nothing", "runs list"]),
    Case("runs show: a file", "runs show r.csv", ["r.csv", "study"], good()),
    Case("runs list: no such folder", "runs list nothing", ["nothing"]),
]  # fmt: skip


def model(change: Callable[[Path], object], name: str = "base") -> Put:
    """Data, and a copy of the tiny BERT that `change` spoils."""

    def put(folder: Path) -> None:
        good()(folder)
        shutil.copytree(_TINY[0], folder / name)
        change(folder / name)

    return put


def config_with(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def no_text(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({"model_type": "vit", "hidden_size": config["hidden_size"]}))


# Where the session's tiny model lies; cases are made before fixtures are.
_TINY: list[Path] = []
WITH = "compare r.csv --model base --max-length 32 --methods "
TINY = model(lambda _: None)

MODEL = [
    Case("no such folder", "compare r.csv --model ./bsae", ["./bsae", "Did you mean 'base'"],
         model(lambda _: None)),
    Case("no such absolute folder", "compare r.csv --model /no/such/model", ["/no/such/model"],
         good()),
    Case("a file as model", "compare r.csv --model r.csv", ["r.csv", "folder"], good()),
    Case("no config.json", WITH + "lora", ["config.json", "model.safetensors"],
         model(lambda f: (f / "config.json").unlink())),
    Case("config.json not JSON", WITH + "lora", ["config.json", "JSON"],
         model(lambda f: (f / "config.json").write_text("{"))),
    Case("config.json a list", WITH + "lora", ["config.json"],
         model(lambda f: (f / "config.json").write_text("[]"))),
    Case("empty folder", WITH + "lora", ["base", "config.json", "nothing"],
         model(lambda f: (shutil.rmtree(f), f.mkdir()))),
    Case("pickle only", WITH + "lora", ["pickle", "safetensors", "pytorch_model.bin"],
         model(pickled)),
    Case("no weights", WITH + "lora", ["model.safetensors"],
         model(lambda f: (f / "model.safetensors").unlink())),
    Case("another architecture", WITH + "full,lora", ["'perceiver'", "is of the type 'bert'"],
         model(config_with(model_type="perceiver"))),
    Case("no architecture", WITH + "svm", ["model_type"], model(config_with(model_type=""))),
    Case("weights cut short", WITH + "lora", ["model.safetensors", "cut short"], model(cut_short)),
    Case("weights not safetensors", WITH + "svm", ["model.safetensors"],
         model(lambda f: (f / "model.safetensors").write_bytes(b"version https://git-lfs"))),
    Case("weights empty", WITH + "full", ["model.safetensors"],
         model(lambda f: (f / "model.safetensors").write_bytes(b""))),
    Case("no tokenizer", WITH + "lora", ["tokenizer"], model(no_tokenizer)),
    Case("max_length too long", "compare r.csv --model base --methods svm,lora --max-length 65",
         ["65", "64 tokens", "--max-length 64"], model(lambda _: None)),
    Case("max_length of no kind", "compare r.csv --methods lora --max-length long",
         ["max_length", "'auto'", "'long'"], good()),
    Case("inspect: max_length of no kind", "inspect data r.csv --max-length 3",
         ["--max-length", "auto", "'3'"], good()),
    Case("hub id offline", "compare r.csv --model distilbert-base-uncased",
         ["distilbert-base-uncased", "HF_HUB_OFFLINE", "--model path/to/folder"], good()),
    Case("not a hub id", "compare r.csv --model a b", ["'a b'", "hub id"], good()),
    Case("empty model", "compare r.csv --model=", ["No model given", "--model"], good()),
    Case("inspect: no such folder", "inspect model ./bsae", ["./bsae"]),
    Case("inspect: pickle", "inspect model base", ["pickle"], model(pickled)),
    Case("inspect: unknown architecture", "inspect model base", ["'perceiver'", "bert"],
         model(config_with(model_type="perceiver"))),
    Case("inspect: weights cut short", "inspect model base", ["model.safetensors"],
         model(cut_short)),
    Case("inspect data: no such model", "inspect data r.csv --model ./bsae", ["./bsae"], good()),
    Case("target that is not there", WITH + "lora --target-modules [query,qury]",
         ["'qury' matches no module", "attention.self.query", "query-value"], TINY),
    Case("regex that matches nothing", WITH + "lora --target-modules .*qury",
         ["'.*qury' matches no module", "attention.self.query"], TINY),
    Case("regex that does not compile", WITH + "lora --target-modules '(query'",
         ["'(query'", "regular expression"], TINY),
    Case("target made of layers", WITH + "lora --target-modules [attention]",
         ["BertAttention", "attention.self.query"], TINY),
    Case("target in the head", WITH + "lora --target-modules [classifier]",
         ["'classifier' matches no module", "attention.self.query"], TINY),
    Case("rank above the width", WITH + "lora --r 33", ["r is 33", "32 wide", "--r 32"], TINY),
    Case("rank above the width, by regex", WITH + "lora --r 33 --target-modules '.*\\.query'",
         ["r is 33", "32 wide"], TINY),
    Case("rank_pattern that matches nothing",
         WITH + "lora --set 'methods.0.rank_pattern={qury: 4}'",
         ["rank_pattern: 'qury' matches none", "attention.self.query"], TINY),
    Case("rank_pattern of 0", WITH + "lora --set 'methods.0.rank_pattern={query: 0}'",
         ["rank_pattern: 'query' is 0", "above 0"], TINY),
    Case("rank_pattern above the width", WITH + "lora --set 'methods.0.rank_pattern={query: 33}'",
         ["r is 33", "query", "32 wide"], TINY),
    Case("layer beyond the last", WITH + "lora --layers-to-transform [1,2]",
         ["layers_to_transform", "0 to 1", "[1, 2]"], TINY),
    Case("layers beside a regex", WITH + "lora --layers-to-transform [1] --target-modules .*query",
         ["layers_to_transform", "Write the layers into the regex"], TINY),
    Case("head that is not there", WITH + "lora --modules-to-save [scorer]",
         ["modules_to_save: 'scorer'", "Its head: classifier"], TINY),
    Case("peft argument that is not there",
         WITH + "peft --peft-type BOFT --set 'methods.0.peft_kwargs={boft_block_sise: 4}'",
         ["'boft_block_sise'", "boft_block_size"], TINY),
    Case("method that the family cannot run", WITH + "bitfit",
         ["bitfit cannot run on", "no biases", "What can: full, probe, lora"],
         model(config_with(model_type="modernbert"))),
    Case("type that nobody knows, svm", WITH + "svm",
         ["'bertt'", "unknown to tunelab and to transformers", "bert, distilbert"],
         model(config_with(model_type="bertt"))),
    Case("type that nobody knows, full", WITH + "full", ["'bertt'", "bert, distilbert"],
         model(config_with(model_type="bertt"))),
    Case("type without a classifier", WITH + "full",
         ["no sequence classifier", "'bert-generation'"],
         model(config_with(model_type="bert-generation"))),
    Case("type that reads no text", WITH + "svm", ["'vit'", "reads no text"],
         model(no_text)),
    Case("code of its own", WITH + "svm", ["code of its own", "--trust-remote-code"],
         model(config_with(model_type="own", auto_map={"AutoConfig": "own.OwnConfig"}))),
    Case("train: unknown architecture",
         f"train r.csv --model base --method lora --max-length 32 {OUT}", ["'perceiver'"],
         model(config_with(model_type="perceiver"))),
]  # fmt: skip


def artifact(change: Callable[[Path], object], kind: str = "svm-tfidf") -> Put:
    """A copy of a trained classifier that `change` spoils."""

    def put(folder: Path) -> None:
        shutil.copytree(_TRAINED[kind], folder / "out")
        change(folder / "out")

    return put


def manifest_with(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "tunelab.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def manifest_without(key: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "tunelab.json"
        manifest = json.loads(path.read_text())
        del manifest[key]
        path.write_text(json.dumps(manifest))

    return change


def append(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes() + b" ")

    return change


def other_base(folder: Path) -> None:
    """A base of the same name with other weights, as after an update."""
    base = make_tiny(folder.parent / "base", "bert", seed=1)
    path = folder / "tunelab.json"
    manifest = json.loads(path.read_text())
    manifest["base"]["name"] = str(base)
    path.write_text(json.dumps(manifest))


def base_is(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        sha = json.loads((folder / "tunelab.json").read_text())["base"]["sha256"]
        manifest_with(base={"name": name, "sha256": sha})(folder)

    return change


_TRAINED: dict[str, Path] = {}
SAY = 'predict out "a film"'
UNCHANGED = artifact(lambda _: None)

ARTIFACT = [
    Case("no such folder", "predict otu text", ["otu", "Did you mean 'out'"], UNCHANGED),
    Case("not an artifact", "predict stuff text", ["stuff", "notes.txt", "tunelab train"],
         text("stuff/notes.txt", "mine")),
    Case("empty folder", "predict stuff text", ["stuff", "an empty folder"],
         lambda folder: (folder / "stuff").mkdir()),
    Case("a file", "predict r.csv text", ["r.csv", "folder"], good()),
    Case("a base model", "predict base text", ["base", "without a trained head"],
         model(lambda _: None)),
    Case("file missing", SAY, ["svm.safetensors", "missing"],
         artifact(lambda f: (f / "svm.safetensors").unlink())),
    Case("file altered", SAY, ["vocabulary.json", "SHA-256"], artifact(append("vocabulary.json"))),
    Case("adapter altered", SAY, ["adapter_model.safetensors", "SHA-256"],
         artifact(append("adapter_model.safetensors"), "lora")),
    Case("adapter missing", SAY, ["adapter_model.safetensors", "missing"],
         artifact(lambda f: (f / "adapter_model.safetensors").unlink(), "lora")),
    Case("other base", SAY, ["weights", "put the original back"],
         artifact(other_base, "lora")),
    Case("base gone", SAY, ["/gone/base", "no such folder"],
         artifact(base_is("/gone/base"), "lora")),
    Case("base not in the cache", SAY, ["some/base", "HF_HUB_OFFLINE"],
         artifact(base_is("some/base"), "lora")),
    Case("manifest cut", SAY, ["tunelab.json", "not valid JSON"],
         artifact(lambda f: (f / "tunelab.json").write_text("{"))),
    Case("manifest a list", SAY, ["tunelab.json"],
         artifact(lambda f: (f / "tunelab.json").write_text("[]"))),
    Case("manifest of the future", SAY, ["format 2", "expected 1"],
         artifact(manifest_with(format=2))),
    Case("manifest without files", SAY, ["tunelab.json", "files"],
         artifact(manifest_without("files"))),
    Case("manifest without labels", SAY, ["tunelab.json", "label_names"],
         artifact(manifest_without("label_names"))),
    Case("one label too few", SAY, ["tunelab.json", "label_names"],
         artifact(manifest_with(label_names=["good"]))),
    Case("unknown kind", SAY, ["'forest'"], artifact(manifest_with(kind="forest"))),
    Case("no texts", "predict out", ["No texts", "--file"], UNCHANGED),
    Case("texts twice", "predict out text --file r.csv", ["twice"], both(UNCHANGED, good())),
    Case("output without a file", "predict out text --output-file o.csv", ["--file"], UNCHANGED),
    Case("no such file of texts", "predict out --file rr.csv", ["rr.csv", "r.csv"],
         both(UNCHANGED, good())),
    Case("empty file of texts", "predict out --file r.csv", ["r.csv"],
         both(UNCHANGED, text("r.csv", b""))),
    Case("unknown column of texts", "predict out --file r.csv --text-column txt", ["'txt'", "text"],
         both(UNCHANGED, good())),
    Case("file of texts not UTF-8", "predict out --file r.csv", ["UTF-8", "--encoding"],
         both(UNCHANGED, text("r.csv", b"text\ncaf\xe9 one\n"))),
    Case("texts as a spreadsheet", "predict out --file r.xlsx", ["r.xlsx"],
         both(UNCHANGED, text("r.xlsx", b"PK"))),
    Case("output as a spreadsheet", "predict out --file r.csv --output-file o.xlsx", ["o.xlsx"],
         both(UNCHANGED, good())),
    Case("output into a file", "predict out --file r.csv --output-file r.csv/o.csv",
         ["r.csv/o.csv"], both(UNCHANGED, good())),
    Case("three labels for two classes", SAY, ["tunelab.json", "3 names", "2 classes"],
         artifact(manifest_with(label_names=["a", "b", "c"]))),
    Case("three labels for an adapter", SAY, ["adapter does not fit"],
         artifact(manifest_with(label_names=["a", "b", "c"]), "lora")),
    Case("output is the file of texts", "predict out --file r.csv --output-file ./r.csv",
         ["r.csv", "would be lost"], both(UNCHANGED, good())),
    Case("a text that is not UTF-8", "predict out caf\udce9", ["Text 0", "surrogate"], UNCHANGED),
    Case("output is a folder", "predict out --file r.csv --output-file d.csv", ["d.csv"],
         both(UNCHANGED, good(), lambda folder: (folder / "d.csv").mkdir())),
    Case("train over a classifier", f"train r.csv --method svm-tfidf {OUT}",
         ["out", "--overwrite"], both(UNCHANGED, good())),
]  # fmt: skip

CASES = {"data": DATA, "config": CONFIG, "model": MODEL, "artifact": ARTIFACT}
ALL = [(group, case) for group, cases in CASES.items() for case in cases]


def listing(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def split(args: str) -> list[str]:
    """Words of a command; only the model "a b" has a space in it."""
    import shlex

    return [*shlex.split(args.removesuffix(" a b")), *(["a b"] if args.endswith(" a b") else [])]


def check(case: Case, said: Said, before: dict[str, bytes | None], folder: Path) -> None:
    assert said.code == 2, said
    assert "Traceback" not in said.err
    assert len(said.faults) == case.faults, said.err
    assert all(line.startswith("tunelab: ") for line in said.faults), said.err
    for words in case.says:
        assert words in said.err, f"{words!r} is not in: {said.err}"
    assert said.out == ""
    assert listing(folder) == before


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    """A classifier without a base and one with, trained once."""
    root = tmp_path_factory.mktemp("trained")
    data = write_csv(root / "r.csv", reviews(80), ["text", "label"])
    for kind in ("svm-tfidf", "lora"):
        model_args = ["--model", tiny_bert, "--max-length", 32, "--num-train-epochs", 1]
        said = run_here("train", data, "--method", kind, "--output-dir", root / kind,
                        *(model_args if kind == "lora" else []))  # fmt: skip
        assert said.code == 0, said.err
    return {kind: root / kind for kind in ("svm-tfidf", "lora")}


@pytest.fixture
def ready(request: pytest.FixtureRequest, tiny_bert: Path) -> None:
    _TINY[:] = [tiny_bert]
    if request.node.callspec.params["group"] == "artifact":
        _TRAINED.update(request.getfixturevalue("trained"))


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(("group", "case"), ALL, ids=[f"{g}: {c.name}" for g, c in ALL])
def test_a_fault_is_one_line_and_exit_code_2(
    group: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del group
    monkeypatch.chdir(tmp_path)
    case.put(tmp_path)
    before = listing(tmp_path)
    check(case, run_here(*split(case.args)), before, tmp_path)


FRESH = ["data: no such file", "config: two faults", "model: weights cut short"]


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(
    ("group", "case"), [(g, c) for g, c in ALL if f"{g}: {c.name}" in FRESH], ids=FRESH
)
def test_the_same_in_a_process_of_its_own(group: str, case: Case, tmp_path: Path) -> None:
    del group
    case.put(tmp_path)
    before = listing(tmp_path)
    check(case, run_fresh(*split(case.args), cwd=tmp_path), before, tmp_path)


def test_names_of_cases_are_distinct() -> None:
    names = [f"{g}: {c.name}" for g, c in ALL]
    assert len(set(names)) == len(names)
