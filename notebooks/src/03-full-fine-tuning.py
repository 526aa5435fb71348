# %% [markdown]
# # 3 · Full fine-tuning
#
# Now the model itself may move: all of its weights, a little, towards our labels. This notebook
# writes the loop by hand, each piece next to its formula, and then lets tunelab do the same.

# %%
import altair as alt
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

import tunelab

alt.renderers.enable("png", scale_factor=1.5)
torch.manual_seed(0)
data = tunelab.load_data("demo", subset=160)
encoder, tokenizer = tunelab.load_base("minilm")

# %% [markdown]
# ## A head
#
# The encoder ends with a vector of 384 numbers; we want $K$ scores, one a class. A linear layer does
# that: $z = W x + b$ with $W \in \mathbb{R}^{K \times 384}$. It is new, so it starts at random, and
# everything that the model knows about our labels has to come from training.


# %%
class Classifier(nn.Module):
    """Texts -> logits (texts, classes): the encoder, its first token, a linear head."""

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(384, classes)

    def forward(self, batch: dict) -> torch.Tensor:
        return self.head(self.encoder(**batch).last_hidden_state[:, 0])


def encode(texts: list[str]) -> dict:
    return tokenizer(texts, padding=True, truncation=True, max_length=48, return_tensors="pt")


model = Classifier(encoder, len(data.label_names))
sum(p.numel() for p in model.parameters()), sum(p.numel() for p in model.head.parameters())

# %% [markdown]
# ## The loss and its gradient
#
# Softmax turns scores into probabilities, cross-entropy asks how surprised they are by the truth
# $y$, and its gradient with respect to the scores is what one would hope: *predicted minus true*.
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad L = -\ln p_y, \qquad
#   \frac{\partial L}{\partial z_k} = p_k - [k = y]$$

# %%
z = torch.tensor([[1.5, -0.5, 0.2]], requires_grad=True)
y = torch.tensor([2])
functional.cross_entropy(z, y).backward()
by_hand = functional.softmax(z.detach(), dim=1) - functional.one_hot(y, 3)
assert torch.allclose(z.grad, by_hand)
print("autograd:", z.grad.numpy().round(4), " by hand:", by_hand.numpy().round(4))

# %% [markdown]
# ## AdamW
#
# Plain gradient descent takes the same step length in every direction. Adam (Kingma & Ba 2015)
# divides each weight's step by the size that its gradient usually has; AdamW (Loshchilov & Hutter
# 2019) adds a pull towards zero that is *not* divided. For gradient $g$ at step $t$:
#
# $$m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
#   \hat m = \tfrac{m}{1-\beta_1^t}, \quad \hat v = \tfrac{v}{1-\beta_2^t}$$
# $$\theta \leftarrow \theta - \eta\lambda\theta - \eta\,\frac{\hat m}{\sqrt{\hat v} + \epsilon}$$


# %%
def adamw(theta, g, m, v, t, rate=1e-2, decay=0.1, b1=0.9, b2=0.999, eps=1e-8):
    """One step of the formula above; returns the new (theta, m, v)."""
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    step = (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
    return theta - rate * decay * theta - rate * step, m, v


p = nn.Parameter(torch.randn(5))
ours, m, v = p.detach().clone(), torch.zeros(5), torch.zeros(5)
optimizer = torch.optim.AdamW([p], lr=1e-2, weight_decay=0.1)
for t in range(1, 21):
    (p**4).sum().backward()
    ours, m, v = adamw(ours, p.grad.clone(), m, v, t)
    optimizer.step()
    optimizer.zero_grad()
assert torch.allclose(ours, p.detach(), atol=1e-6)
print("20 steps: largest difference to torch.optim.AdamW", float((ours - p.detach()).abs().max()))

# %% [markdown]
# ## The loop
#
# One pass over the training part is an *epoch*. The rate warms up (the first gradients, through a
# random head, are noise that would shake the pretrained weights) and then falls to zero. After each
# epoch validation is scored, and the best epoch's weights are what we keep.

# %%
epochs, size, peak = 2, 16, 5e-5
texts, labels = np.array(data.train.texts), torch.from_numpy(data.train.labels)
steps = epochs * len(texts) // size
warm = max(1, round(0.06 * steps))


def factor(step: int) -> float:
    """Share of the peak rate: up in a line, then down in a line."""
    return (step + 1) / warm if step < warm else 1 - (step - warm) / (steps - warm)


@torch.no_grad()
def accuracy(part) -> float:
    model.eval()
    some = list(part.texts[:128])  # tunelab takes all of them
    rows = [model(encode(some[i : i + 64])).argmax(1) for i in range(0, len(some), 64)]
    return float((torch.cat(rows).numpy() == part.labels[:128]).mean())


optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.01)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
rng, log = np.random.default_rng(0), []
before = {n: p.detach().clone() for n, p in model.named_parameters()}
for epoch in range(epochs):
    model.train()
    for rows in rng.permutation(len(texts)).reshape(-1, size):
        loss = functional.cross_entropy(model(encode(list(texts[rows]))), labels[rows])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        log.append({"step": len(log) + 1, "loss": float(loss), "rate": schedule.get_last_lr()[0]})
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    print(f"epoch {epoch + 1}: validation accuracy {accuracy(data.validation):.1%}")

