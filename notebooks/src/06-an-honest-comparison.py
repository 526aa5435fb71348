# %% [markdown]
# # 6 · An honest comparison
#
# "LoRA 84.2, full fine-tuning 83.9." Which is better? With one run of each, nobody knows. This
# notebook takes a small real study apart: where the differences come from, how sure one can be, and
# how many seeds and test texts it would take to know.

# %%
import altair as alt
import numpy as np
import pandas as pd

import tunelab
from tunelab import stats

alt.renderers.enable("png", scale_factor=1.5)
study = tunelab.compare("demo", methods=["svm-tfidf", "probe", "lora"], seeds=3, tuning=False, subset=96,
                        max_length=24, num_train_epochs=2, per_device_train_batch_size=8,
                        output_dir="honest")  # fmt: skip
trials = study.trials()
trials.pivot_table(index="label", columns="seed", values="test_accuracy").round(3)

# %% [markdown]
# Two classes of equal size: guessing is right on half. On 96 texts and two epochs `lora` and `probe`
# have hardly left that, and their order changes from seed to seed or rests on a few texts; `svm-tfidf`,
# which counts words, is well above. So the study is small and poor on purpose, and a table of its
# means would rank all three all the same. What follows asks which of these ranks mean anything.
#
# ## Two sources of luck
#
# - **Which seed.** Another start of the new weights and another order of the texts give another model.
# - **Which test texts.** Another sample of texts gives another score for the *same* model.
#
# The second is easy to underrate. A model that is right on a share $p$ of all texts scores, on $n$ of
# them, $p \pm 1.96 \sqrt{p(1-p)/n}$. At 85%, which is kind (near 50% it is 1.4 times as wide):

# %%
n = np.array([100, 288, 1000, 5000, 25000])
half = 1.96 * np.sqrt(0.85 * 0.15 / n)
pd.DataFrame({"test texts": n, "95% half-width, points": (100 * half).round(1)})

# %% [markdown]
# ## Pairing
#
# Two models are scored on the *same* texts, and a hard text is hard for both. So compare text by
# text, and much of the luck of the texts cancels: the more, the more the two agree. With
# $d_j = [\text{a right}]_j - [\text{b right}]_j \in \{-1, 0, 1\}$ only the texts on which they *disagree* count:

# %%
answers = study.predictions("test")
answers["right"] = answers["truth"] == answers["predicted"]
right = answers.pivot(index=["label", "seed"], columns="id", values="right")
a, b = right.loc["lora"].to_numpy(float), right.loc["probe"].to_numpy(float)  # (seeds, texts)
d = (a - b).mean(axis=0)  # per text, averaged over seeds
n = len(d)
alone = np.sqrt(a.mean(0).var(ddof=1) / n + b.mean(0).var(ddof=1) / n)
paired = np.sqrt(d.var(ddof=1) / n)
print(f"lora - probe: {100 * d.mean():+.1f} points")
print(f"standard error of the texts: {100 * alone:.2f} points unpaired, {100 * paired:.2f} paired")

# %% [markdown]
# ## Bootstrap the texts, add the seeds
#
# Draw the test texts again with replacement, many times, the same for both methods, and see how the
# difference varies. The seeds' own spread comes on top:
#
# $$\mathrm{Var}(\bar d) \approx \underbrace{\mathrm{Var}_{\text{texts}}}_{\text{bootstrap}}
#   + \underbrace{s^2_{\text{seeds}} / n_{\text{seeds}}}_{\text{spread of the seeds' differences}}$$
#
# (A seed's difference already holds some of the texts' luck; tunelab's `stats.difference` takes that
# apart without counting it twice, and uses Student's t with the right degrees of freedom.)

# %%
rng = np.random.default_rng(0)
draws = np.array([d[rng.integers(0, n, n)].mean() for _ in range(4000)])
by_seed = (a - b).mean(axis=1)
print("difference by seed, points:", (100 * by_seed).round(1))
print("texts alone, 95%: ", (100 * np.quantile(draws, [0.025, 0.975])).round(1))
runs = [
    stats.Runs(label, {r.spec.seed: study.record.predictions(r.spec.trial_id)["test"]
                       for r in study.record.done if r.spec.method.label == label})
    for label in ("lora", "probe")
]  # fmt: skip
whole = stats.difference(*runs, "accuracy", np.random.default_rng(0))
print(f"texts and seeds, 95%: [{100 * whole.low:.1f}, {100 * whole.high:.1f}]  ({whole.procedure})")

