"""Training speed: tunelab against Hugging Face's Trainer with peft, same model, rows and batches.

python benchmarks/training.py [--model minilm|distilbert|deberta-v2|modernbert|gpt2]
                              [--mode lora|query-value|full|qlora-4bit]
                              [--batch 16] [--steps 30] [--rounds 5] [--json]

Each round, every contestant trains `--steps` steps on the same Rotten Tomatoes sentences. The peer
as shipped is what a user would write today: float32, dynamic padding, dropout as in the model's
configuration and 0.1 in the adapter. The peer with every option it has groups rows by length and
computes in bfloat16. All but MiniLM have random weights: speed does not depend on them.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable
from typing import Any

from _measure import AS_SHIPPED, Contestant, arguments, compete, rate, report, shared_data

LABELS = ["negative", "positive"]
# Of MiniLM's size (6 layers, 384 wide, its vocabulary) but of other families.
SIZE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "vocab_size": 30522,
        "max_position_embeddings": 512}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "distilbert": {},  # as it is
    "deberta-v2": {
        **SIZE, "intermediate_size": 1536, "relative_attention": True, "position_buckets": 256,
        "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "position_biased_input": False, "type_vocab_size": 0, "pooler_hidden_size": 384,
    },
    "modernbert": {
        **SIZE, "intermediate_size": 768, "pad_token_id": 0, "bos_token_id": 101,
        "eos_token_id": 102, "cls_token_id": 101, "sep_token_id": 102,
    },
    "gpt2": {"n_embd": 384, "n_layer": 6, "n_head": 6, "n_positions": 512, "vocab_size": 30522,
             "bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0},
}  # fmt: skip


def folder(model: str) -> str:
    """Where the base lies; but for MiniLM it is made here, with MiniLM's tokenizer."""
    from tunelab.models import bases

    minilm = bases.resolve("minilm").path
    if model == "minilm":
        return minilm.as_posix()
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    path = os.path.join(tempfile.gettempdir(), f"tunelab-benchmark-{model}")  # noqa: PTH118
    if not os.path.isdir(path):  # noqa: PTH112
        torch.manual_seed(0)
        config = AutoConfig.for_model(model, **SHAPES[model])
        AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
        AutoTokenizer.from_pretrained(minilm).save_pretrained(path)
    return path


def targets(model: str, mode: str) -> list[str]:
    """The layers that LoRA adapts."""
    from tunelab.models.families import FAMILIES

    preset = "query-value" if mode == "query-value" else "all-linear"
    return list(FAMILIES["bert" if model == "minilm" else model].targets[preset])


def rows(count: int) -> tuple[list[str], list[int]]:
    import pandas as pd

    frame = pd.read_parquet(shared_data() / "train.parquet").sample(frac=1, random_state=0)
    return frame.text.tolist()[:count], frame.label.tolist()[:count]


