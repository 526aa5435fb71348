# %% [markdown]
# # 2 · Frozen features and an SVM
#
# The cheapest way to use a pretrained model: let it turn each text into a vector, once, and fit a
# line between the classes. Nothing of the model is trained. It is the comparison that every
# fine-tuning has to beat to be worth its cost.

# %%
import altair as alt
import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize

import tunelab

alt.renderers.enable("png", scale_factor=1.5)
data = tunelab.load_data("demo", subset=256)
model, tokenizer = tunelab.load_base("minilm")

# %% [markdown]
# ## From token vectors to a text vector
#
# The encoder gives a vector $h_i \in \mathbb{R}^{384}$ for each of $n$ tokens. Two ways to make one
# vector of them: take the first token's (`cls`), or the mean over the text's tokens, with the mask
# $m_i \in \{0, 1\}$ leaving padding out (Reimers & Gurevych 2019):
#
# $$x_{\text{cls}} = h_1, \qquad x_{\text{mean}} = \frac{\sum_i m_i h_i}{\sum_i m_i}$$


# %%
@torch.no_grad()
def embed(texts: tuple[str, ...], size: int = 32) -> np.ndarray:
    """Mean-pooled vectors (n, 384)."""
    rows = []
    for i in range(0, len(texts), size):
        batch = tokenizer(list(texts[i : i + size]), padding=True, truncation=True, max_length=64,
                          return_tensors="pt")  # fmt: skip
        h = model(**batch).last_hidden_state
        m = batch["attention_mask"].unsqueeze(-1)
        rows.append(((h * m).sum(1) / m.sum(1)).numpy())
    return np.concatenate(rows)


x_train, x_validation = embed(data.train.texts), embed(data.validation.texts)
y_train, y_validation = (2.0 * p.labels - 1 for p in (data.train, data.validation))  # -1 or +1
x_train.shape, x_validation.shape

# %% [markdown]
# ## Look at them
#
# 384 dimensions do not fit on paper. The two directions along which the vectors vary most (principal
# components) do. If the colours already separate here, a line will have an easy time; mostly they
# do not, because the largest variation is the *topic*, not the opinion.

# %%
centre = x_train.mean(0)
_, _, directions = np.linalg.svd(x_train - centre, full_matrices=False)
flat = (x_train - centre) @ directions[:2].T
points = pd.DataFrame({"first": flat[:, 0], "second": flat[:, 1],
                       "label": [data.label_names[k] for k in data.train.labels]})  # fmt: skip
alt.Chart(points, title="Training reviews along the two largest directions").mark_circle(
    size=40, opacity=0.6
).encode(x="first", y="second", color="label").properties(width=420, height=280)

# %% [markdown]
# ## The SVM from its formula
#
# A linear support vector machine looks for a plane $w \cdot x + b = 0$ that has the classes on its
# two sides with room to spare. With labels $y \in \{-1, +1\}$ and the squared hinge loss it minimises
#
# $$\tfrac12 \lVert w \rVert^2 + \tfrac12 b^2
#   + C \sum_j \max(0,\; 1 - y_j (w \cdot x_j + b))^2$$
#
# The first part wants a wide margin (its width is $2 / \lVert w \rVert$), the second wants every
# text on its own side of it. $C$ says which matters more. The function is convex and smooth, so a
# general minimiser finds *the* answer:

# %%
mean, scale = x_train.mean(0), x_train.std(0)
scale[scale < 1e-6] = 1.0  # a direction in which no text differs says nothing


def standardised(x: np.ndarray) -> np.ndarray:
    """Each direction with mean 0 and spread 1 on train, and a column of ones that carries b."""
    return np.column_stack([(x - mean) / scale, np.ones(len(x))]).astype(np.float64)


