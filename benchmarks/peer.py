"""One fine-tuning run as a user of Hugging Face's Trainer and peft writes it: LoRA on MiniLM.

python benchmarks/peer.py DATA [--seed 0] [--epochs 1] [--batch 16]

DATA holds train.parquet and validation.parquet (columns text, label). r=8, alpha=16, all linear
layers, adapter dropout 0.1, dynamic padding, evaluation each epoch. Prints one line of JSON:
accuracies of the epochs, seconds of training, peak memory. Nothing of tunelab trains here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any


def run(data: Path, seed: int, epochs: int, batch: int) -> dict[str, Any]:
    import pandas as pd
    import transformers
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model

    from _measure import _peak
    from training import folder, targets

    transformers.logging.set_verbosity_error()
    path = folder("minilm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.backend_tokenizer.no_padding()

    def part(name: str) -> Any:
        frame = pd.read_parquet(data / f"{name}.parquet")
        rows = Dataset.from_dict({"text": frame.text.tolist(), "labels": frame.label.tolist()})
        return rows.map(
            lambda b: tokenizer(b["text"], truncation=True, max_length=128),
            batched=True, remove_columns=["text"],
        )  # fmt: skip

    accuracies: list[float] = []

    def score(p: Any) -> dict[str, float]:
        accuracies.append(float((p.predictions.argmax(-1) == p.label_ids).mean()))
        return {"accuracy": accuracies[-1]}

    transformers.set_seed(seed)
    net: Any = transformers.AutoModelForSequenceClassification.from_pretrained(path, num_labels=2)
    net = get_peft_model(net, LoraConfig(
        task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.1,
        target_modules=targets("minilm", "lora"),
    ))  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        arguments = transformers.TrainingArguments(
            out, per_device_train_batch_size=batch, per_device_eval_batch_size=64,
            num_train_epochs=epochs, learning_rate=5e-4, weight_decay=0.01, warmup_steps=0.06,
            report_to=[], save_strategy="no", eval_strategy="epoch", logging_strategy="no",
            disable_tqdm=True, use_cpu=True, seed=seed,
        )  # fmt: skip
        trainer = transformers.Trainer(
            net, arguments, train_dataset=part("train"), eval_dataset=part("validation"),
            data_collator=transformers.DataCollatorWithPadding(tokenizer), compute_metrics=score,
        )  # fmt: skip
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return {"accuracies": accuracies, "train_seconds": seconds, "peak_bytes": _peak()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    a = parser.parse_args()
    print(json.dumps(run(a.data, a.seed, a.epochs, a.batch)))
