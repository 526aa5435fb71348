# %% [markdown]
# # 7 · Adapters: save, switch, merge, ship
#
# A fine-tuned LoRA is a small file that turns one base into many models. This notebook trains two
# (for some steps on a few texts: enough to see how they are handled, not to answer well), looks into
# the files, switches between them on one copy of the base, merges one into a plain model,
# and hands it over to somebody who has never heard of tunelab.

# %%
import json
import os
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import torch

import tunelab
from tunelab import adapters

os.environ["HF_HUB_OFFLINE"] = "1"
alt.renderers.enable("png", scale_factor=1.5)
small = {"subset": 160, "max_length": 32, "num_train_epochs": 2, "learning_rate": 1e-3,
         "per_device_train_batch_size": 8}  # fmt: skip
mood = tunelab.fine_tune("demo", "lora", output_dir="mood", **small)
stars = tunelab.fine_tune("demo:stars", "lora", output_dir="stars", **small)
for name, result in (("mood", mood), ("stars", stars)):
    print(f"{name}: validation accuracy {result.scores['eval_accuracy']:.1%}, "
          f"{result.cost.adapter_parameters:,} numbers in the adapter, "
          f"{result.cost.head_parameters:,} in the head")  # fmt: skip

# %% [markdown]
# ## What is in the folder?

# %%
files = pd.DataFrame([{"file": p.name, "kB": p.stat().st_size / 1000} for p in sorted(Path("mood").iterdir())
                      if p.is_file()])  # fmt: skip
files.round(1)

# %% [markdown]
# `adapter_model.safetensors` and `adapter_config.json` are peft's own layout. `tunelab.json` is the
# manifest: label names in the order of the scores, the base's SHA-256, and one of every file. An
# adapter on the wrong base gives *some* answer, and a wrong one; so tunelab compares the hash and
# refuses.

# %%
manifest = json.loads(Path("mood/tunelab.json").read_text())
{k: manifest[k] for k in ("kind", "label_names", "base", "max_length")}

# %%
from safetensors.torch import load_file

tensors = load_file("mood/adapter_model.safetensors")
shapes = pd.DataFrame([{"tensor": k.removeprefix("base_model.model."), "shape": tuple(v.shape),
                        "numbers": v.numel()} for k, v in tensors.items()])  # fmt: skip
shapes[shapes["tensor"].str.contains("layer.0.attention|classifier|pooler")]

# %% [markdown]
# The head is in there too. An adapter saved *without* its trained head is among the most frequent
# mistakes: it loads without a word and answers at random, because the head is then new.
#
# ## One base, many adapters
#
# The base's weights are in memory once; each adapter brings its few numbers and its own head, even
# with another number of classes:

# %%
texts = ["A quiet, wonderful film.", "The battery died after two days.", "It was fine, I suppose."]
both = adapters.AdapterSet("minilm", {"mood": "mood", "stars": "stars"})
for name in both.names:
    print(f"{name:6}", both.use(name).predict(texts))
print("a row each:", both.predict(texts, ["mood", "stars", "mood"]))

# %%
alone = {name: tunelab.load(name).predict_proba(texts) for name in ("mood", "stars")}
for name in both.names:
    together = np.array(both.use(name).predict_proba(texts))
    assert np.allclose(together, alone[name], atol=1e-5)
print("together as alone")

# %%
base, mine = 22.7e6 * 4 / 1e6, sum(v.numel() for v in tensors.values()) * 4 / 1e6
count = np.array([1, 2, 5, 10, 20])
disk = pd.DataFrame({"tasks": np.tile(count, 2),
                     "MB": np.concatenate([count * base, base + count * mine]),
                     "kept as": ["a model a task"] * 5 + ["one base and adapters"] * 5})  # fmt: skip
alt.Chart(disk, title="What many tasks weigh").mark_line(point=True).encode(
    x="tasks", y="MB", color=alt.Color("kept as").title(None)
).properties(width=420, height=220)

# %% [markdown]
# ## Merge
#
# $W' = W + \frac{\alpha}{r} B A$ makes it a plain model: no peft needed, and no extra multiplication
# per layer. tunelab compares the predictions before and after, and writes nothing where one flips:

# %%
made = adapters.merge("mood", "merged")
print(made.change.sentence)

# %%
from transformers import AutoModelForSequenceClassification

A = next(v for k, v in tensors.items() if "layer.0.attention.self.query.lora_A" in k)
B = next(v for k, v in tensors.items() if "layer.0.attention.self.query.lora_B" in k)
config = json.loads(Path("mood/adapter_config.json").read_text())
encoder, _ = tunelab.load_base("minilm")
by_hand = (
    encoder.encoder.layer[0].attention.self.query.weight
    + config["lora_alpha"] / config["r"] * B @ A
)
plain = AutoModelForSequenceClassification.from_pretrained("merged")
error = float((plain.bert.encoder.layer[0].attention.self.query.weight - by_hand).abs().max())
assert error < 1e-5, error
print(f"the formula against the file: {error:.1e}")

# %% [markdown]
# ## Ship it
#
# What was written loads elsewhere, unchanged. In plain transformers:

# %%
from transformers import pipeline

classify = pipeline("text-classification", model="merged")
for text, answer in zip(texts, classify(texts), strict=True):
    print(f"{answer['label']:9} {answer['score']:.3f}  {text}")

# %% [markdown]
# The adapter itself, in plain peft. It names its base as the hub does; offline, we give the bundled
# copy. The labels are in the config beside the adapter: the base's own config knows none of them.

# %%
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer

labels = AutoConfig.from_pretrained("mood")
base = AutoModelForSequenceClassification.from_pretrained(encoder.name_or_path, config=labels)
loaded = PeftModel.from_pretrained(base, "mood").eval()
assert loaded.config.id2label == dict(enumerate(tunelab.load("mood").label_names))
tokens = AutoTokenizer.from_pretrained("mood")(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    p = loaded(**tokens).logits.softmax(-1).numpy()
assert np.allclose(p, alone["mood"], atol=1e-4)
print(p.round(3))

# %% [markdown]
# And on the command line: `tunelab predict mood "a quiet, wonderful film"`, `tunelab adapters verify
# mood`, `tunelab adapters merge mood --output-dir merged`.
#
# ## Exercises
#
# 1. Change one byte of `mood/adapter_model.safetensors` and load it with tunelab. What does it say?
# 2. Combine two adapters trained with different seeds: `adapters.combine([("mood", 0.5), ("mood2",
#    0.5)], "half")`. Is the average of two adapters as good as either? What about their heads?
# 3. Measure how long 200 texts take with `tunelab.load("mood")` and with `tunelab.load("merged")`.
#
# <details><summary>Answers</summary>
#
# 1. One line that names the file: its hash is not the one in the manifest. (tunelab never loads
#    pickled files, so a changed file can give wrong answers at worst, not run code.)
# 2. It depends: $A_1 \neq A_2$ in general, and the mean of two products is not the product of the
#    means. tunelab's `linear` combines the corrections $BA$ themselves. Measure before you ship.
# 3. Little or no difference in tunelab, which merges into a copy before it scores; in plain peft the
#    unmerged adapter costs two thin products more in each adapted layer.
#
# </details>