def fit_svm(x: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
    """Weights (features,) that minimise the formula above."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        room = np.maximum(0, 1 - y * (x @ w))
        return 0.5 * w @ w + c * (room**2).sum(), w - 2 * c * x.T @ (y * room)

    return minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B",
                    options={"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-8}).x  # fmt: skip


ours = fit_svm(standardised(x_train), y_train, c=0.01)

# %% [markdown]
# The library that tunelab uses (LIBLINEAR, through scikit-learn) minimises the same formula by
# another road. The two must agree:

# %%
from sklearn.svm import LinearSVC

theirs = LinearSVC(C=0.01, tol=1e-8, max_iter=20_000, fit_intercept=False)
theirs.fit(standardised(x_train), y_train)
difference = np.abs(ours - theirs.coef_[0]).max()
assert difference < 1e-3, difference
print(f"largest difference of a weight: {difference:.1e} (weights up to {np.abs(ours).max():.2f})")

# %% [markdown]
# ## Which C? Validation decides
#
# On the texts that it was fitted to, a larger $C$ always looks better. On others it does not:

# %%
rows = []
for c in 10.0 ** np.arange(-6, 1.5, 0.5):
    w = fit_svm(standardised(x_train), y_train, c)
    for part, x, y in (("train", x_train, y_train), ("validation", x_validation, y_validation)):
        rows.append(
            {"C": c, "part": part, "accuracy": float((np.sign(standardised(x) @ w) == y).mean())}
        )
curve = pd.DataFrame(rows)
alt.Chart(
    curve, title="The weight of mistakes: what is learnt, and what is learnt by heart"
).mark_line(point=True).encode(
    alt.X("C").scale(type="log"), alt.Y("accuracy").scale(zero=False).axis(format="%"), color="part"
).properties(width=460, height=240)

# %% [markdown]
# ## Without any model: TF-IDF
#
# The other baseline needs no pretrained model at all. A text becomes the counts of its words and
# letter groups $t$, each weighed down by the share of texts that have it too:
#
# $$\text{tfidf}(t, d) = (1 + \ln \text{count}(t, d)) \cdot
#   \left(1 + \ln \frac{1 + N}{1 + N_t}\right)$$
#
# `svm-tfidf` is this and the same SVM. It trains in a second on a laptop. tunelab runs both, with $C$
# chosen on validation and the test part scored once:

# %%
study = tunelab.compare("demo", methods=["svm-tfidf", "svm"], seeds=1, tuning=False, subset=256, max_length=64,
                        output_dir="baselines")  # fmt: skip
columns = ["method", "eval_accuracy", "test_accuracy", "train_seconds", "artifact_bytes"]
study.trials()[columns].round(3)

# %%
for sentence in study.sentences():
    print(sentence)

# %% [markdown]
# `train_seconds` of `svm` is almost all spent on *computing the vectors*, which is done once per
# text and then cached. One seed is enough here: neither method draws a random number.
#
# ## Exercises
#
# 1. Fit the SVM on `cls` vectors in place of the mean. Which is better here, and what does that say
#    about what the base model was trained for?
# 2. How many texts does the SVM need? Fit on the first 32, 64, 128 and 256 and plot validation
#    accuracy.
# 3. Which training texts *are* the decision? Count those with $y_j(w \cdot x_j + b) < 1$: only they
#    pull at $w$ (see the gradient). What happens when the others are left out?
#
# <details><summary>Answers</summary>
#
# 1. Replace the pooling by `h[:, 0]`, or ask tunelab: `methods=[{"name": "svm", "pooling": ["mean",
#    "cls"]}]`. all-MiniLM was trained so that the *mean* of its vectors compares sentences; its
#    `cls` vector was never asked to mean anything.
# 2. The curve rises steeply and then flattens, about a line over the logarithm of the number of
#    texts. It is this curve that says whether more labels are worth their price.
# 3. `room = 1 - y_train * (standardised(x_train) @ ours); (room > 0).sum()`. Those are the support
#    vectors. Fitting on them alone gives the same plane: the others have gradient zero.
#
# </details>
