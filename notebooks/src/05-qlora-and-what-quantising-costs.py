# %% [markdown]
# # 5 · QLoRA and what quantising costs
#
# LoRA freezes the base, and what is frozen need not be kept exactly. QLoRA (Dettmers et al. 2023)
# stores the frozen matrices in 4 bits a number in place of 32 and trains LoRA on top, in float. This
# notebook builds the 4-bit format from its idea, shows that bitsandbytes stores the same, and
# measures what it saves and what it costs.

# %%
import altair as alt
import bitsandbytes.functional as bnb
import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

import tunelab

alt.renderers.enable("png", scale_factor=1.5)
model, tokenizer = tunelab.load_base("minilm")
W = model.encoder.layer[0].intermediate.dense.weight.detach()
tuple(W.shape)

# %% [markdown]
# ## Rounding in blocks
#
# To keep a number in $b$ bits, choose $2^b$ *levels* $q_i \in [-1, 1]$ and store the index of the
# nearest one. Numbers are not in $[-1, 1]$, so each block of 64 neighbours is divided by its largest
# magnitude $s = \max |w|$ first, and $s$ is kept beside it:
#
# $$i_j = \arg\min_i \left| \tfrac{w_j}{s} - q_i \right|, \qquad \hat w_j = s\, q_{i_j}$$
#
# Small blocks matter: one outlier spoils the scale of its own block only.


# %%
def quantise(w: torch.Tensor, levels: torch.Tensor, block: int = 64) -> torch.Tensor:
    """The matrix as it comes back: each number the nearest level, times its block's largest."""
    blocks = w.reshape(-1, block)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    index = ((blocks / scale).unsqueeze(-1) - levels).abs().argmin(dim=-1)
    return (levels[index] * scale).reshape(w.shape)


# %% [markdown]
# ## Which sixteen levels?
#
# Evenly spaced ones waste indices where no weights are. Weights are close to normally distributed, so
# *NormalFloat* (NF4) puts the levels at the normal distribution's quantiles: each index is then used
# about equally often. Zero gets a level of its own, so the two sides have 7 and 8 others:

# %%
even = torch.linspace(-1, 1, 16)
top = 0.9677083  # the outermost quantile (Dettmers et al. 2023, appendix E)
positive = norm.ppf(np.linspace(top, 0.5, 9)[:-1])
negative = -norm.ppf(np.linspace(top, 0.5, 8)[:-1])
nf4 = torch.tensor(
    np.sort(np.concatenate([positive, [0], negative])) / positive.max(), dtype=torch.float32
)
packed, state = bnb.quantize_4bit(W.contiguous(), blocksize=64, quant_type="nf4")
assert torch.allclose(nf4, state.code, atol=1e-4)
print("ours        ", nf4.numpy().round(3))
print("bitsandbytes", state.code.numpy().round(3))

# %%
theirs = bnb.dequantize_4bit(packed, state)
ours = quantise(W, nf4)
same = (ours - theirs).abs() < 1e-3
print(f"{W.numel():,} weights come back as from bitsandbytes: {same.float().mean():.3%}")
assert same.float().mean() > 0.999  # the rest lie halfway between two levels

# %% [markdown]
# ## What is lost
#
# The relative error $\lVert \hat W - W \rVert / \lVert W \rVert$, by levels and block size. Bits per
# number include the block's scale (32 bits, shared by the block):


# %%
def symmetric(bits: int) -> torch.Tensor:
    return torch.linspace(-1, 1, 2**bits)


formats = {"4 bits, even": symmetric(4), "4 bits, NF4": nf4, "3 bits, even": symmetric(3),
           "6 bits, even": symmetric(6)}  # fmt: skip
rows = pd.DataFrame([
    {"levels": name, "block": block, "bits": np.log2(len(levels)) + 32 / block,
     "error": float((quantise(W, levels, block) - W).norm() / W.norm())}
    for name, levels in formats.items() for block in (16, 64, 256, 1024)
])  # fmt: skip
alt.Chart(rows, title="What each bit buys (one matrix of MiniLM)").mark_line(point=True).encode(
    alt.X("bits").title("bits per weight, scales included").scale(zero=False),
    alt.Y("error").axis(format="%").title("relative error").scale(type="log"), alt.Color("levels"),
    alt.Tooltip("block"),
).properties(width=460, height=260)  # fmt: skip

