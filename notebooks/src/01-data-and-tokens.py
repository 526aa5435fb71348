# %% [markdown]
# # 1 · Data and tokens
#
# A model never sees a text. It sees a row of whole numbers, and how those are made decides what it
# can learn and what an hour of training costs. This notebook follows one review from the file to
# the tensor: load, look, split into tokens, put side by side in a batch.
#
# You need nothing but tunelab: the reviews and the base model come with it, and no network is used.

# %%
import altair as alt
import numpy as np
import pandas as pd

import tunelab

alt.renderers.enable("png", scale_factor=1.5)
data = tunelab.load_data("demo")
data.label_names, {name: len(part) for name, part in data.parts.items()}

# %% [markdown]
# ## Three parts, three jobs
#
# | part | its job | may it influence a choice? |
# |---|---|---|
# | train | the weights are fitted to it | yes |
# | validation | chooses epochs, settings, the method | yes |
# | test | says how good the chosen thing is | **no** |
#
# A part that was used for choosing is no longer an honest judge: of many candidates, the one that
# looks best there is partly the luckiest. tunelab scores the test part once, at the very end. What
# it decided for you while loading, it says:

# %%
for note in data.notes:
    print("-", note)

# %%
pd.DataFrame(
    {name: np.bincount(part.labels, minlength=2) for name, part in data.parts.items()},
    index=list(data.label_names),
)

# %% [markdown]
# The parts are *stratified*: each label has the same share everywhere. And they were looked through
# for equal texts, because a text that stands in train and in test is a question that the pupil has
# seen:

# %%
data.duplicates

# %% [markdown]
# ## From text to tokens
#
# MiniLM, like BERT, reads *WordPiece* tokens (Wu et al. 2016): words from a vocabulary of about
# 30,000 pieces, where `##` marks a piece that continues a word. Splitting a word is greedy: take the
# longest piece of the vocabulary that the word begins with, then go on with what is left.
#
# $$\text{pieces}(w) = p \cdot \text{pieces}(w'), \qquad p = \text{longest } v \in V
# \text{ with } w = v\,w'$$

# %%
model, tokenizer = tunelab.load_base("minilm")
vocabulary = tokenizer.get_vocab()


def pieces(word: str) -> list[str]:
    """Split one lower-case word into the longest pieces of the vocabulary, from left to right."""
    out: list[str] = []
    start = 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                break
        else:
            return ["[UNK]"]  # no piece fits: the whole word becomes one unknown token
        out.append(piece)
        start = end
    return out


words = ["wonderful", "unwatchable", "cinematography", "zzyzx"]
ours = {w: pieces(w) for w in words}
ours

# %% [markdown]
# The tokenizer that comes with the model does the same, and adds `[CLS]` in front (the token whose
# last vector a classifier reads) and `[SEP]` behind:

# %%
assert all(tokenizer.tokenize(w) == ours[w] for w in words)
text = "An unwatchable film with wonderful cinematography."
ids = tokenizer(text)["input_ids"]
pd.DataFrame({"token": tokenizer.convert_ids_to_tokens(ids), "id": ids}).T

# %% [markdown]
# ## How long are the texts?
#
# Attention compares every token with every other, so a text of $n$ tokens costs about $n$ in the
# linear layers and $n^2$ in attention. Lengths are worth a look *before* `max_length` is chosen:
# what is cut off is not read.

# %%
lengths = np.array([len(i) for i in tokenizer(list(data.train.texts))["input_ids"]])
share = {limit: float((lengths > limit).mean()) for limit in (32, 64, 128)}
print("tokens: median", int(np.median(lengths)), "· longest", lengths.max())
print("share of texts that are cut:", {k: f"{v:.1%}" for k, v in share.items()})

# %%
bars = pd.DataFrame({"tokens": lengths})
alt.Chart(bars, title="Tokens in a training text (demo reviews)").mark_bar().encode(
    alt.X("tokens").bin(maxbins=40).title("tokens, special ones included"),
    alt.Y("count()").title("texts"),
).properties(width=480, height=200)

# %% [markdown]
# ## Batches, padding, masks
#
# A tensor is a rectangle, texts are not: shorter ones are *padded* to the longest of their batch,
# and a mask of ones and zeros tells attention what is text. `input_ids` and `attention_mask` both
# have the shape (texts, longest text in the batch):

# %%
three = [data.train.texts[i] for i in np.argsort(lengths)[[0, 40, 80]]]
batch = tokenizer(three, padding=True, return_tensors="pt")
print("input_ids", tuple(batch["input_ids"].shape))
print(batch["attention_mask"].numpy())

# %% [markdown]
# Padding is computed and thrown away. How much is wasted depends on who sits beside whom, which is
# why tunelab puts texts of like length into one batch:


# %%
def waste(order: np.ndarray, size: int = 16) -> float:
    """Share of the computed tokens that are padding, for batches of `size` in this order."""
    rows = [lengths[order[i : i + size]] for i in range(0, len(order), size)]
    return 1 - lengths.sum() / sum(len(r) * r.max() for r in rows)


rng = np.random.default_rng(0)
shuffled, by_length = rng.permutation(len(lengths)), np.argsort(lengths)
print(
    f"padding in random batches: {waste(shuffled):.0%}, in batches by length: {waste(by_length):.1%}"
)

# %% [markdown]
# ## What the model makes of it
#
# Each token becomes a vector; after the last layer the shape is (texts, tokens, width). The model
# was trained on other texts and knows nothing of our labels yet: that is what the next notebooks
# are about.

# %%
hidden = model(**batch).last_hidden_state
tuple(hidden.shape), model.config.num_hidden_layers, sum(p.numel() for p in model.parameters())

# %% [markdown]
# ## Exercises
#
# 1. How many tokens would a tokenizer need that knows only single letters? Compare its mean length
#    with WordPiece's. What would that do to the cost?
# 2. Does padding change a text's result? Run `three[0]` alone and inside the batch, and compare the
#    vectors of `[CLS]`.
# 3. Which labels does cutting at 32 tokens hurt most? Compare the mean length by label.
#
# <details><summary>Answers</summary>
#
# 1. `np.mean([len(t) + 2 for t in data.train.texts])`. Several times longer: linear layers cost in
#    proportion, attention with the square. A larger vocabulary buys shorter rows with a larger
#    embedding table.
# 2. `alone = model(**tokenizer(three[0], return_tensors="pt")).last_hidden_state[0, 0]`, then
#    `(alone - hidden[0, 0]).abs().max()`: about the rounding of float32. The mask takes padding out
#    of every sum; only the order of additions differs.
# 3. `pd.Series(lengths).groupby(data.train.labels).mean()`. The label with the longer texts loses
#    more; whether that costs accuracy depends on where in a text the verdict stands. Try it:
#    `tunelab.compare("demo", methods=["svm"], max_length=32)`.
#
# </details>