# %%
curve = pd.DataFrame(log)
base = alt.Chart(curve).encode(alt.X("step"))
loss_line = base.mark_line(color="#999").encode(alt.Y("loss").title("loss of a batch"))
smooth = (
    base.transform_window(mean="mean(loss)", frame=[-4, 4])
    .mark_line()
    .encode(alt.Y("mean:Q").title(""))
)
rate_line = base.mark_line(color="#c60").encode(alt.Y("rate").title("learning rate"))
(
    (loss_line + smooth).properties(width=330, height=200, title="Loss, and its running mean")
    | rate_line.properties(width=260, height=200, title="Learning rate")
)

# %% [markdown]
# ## How far did the weights go?
#
# Not far: each matrix moves by a small share of its length. Remember this picture for the next
# notebook, whose idea it is.

# %%
moved = pd.DataFrame([
    {"matrix": n.replace("encoder.", ""), "share": float((p.detach() - before[n]).norm() / before[n].norm())}
    for n, p in model.named_parameters() if p.ndim == 2 and "encoder.layer" in n
])  # fmt: skip
print(f"median move of a matrix: {moved['share'].median():.2%} of its length")

# %% [markdown]
# ## The same by tunelab
#
# With batches by length, packed rows, the best epoch kept, costs measured in a fresh process, and
# the test part scored once:

# %%
study = tunelab.compare("demo", methods=["full"], seeds=1, tuning=False, subset=160, max_length=48,
                        num_train_epochs=2, output_dir="full")  # fmt: skip
row = study.trials().iloc[0]
print(f"validation {row['eval_accuracy']:.1%}, test {row['test_accuracy']:.1%}, "
      f"{row['train_seconds']:.0f} s of training, {row['artifact_bytes'] / 1e6:.0f} MB on disk")  # fmt: skip
study.history()

# %% [markdown]
# ## Exercises
#
# 1. Train with `peak = 5e-3`. What does the loss do, and why does the same rate not hurt LoRA?
# 2. Freeze the encoder (`model.encoder.requires_grad_(False)`) and train the head alone. Which
#    notebook have you repeated?
# 3. How much memory does AdamW need beside the weights? Count the bytes for this model.
#
# <details><summary>Answers</summary>
#
# 1. It stays at about $\ln 2 \approx 0.69$, the loss of guessing: the pretrained weights were pushed
#    away from where they mean anything. LoRA moves a product of two small matrices that starts at
#    zero, and needs rates about ten times higher than full fine-tuning to get anywhere.
# 2. Notebook 2, with cross-entropy in place of the hinge. tunelab calls it `probe`.
# 3. $m$ and $v$ are each as large as the weights, and so is the gradient: with 22.7M parameters in 4
#    bytes, $3 \times 91$ MB beside the $91$ MB of the model. That, times two classes of models and
#    ten tasks, is what the next notebooks save.
#
# </details>