# %% [markdown]
# At equal bits NF4 is below the even levels: that is its point. And *double quantisation* keeps the
# scales themselves in 8 bits: $4 + 8/64 + 32/(64 \cdot 256) \approx 4.127$ bits a weight.
#
# ## What it does to the model's vectors
#
# An error in every matrix goes through six layers. Does the text vector still point the same way?

# %%
data = tunelab.load_data("demo", subset=64)
batch = tokenizer(list(data.train.texts[:48]), padding=True, truncation=True, max_length=48,
                  return_tensors="pt")  # fmt: skip


@torch.no_grad()
def vectors(levels: torch.Tensor | None) -> torch.Tensor:
    """First-token vectors (texts, 384) of the base, its linear layers rounded to `levels`."""
    copy, _ = tunelab.load_base("minilm")
    for module in copy.encoder.modules():
        if levels is not None and isinstance(module, torch.nn.Linear):
            module.weight.copy_(quantise(module.weight, levels))
    return copy(**batch).last_hidden_state[:, 0]


exact = vectors(None)
for name, levels in formats.items():
    like = torch.cosine_similarity(exact, vectors(levels)).numpy()
    print(f"{name:13} cosine to the exact vectors: mean {like.mean():.4f}, worst {like.min():.4f}")

# %% [markdown]
# ## LoRA against QLoRA
#
# Training can make up for much of that, because $A$ and $B$ learn on top of the *rounded* base. Same
# data, same seed, same epochs:

# %%
study = tunelab.compare("demo", methods=["lora", "qlora-4bit"], seeds=1, tuning=False, subset=64,
                        max_length=32, num_train_epochs=1, output_dir="qlora")  # fmt: skip
details = {r.spec.method.label: r.details for r in study.record.done}
table = study.trials()[
    ["label", "eval_accuracy", "train_seconds", "peak_memory_bytes", "artifact_bytes"]
]
table = table.assign(weight_bytes=[details[m].get("weight_bytes") for m in table["label"]])
table.round(3)

# %%
for label, facts in details.items():
    if "quantization" in facts:
        print(label, "ran on", facts["quantization"])

# %% [markdown]
# Read it with care. One seed and 64 texts say nothing about accuracy. The *weights* in memory do
# shrink; but MiniLM's are small beside the activations, and two thirds of its parameters are the
# embedding table, which stays in float. On a processor, unpacking 4-bit weights costs time at every
# step. QLoRA was made for the opposite case: a base of billions of weights on one GPU, where the
# frozen weights *are* the memory.
#
# ## Merging, and why it needs care
#
# Adding $BA$ into rounded weights means rounding *again*: what was learnt is partly rounded away. So
# tunelab merges onto the exact base, compares the predictions, and refuses when one flips. But the
# exact base is not what the adapter was trained on, so scores do move a little:

# %%
from tunelab import adapters

trial = next(r for r in study.record.done if r.spec.method.label == "qlora-4bit")
folder = study.directory / "trials" / trial.spec.trial_id / "artifact"
made = adapters.merge(folder, "merged", list(data.validation.texts[:32]), allow_changes=True)
made.change.sentence

# %% [markdown]
# ## Exercises
#
# 1. Put one weight of $W$ to 50 times its value and measure the error of even and NF4 levels at
#    blocks of 64 and 1024. What do blocks protect from?
# 2. Are the weights normal? Draw the histogram of $w/s$ for blocks of 64 and mark the NF4 levels.
# 3. A model of 7 billion weights: how many bytes in float32, bfloat16, 8 bits, NF4 with double
#    quantisation? And the AdamW states of full fine-tuning?
#
# <details><summary>Answers</summary>
#
# 1. `V = W.clone(); V[0, 0] *= 50`. With blocks of 1024 sixteen times as many weights share the
#    outlier's scale and are rounded to zero; with 64 only its own block suffers.
# 2. `alt.Chart` over `(W.reshape(-1, 64) / W.reshape(-1, 64).abs().amax(1, keepdim=True))`. Close to
#    normal, cut at 1 and -1, where each block has exactly one value: the reason for the levels there.
# 3. 28, 14, 7 and about 3.6 GB. AdamW needs gradient, $m$ and $v$: 84 GB in float32. QLoRA's are only
#    as large as the adapter.
#
# </details>