def peer(  # noqa: PLR0917
    model: str,
    mode: str,
    batch: int,
    steps: int,
    dropout: float,
    options: bool,
    card: bool = False,
) -> Callable[[], float]:
    """Trainer + peft; `options`: length groups and bfloat16, all it offers on a processor.
    `card`: on a GPU."""
    import transformers
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model

    transformers.logging.set_verbosity_error()
    path = folder(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.backend_tokenizer.no_padding()
    texts, labels = rows(batch * steps)
    data = Dataset.from_dict({"text": texts, "labels": labels}).map(
        lambda b: tokenizer(b["text"], truncation=True, max_length=128),
        batched=True, remove_columns=["text"],
    )  # fmt: skip
    transformers.set_seed(0)
    more: dict[str, Any] = {}
    if mode == "qlora-4bit":
        more["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            llm_int8_skip_modules=["classifier", "pre_classifier", "pooler"],
        )  # fmt: skip
    net: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
        path, num_labels=2, **more
    )
    if mode != "full":
        net = get_peft_model(net, LoraConfig(
            task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=dropout,
            target_modules=targets(model, mode), fan_in_fan_out=model == "gpt2",
        ))  # fmt: skip
    arguments = transformers.TrainingArguments(
        tempfile.mkdtemp(), per_device_train_batch_size=batch, num_train_epochs=1,
        learning_rate=5e-5 if mode == "full" else 5e-4, weight_decay=0.01, warmup_steps=0.06,
        report_to=[], save_strategy="no", eval_strategy="no", logging_strategy="no",
        disable_tqdm=True, use_cpu=not card, seed=0, bf16=options,
        **({"train_sampling_strategy": "group_by_length"} if options else {}),
    )  # fmt: skip
    trainer = transformers.Trainer(
        net, arguments, train_dataset=data,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    # Products are prepared anew for each new number of tokens; a long training has met them all.
    trainer.train()
    trainer.train()
    return rate(batch * steps, trainer.train)


def ours(  # noqa: PLR0917
    model: str, mode: str, batch: int, steps: int, engine: str, precision: str, dropout: float
) -> Callable[[], float]:
    """The loop that `tunelab compare` runs, without its evaluation."""
    import numpy as np

    from tunelab.core.values import Seeds
    from tunelab.methods import METHODS, neural
    from tunelab.methods.training import loop
    from tunelab.methods.training.engine import choose_engine
    from tunelab.models import bases, batches, pretrained

    base = bases.resolve(folder(model))
    texts, labels = rows(batch * steps)
    method = METHODS["lora" if mode == "query-value" else mode]
    # The rate hardly falls in the few epochs that are measured.
    more: dict[str, Any] = {"engine": engine, "precision": precision, "num_train_epochs": 1000}
    if mode != "full":
        more["target_modules"] = "query-value" if mode == "query-value" else "all-linear"
        more["lora_dropout"] = dropout
    settings: Any = method.settings(per_device_train_batch_size=batch, **more)
    tokenizer = pretrained.load_tokenizer(base)
    assert method.adapt is not None
    quantization = (
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        if mode == "qlora-4bit"
        else None
    )
    net, _ = neural.adapted(base, LABELS, settings, method.adapt, 0, quantization=quantization)
    data = loop.TrainingData(
        batches.encode(tokenizer, texts, 128),
        np.asarray(labels),
        tuple(map(str, range(len(texts)))),
    )
    pad_id = int(tokenizer.pad_token_id)
    chosen = choose_engine(net, pad_id, settings)
    t = loop.Training(
        net,
        pad_id=pad_id,
        train=data,
        validation=data,
        settings=settings,
        seeds=Seeds(0, 0, 0),
        on_step=lambda _: None,
    )
    t.begin(chosen)
    gc.freeze()  # as engines/worker.py does before it trains

    def epoch() -> None:
        loop.train_epoch({0: t}, chosen)
        if t.error is not None:
            raise t.error

    epoch()
    epoch()
    return rate(len(texts), epoch)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=["minilm", *SHAPES], default="minilm")
    parser.add_argument(
        "--mode", choices=["lora", "query-value", "full", "qlora-4bit"], default="lora"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--lora-dropout", type=float, default=0.1)
    a = parser.parse_args()
    same = {"model": a.model, "mode": a.mode, "batch": a.batch, "steps": a.steps,
            "dropout": a.lora_dropout}  # fmt: skip
    stock = "Trainer + peft as shipped"
    results = compete(
        [
            Contestant(stock, peer, {**same, "options": False}, AS_SHIPPED),
            Contestant("Trainer + peft, every option", peer, {**same, "options": True}, AS_SHIPPED),
            Contestant("tunelab, plain engine", ours,
                       {**same, "engine": "plain", "precision": "float32"}),
            Contestant("tunelab, float32", ours,
                       {**same, "engine": "auto", "precision": "float32"}),
            Contestant("tunelab, auto", ours, {**same, "engine": "auto", "precision": "auto"}),
        ],
        a.rounds,
    )  # fmt: skip
    report(
        f"Training, {a.model}, {a.mode}, batch {a.batch}", results, unit="texts/s", baseline=stock,
        as_json=a.as_json, steps=a.steps, lora_dropout=a.lora_dropout,
        threads=os.environ.get("OMP_NUM_THREADS", "all"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