# %%
bars = (
    alt.Chart(pd.DataFrame({"points": 100 * draws}))
    .mark_bar(opacity=0.7)
    .encode(
        alt.X("points").bin(maxbins=50).title("lora - probe, points of accuracy"),
        alt.Y("count()").title("draws of the test texts"),
    )
)
interval = pd.DataFrame({"low": [100 * whole.low], "high": [100 * whole.high], "zero": [0]})
rule = (
    alt.Chart(interval)
    .mark_rule(strokeWidth=4, color="#c60")
    .encode(alt.X("low"), alt.X2("high"), alt.Y(value=10))
)
zero = alt.Chart(interval).mark_rule(strokeDash=[4, 3]).encode(alt.X("zero"))
(bars + rule + zero).properties(
    width=480,
    height=220,
    title="Luck of the texts (bars); texts and seeds (line); no difference (dashes)",
)

# %% [markdown]
# ## Could it be nothing? A test over seeds
#
# If the methods were equally good, each seed's difference could as well have had the other sign. Try
# all $2^n$ sign choices and count how many give a mean at least as far from zero. With $n$ seeds the
# smallest possible two-sided p is $2/2^n = 2^{1-n}$, *whatever the data*:

# %%
flips = np.array(np.meshgrid(*[[-1, 1]] * len(by_seed))).reshape(len(by_seed), -1).T
means = np.abs((flips * by_seed).mean(axis=1))
ours = float((means >= abs(by_seed.mean()) - 1e-12).mean())
assert np.isclose(ours, stats.sign_flip(by_seed))
print(f"p = {ours} from {len(by_seed)} seeds")
pd.DataFrame({"seeds": range(2, 9), "smallest possible p": [2.0 ** (1 - s) for s in range(2, 9)]})

# %% [markdown]
# Three seeds can *never* reach 0.05 by their signs alone, and six only where all agree. tunelab uses
# their sizes too (how far each method's seeds scatter, read with the help of the other methods), but
# below six seeds too little is known of that: it then calls nothing "better", however large the
# difference looks.
#
# ## Many pairs, many chances
#
# Ten methods are 45 pairs; at p = 0.05 two of them look different by luck alone. Holm's adjustment
# (1979) sorts the p values and multiplies the smallest by the number of pairs, the next by one less.
# (tunelab asks for a little less than that: pairs that share rows and methods hang together, and it
# draws how they do.)

# %%
p = [0.004, 0.03, 0.04]
print("as found", p, "-> adjusted", [round(x, 3) for x in stats.holm(p)])
p_luck = rng.uniform(size=(2000, 45))
share = np.mean([min(row) < 0.05 for row in p_luck])
holm = np.mean([min(stats.holm(row)) < 0.05 for row in p_luck])
print(f"studies of 45 equal pairs that find a 'winner': {share:.0%}; after Holm: {holm:.0%}")

# %% [markdown]
# ## Plan it: what can be found at all?
#
# Before a study, ask how large a difference must be to be found four times out of five. It depends on
# the test texts, on how often two models disagree, and on the seeds:

# %%
plan = pd.DataFrame([
    {"test texts": m, "seeds": s,
     "detectable, points": 100 * stats.detectable_difference(m, s, disagreement=0.08, seed_sd=0.01)}
    for m in (288, 1066, 25000) for s in (3, 6, 12)
])  # fmt: skip
plan.pivot(index="test texts", columns="seeds", values="detectable, points").round(1)

# %% [markdown]
# Most differences between "LoRA" and "full fine-tuning" in print are one or two points on about a
# thousand texts: below what their tests could see.
#
# ## What tunelab says about this study

# %%
for sentence in (*study.sentences(), *study.summary.warnings):
    print("-", sentence)

# %% [markdown]
# ## Exercises
#
# 1. `svm-tfidf` gives the same predictions with every seed. What do its three "seeds" tell about
#    luck? What would a test over seeds make of them?
# 2. Choose, of ten equally good models, the one with the best *test* score on 288 texts at a true
#    accuracy of 85%. How much too good does it look on average? (Simulate.)
# 3. Two models agree everywhere but on 12 texts; on 10 of these the first is right. Exact McNemar p?
#
# <details><summary>Answers</summary>
#
# 1. Nothing: they are one run, written three times. A test over seeds would take them for three
#    agreeing witnesses. tunelab tests such pairs over texts.
# 2. `np.random.default_rng(0).binomial(288, 0.85, (10_000, 10)).max(1).mean() / 288 - 0.85`: about
#    three points. That is why the choice is made on validation and the test part is scored once.
# 3. `stats.mcnemar` on two boolean arrays, or $2 \sum_{i \le 2} \binom{12}{i} / 2^{12} = 0.039$.
#
# </details>
