"""How often `predict --other 0.05` calls texts other: of the same kind, of a class that is new, of
other data.

    python benchmarks/familiar.py --data DATA [--data DATA ..] [--rows 1000]

Each DATA is whatever `tunelab compare` takes. A line each: with so many training rows the share of
its own test rows that is called other (wrongly), of rows of a class that was taken away, and of
the test rows of every other data set, all with at most 5% promised.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tunelab import data
from tunelab.core.values import DataSpec
from tunelab.models.familiar import familiar_with, other_rates

ERROR, MOST = 0.05, 1000


def main() -> None:
    """Try all on all, and print."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--data", action="append", required=True)
    ask.add_argument("--rows", type=int, default=1000)
    asked = ask.parse_args()
    sets = {Path(d).name: data.load(DataSpec(d, subset=asked.rows)) for d in asked.data}
    for name, own in sets.items():
        rates = other_rates(own, ERROR)
        familiar = familiar_with(own.train.texts, own.validation.texts)
        far = {
            other: familiar.others(d.test.texts[:MOST], ERROR).mean()
            for other, d in sets.items()
            if other != name
        }
        said = ", ".join(f"{other} {100 * share:.0f}%" for other, share in far.items())
        new = "-" if rates.of_new_class is None else f"{100 * rates.of_new_class:.1f}%"
        print(f"{name}: own {100 * (rates.wrongly or 0):.1f}%, new class {new}; {said}", flush=True)


if __name__ == "__main__":
    main()
