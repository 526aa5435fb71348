# %% [markdown]
# # 4 · LoRA from its formula
#
# Full fine-tuning moves every weight and keeps a whole model for every task. LoRA (Hu et al. 2021)
# keeps the model as it is and learns only a *thin correction* to some of its matrices. This notebook
# writes it in thirty lines, shows that the library peft computes the same to the last digits, and
# looks at why a thin correction is enough.

# %%
import altair as alt
import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional

import tunelab

alt.renderers.enable("png", scale_factor=1.5)
data = tunelab.load_data("demo", subset=192)
encoder, tokenizer = tunelab.load_base("minilm")

# %% [markdown]
# ## The formula
#
# A linear layer computes $y = W x$ with $W \in \mathbb{R}^{d \times k}$. LoRA freezes $W$ and adds
#
# $$y = W x + \frac{\alpha}{r}\, B A x, \qquad
#   A \in \mathbb{R}^{r \times k},\quad B \in \mathbb{R}^{d \times r},\quad r \ll \min(d, k)$$
#
# Only $A$ and $B$ are trained: $r (d + k)$ numbers in place of $d k$.
#
# - $A$ starts at random, $B$ at **zero**: at the first step the model is exactly the pretrained one.
# - $\alpha / r$ keeps the size of the correction about the same when $r$ is changed, so that the
#   learning rate need not be tuned anew.
# - Both at zero would never move: $\partial L/\partial A$ has a factor $B$, $\partial L/\partial B$ a
#   factor $A$. One of the two has to be something.

# %%
d = k = 384
sizes = pd.DataFrame([
    {"r": r, "trained": r * (d + k), "share of W": r * (d + k) / (d * k)} for r in (1, 4, 8, 16, 64, 192)
])  # fmt: skip
sizes.style.format({"share of W": "{:.1%}", "trained": "{:,}"}).hide(axis="index")

# %% [markdown]
# ## Thirty lines


# %%
class LoraLinear(nn.Module):
    """y = W x + b + (alpha / r) B A x, with W and b frozen. x is (..., k), y is (..., d)."""

    def __init__(self, linear: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(r, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)
        self.scale = alpha / r

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)

    def merged(self) -> nn.Linear:
        """The same function as one plain layer: W' = W + (alpha / r) B A."""
        out = nn.Linear(self.linear.in_features, self.linear.out_features)
        out.weight.data = self.linear.weight + self.scale * self.B @ self.A
        out.bias.data = self.linear.bias.clone()
        return out.requires_grad_(False)


def add_lora(model: nn.Module, names: set[str], r: int, alpha: float) -> list[LoraLinear]:
    """Freeze a model and put LoRA on its linear layers of these names."""
    model.requires_grad_(False)
    found = [(m, n) for m in model.modules() for n, c in m.named_children() if n in names]
    for parent, name in found:
        setattr(parent, name, LoraLinear(getattr(parent, name), r, alpha))
    return [getattr(parent, name) for parent, name in found]


# %% [markdown]
# (Note the order in `forward`: $B(Ax)$ costs $r(d+k)$ multiplications per token, $(BA)x$ would build
# a $d \times k$ matrix first.)
#
# Put it on the queries and values of all six layers, and see that nothing has changed yet:

# %%
texts = list(data.train.texts)
batch = tokenizer(texts[:8], padding=True, truncation=True, max_length=32, return_tensors="pt")
with torch.no_grad():
    before = encoder(**batch).last_hidden_state
ours, _ = tunelab.load_base("minilm")
torch.manual_seed(0)
layers = add_lora(ours, {"query", "value"}, r=8, alpha=16)
with torch.no_grad():
    assert torch.equal(ours(**batch).last_hidden_state, before)
trained = sum(p.numel() for p in ours.parameters() if p.requires_grad)
print(f"{len(layers)} layers, {trained:,} of {sum(p.numel() for p in ours.parameters()):,} trained")

# %% [markdown]
# ## Equal to peft
#
# The same setting in peft, with our $A$ copied into it. Then both are trained side by side for ten
# steps. If our thirty lines are LoRA, losses and weights stay together:

# %%
theirs, _ = tunelab.load_base("minilm")
theirs = get_peft_model(theirs, LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"]))
peft_layers = [m for m in theirs.modules() if hasattr(m, "lora_A")]
for mine, other in zip(layers, peft_layers, strict=True):
    other.lora_A["default"].weight.data.copy_(mine.A)


def train(model: nn.Module, steps: int, rate: float = 1e-3, seed: int = 0) -> list[float]:
    """Losses of `steps` batches of 16; dropout off, so that nothing but the method differs."""
    model.eval()
    torch.manual_seed(seed)
    head = nn.Linear(384, len(data.label_names))
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([*weights, *head.parameters()], lr=rate)
    order, losses = np.random.default_rng(seed), []
    for _ in range(steps):
        rows = order.choice(len(texts), 16, replace=False)
        batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=32,
                          return_tensors="pt")  # fmt: skip
        logits = head(model(**batch).last_hidden_state[:, 0])
        loss = functional.cross_entropy(logits, torch.from_numpy(data.train.labels[rows]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


loss_ours, loss_theirs = train(ours, 10), train(theirs, 10)
apart = max(abs(a - b) for a, b in zip(loss_ours, loss_theirs, strict=True))
weights_apart = max(
    float((mine.B - other.lora_B["default"].weight).abs().max())
    for mine, other in zip(layers, peft_layers, strict=True)
)
assert apart < 1e-4, apart
print("ours ", np.round(loss_ours, 4))
print("peft ", np.round(loss_theirs, 4))
print(f"largest difference of a loss {apart:.1e}, of a number in B {weights_apart:.1e}")

# %% [markdown]
# ## Merging
#
# $Wx + sBAx = (W + sBA)x$: after training, the correction can be *added into* the matrix. The merged
# model is a plain one, with the same answers and no extra cost:

# %%
layer = layers[0]
x = torch.randn(4, 10, 384)
with torch.no_grad():
    error = float((layer(x) - layer.merged()(x)).abs().max())
assert error < 1e-4, error
print(f"merged against unmerged: {error:.1e}")

# %% [markdown]
# ## Why is a thin correction enough?
#
# Fine-tune *everything* for some steps, and look at what happened to one matrix: $\Delta W = W' - W$.
# Its singular values say how many directions it needs. If few of them carry most of it, a product
# $BA$ with few columns can stand in for it.

# %%
full, _ = tunelab.load_base("minilm")
start = full.encoder.layer[5].attention.self.value.weight.detach().clone()
full.requires_grad_(True)
train(full, 24, rate=5e-5)
change = full.encoder.layer[5].attention.self.value.weight.detach() - start


def energy(matrix: torch.Tensor) -> np.ndarray:
    """Share of the squared length that the largest 1, 2, 3, ... directions hold."""
    s = torch.linalg.svdvals(matrix).numpy() ** 2
    return np.cumsum(s) / s.sum()


curves = {"the change, W' - W": change, "the matrix itself, W": start,
          "as many random numbers": torch.randn(384, 384)}  # fmt: skip
rows = pd.DataFrame([
    {"directions": i + 1, "share": float(e), "of": name}
    for name, matrix in curves.items() for i, e in enumerate(energy(matrix)[:96])
])  # fmt: skip
alt.Chart(rows, title="How many directions does a matrix need? (layer 6, value)").mark_line().encode(
    alt.X("directions").title("largest singular directions kept"),
    alt.Y("share").axis(format="%").title("share of the squared length"), alt.Color("of").title(None),
).properties(width=460, height=250)  # fmt: skip

# %%
for r in (4, 8, 16):
    print(f"the best rank {r:>2} holds {energy(change)[r - 1]:.0%} of the change, "
          f"{energy(start)[r - 1]:.0%} of the matrix itself")  # fmt: skip

# %% [markdown]
# The change is much thinner than the matrix. (Part of that is simple: a gradient is a sum of outer
# products, one for each token, and few steps can only add few directions. Exercise 3 looks at that.)
#
# ## LoRA by tunelab
#
# On all 1,344 training texts, with the head trained in full beside it, at a learning rate far above
# that of full fine-tuning: few numbers have to go far. (What happens inside, in 150 lines of plain PyTorch that give the same losses, is
# [`src/tunelab/methods/training/teaching.py`](../src/tunelab/methods/training/teaching.py): the `LoraLinear` from above with a schedule,
# weight decay, clipping and the choice of the best epoch.)

# %%
study = tunelab.compare("demo", methods=["lora"], seeds=1, tuning=False, max_length=48,
                        num_train_epochs=4, learning_rate=2e-3, r=8, lora_alpha=16,
                        target_modules=["query", "value"], output_dir="lora")  # fmt: skip
row = study.trials().iloc[0]
assert row["adapter_parameters"] == trained  # what was counted above
print(f"adapter {row['adapter_parameters']:,} parameters, head {row['head_parameters']:,}; "
      f"{row['artifact_bytes'] / 1e6:.1f} MB on disk with its tokenizer; "
      f"validation {row['eval_accuracy']:.1%}")  # fmt: skip

# %% [markdown]
# ## Exercises
#
# 1. Start $B$ at random too. What is lost?
# 2. Train with $\alpha = 16$ and $r = 2, 8, 32$, then with the factor $\alpha/\sqrt{r}$ (rsLoRA,
#    Kalajdzievski 2023). For which does the size of $sBA$ after ten steps depend less on $r$?
# 3. Train `full` for 4, 12 and 24 steps and plot the energy curve of each change. Does it get wider?
# 4. Freeze $A$ at its random start and train $B$ alone (LoRA-FA). How much does the loss suffer?
#
# <details><summary>Answers</summary>
#
# 1. The model no longer starts as the pretrained one: it starts at a random distance from it, and the
#    first steps repair that. `assert torch.equal(...)` above fails.
# 2. With $\alpha/r$ the correction shrinks as $r$ grows; with $\alpha/\sqrt{r}$ its size stays about
#    the same. tunelab: `methods=["lora", "rslora"]` with `r=[2, 8, 32]`, a grid of six.
# 3. Yes, slowly: each step adds directions, but the large ones stay the same few.
# 4. Less than one would think: $A$ chooses $r$ random directions of the input to look at, and $B$ can
#    still answer anything to them. tunelab: `methods=["lora", "lora-fa"]`.
#
# </details>
