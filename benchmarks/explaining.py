"""Whether the words that `predict --explain` names move a classifier: by leaving them out.

    python benchmarks/explaining.py [--model FOLDER] [--texts 60]

FOLDER is a classifier with layers, from `tunelab train`; without one, LoRA is trained on 400 of the
bundled reviews first. Of each text of the test part of the bundled reviews the k first words of a
ranking are left out together, and the log odds of the label fall: by how much is printed, the mean
over texts, with k of 1, 3 and 5. Rankings: each word left out once (what tunelab does), input x
gradient at the token vectors (Shrikumar et al. 2016), integrated gradients from the vectors of
padding (Sundararajan et al. 2017, 20 steps), random words. Seconds are of one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tunelab
from tunelab.core.values import DataSpec
from tunelab.data import load
from tunelab.models.explained import spans_of_words, without, words_moved

Floats = NDArray[np.float64]


def by_gradient(own: Any, text: str, spans: list[tuple[int, int]], steps: int) -> Floats:
    """Gradients of the likeliest label's log odds, averaged over steps from the vectors of padding
    to those of the tokens (one step: at these), times the way; summed over each word's tokens.
    """
    import torch

    read = own.tokenizer(
        text, return_tensors="pt", return_offsets_mapping=True, truncation=True,
        max_length=own.max_length,
    )  # fmt: skip
    places = read.pop("offset_mapping")[0].tolist()
    table = own.model.get_input_embeddings()
    ids = read.pop("input_ids")
    special = torch.tensor([[a == b for a, b in places]])
    whole = table(ids).detach()
    start = table(torch.where(special, ids, own.pad_id)).detach() if steps > 1 else 0 * whole
    best, total = -1, torch.zeros_like(whole)
    for share in [1.0] if steps == 1 else (np.arange(steps) + 0.5) / steps:
        vectors = (start + float(share) * (whole - start)).requires_grad_(True)
        logits = own.model(inputs_embeds=vectors, **read).logits[0]
        if best < 0:
            best = int(own.model(inputs_embeds=whole, **read).logits[0].argmax())
        rest = torch.cat([logits[:best], logits[best + 1 :]])
        total += torch.autograd.grad(logits[best] - torch.logsumexp(rest, 0), vectors)[0] / steps
    vectors, gradient = whole - start, total
    of_token = (gradient * vectors).sum(-1)[0].detach().numpy().astype(np.float64)
    return np.asarray(
        [sum(v for v, (a, b) in zip(of_token, places, strict=True) if a < stop and b > start)
         for start, stop in spans]
    )  # fmt: skip


def main() -> None:
    """Rank, leave out, print."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--model")
    ask.add_argument("--texts", type=int, default=60)
    asked = ask.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = asked.model or str(Path(folder) / "lora")
        if asked.model is None:
            tunelab.fine_tune("demo", "lora", output_dir=where, subset=400, num_train_epochs=2)
        loaded = tunelab.load(where)
        texts = list(load(DataSpec("demo")).test.texts[: asked.texts])
        report(loaded, texts)


def report(loaded: Any, texts: list[str]) -> None:
    """A line a ranking."""
    rng = np.random.default_rng(0)
    spans = [spans_of_words(t, 400) for t in texts]
    started = time.process_time()
    left_out = [np.asarray([w.moved for w in e.words]) for e in loaded.explain(texts)]
    seconds = {"left out once": time.process_time() - started}
    started = time.process_time()
    of_all = list(zip(texts, spans, strict=True))
    gradients = [by_gradient(loaded.classifier, t, s, 1) for t, s in of_all]
    seconds["input x gradient"] = time.process_time() - started
    started = time.process_time()
    integrated = [by_gradient(loaded.classifier, t, s, 20) for t, s in of_all]
    seconds["integrated"] = time.process_time() - started
    rankings = {
        "left out once": left_out,
        "input x gradient": gradients,
        "integrated": integrated,
        "random": [rng.random(len(s)) for s in spans],
    }
    for name, scores in rankings.items():
        falls = []
        for k in (1, 3, 5):
            shorter = []
            for text, places, score in zip(texts, spans, scores, strict=True):
                for i in sorted(np.argsort(-score, kind="stable")[:k], reverse=True):
                    (text,) = without(text, [places[i]])  # noqa: PLW2901  from its end on
                shorter.append(text)
            whole, rest = loaded.predict_proba(texts), loaded.predict_proba(shorter)
            falls.append(
                np.mean([words_moved([(0, 0)], np.stack(two))[0].moved
                         for two in zip(whole, rest, strict=True)])
            )  # fmt: skip
        took = f"   {seconds[name]:.1f} s for {len(texts)} texts" if name in seconds else ""
        print(f"{name:17} " + "  ".join(f"{f:+.2f}" for f in falls) + took, flush=True)


if __name__ == "__main__":
    main()
