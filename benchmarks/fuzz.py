"""What becomes of studies, caches and folders under attack: tried, tracebacks, silent, lost.

python benchmarks/fuzz.py [files cache disk kills power code fork] [--tries 40] [--seed 0]

files   a file of a study is damaged, and a command reads it
cache   every file of one kind in the cache is damaged, and a study is run with it
disk    the n-th fsync, rename, write or open fails, for every n, and the command is run again
kills   the command line is ended by a signal at some moment, and is run again
power   the power fails some seconds after a study has ended (an ext4 image; root, Linux)
code    a library, or a model's code, is planted where it could be run without having been allowed
fork    a classifier that has labelled texts goes on in a forked process

Silent: another result than that of an undisturbed run, or code that ran, without a word. Lost: a
finished trial that is gone, a folder that cannot be used again, a process or a file left behind.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "e2e")]

import damages  # noqa: E402
from commands import command, run_here  # noqa: E402
from tiny import make_tiny, reviews, write_csv  # noqa: E402
from tunelab.core import cache, files, study_folder  # noqa: E402

SHORT = ("--max-length", "32", "--num-train-epochs", "1")
Counts = Counter[str]
"""By outcome: "tried", "tracebacks", "silent", "lost"."""


class Ground:
    """A folder to work in: data, a tiny base, and the scores of undisturbed studies."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.data = write_csv(folder / "r.csv", reviews(120), ["text", "label"])
        self.base = make_tiny(folder / "base", "bert")

    def compare(self, out: Path, methods: str = "svm-tfidf") -> list[object]:
        own = (*SHORT, "--model", self.base) if methods != "svm-tfidf" else ()
        return ["compare", self.data, "--methods", methods, *own, "--seeds", 2, "--folds", "off",
                "--jobs", 1, "--tuning", "off", "--output-dir", out]  # fmt: skip


def scores(study: Path) -> dict[str, object]:
    """Scores of the trials that are done and whole, by id."""
    results = study_folder.read_study(study).results
    return {r.spec.trial_id: dict(r.scores) for r in results if r.status == "done"}


def ran(counts: Counts, *args: object) -> bool:
    """Run a command here; whether it ended with 0. A traceback is counted."""
    try:
        said = run_here(*args)
    except Exception as e:  # what no command may let through
        print(f"  traceback: {args[:2]}: {type(e).__name__}: {e}", flush=True)
        counts["tracebacks"] += 1
        return False
    counts["tracebacks"] += "Traceback" in said.out + said.err
    return said.code == 0


# --- attacks --------------------------------------------------------------------------------


def attack_files(ground: Ground, tries: int) -> Counts:
    from test_damage import COMMANDS, _all_damages, file_in, say, trial_in

    counts: Counts = Counter()
    whole = ground.folder / "whole"
    ran(counts, *ground.compare(whole))
    expected = scores(whole)
    all_of = [d for d in _all_damages(whole) if file_in(whole, d[0]).is_file()]
    for name, _, damage in ground.rng.sample(all_of, min(tries, len(all_of))):
        study = ground.folder / "files" / "study"
        shutil.rmtree(study.parent, ignore_errors=True)
        shutil.copytree(whole, study)
        damage(file_in(study, name))
        counts["tried"] += 1
        try:
            for asked in (ground.rng.choice(COMMANDS), ("runs", "list")):
                counts["tracebacks"] += "Traceback" in say(study, asked).err
            trial = trial_in(study).name
            read = study_folder.read_result(study, trial)
            counts["silent"] += read is not None and dict(read.scores) != expected[trial]
        except Exception as e:  # what no command may let through
            print(f"  traceback: {name}: {type(e).__name__}: {e}", flush=True)
            counts["tracebacks"] += 1
    return counts


def attack_cache(ground: Ground, tries: int) -> Counts:
    counts: Counts = Counter()
    methods = "svm,probe"
    place, warm = cache.folder(), ground.folder / "warm"
    ran(counts, *ground.compare(ground.folder / "cached", methods))
    expected = scores(ground.folder / "cached")
    shutil.copytree(place, warm)
    kinds = sorted({(f.parent.name, f.suffix) for f in warm.rglob("*") if f.is_file()})
    pairs = list(itertools.product(kinds, damages.BYTES))
    for (folder, suffix), name in ground.rng.sample(pairs, min(tries, len(pairs))):
        shutil.rmtree(place)
        shutil.copytree(warm, place)
        for entry in (place / folder).glob(f"*{suffix}"):
            damages.damaged(entry, name)
        out = ground.folder / "again"
        shutil.rmtree(out, ignore_errors=True)
        counts["tried"] += 1
        if not ran(counts, *ground.compare(out, methods)):
            counts["lost"] += 1
        elif scores(out) != expected:
            print(f"  silent: {folder}/*{suffix} {name}", flush=True)
            counts["silent"] += 1
    return counts


DISK = {
    "fsync": (files, "sync"),
    "rename": (Path, "replace"),
    "write": (Path, "write_bytes"),
    "open": (tempfile, "mkstemp"),
}
"""What is asked of the disk by whatever writes a study, and where that can be made to fail."""


@contextmanager
def failing_at(operation: str, n: int) -> Iterator[list[int]]:
    """While inside, the n-th of these operations finds the disk full; gives how many are left."""
    holder, name = DISK[operation]
    own, left = getattr(holder, name), [n]

    def failing(*args: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return own(*args, **more)

    setattr(holder, name, failing)
    try:
        yield left
    finally:
        setattr(holder, name, own)


def attack_disk(ground: Ground, tries: int) -> Counts:
    """In this process, where any operation can find the disk full: so many of each kind."""
    import tunelab

    counts: Counts = Counter()

    def study(out: Path) -> None:
        tunelab.compare(ground.data, methods="svm-tfidf", seeds=2, folds="off", tuning=False,
                        output_dir=out, engine="inline")  # fmt: skip

    study(ground.folder / "undisturbed")
    expected = scores(ground.folder / "undisturbed")
    for operation, n in itertools.product(DISK, range(1, tries + 1)):
        out = ground.folder / f"disk-{operation}-{n}"
        with failing_at(operation, n) as left:
            try:
                study(out)
            except (OSError, tunelab.TunelabError):
                pass
            except Exception as e:  # what no command may let through
                print(f"  traceback: {operation} {n}: {type(e).__name__}: {e}", flush=True)
                counts["tracebacks"] += 1
        if left[0] > 0:
            continue  # there are fewer
        counts["tried"] += 1
        study(out)
        lost = scores(out) != expected or bool(list(out.rglob(".*")))
        if lost:
            print(f"  lost: {operation} {n}: {sorted(map(str, out.rglob('.*')))}", flush=True)
        counts["lost"] += lost
    return counts


def attack_kills(ground: Ground, tries: int) -> Counts:
    counts: Counts = Counter()
    started = time.monotonic()
    ran(counts, *ground.compare(ground.folder / "unkilled", "svm-tfidf,lora"))
    takes, expected = time.monotonic() - started, scores(ground.folder / "unkilled")
    for k in range(tries):
        number = (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)[k % 3]
        out, scratch = ground.folder / f"kill-{k}", ground.folder / f"tmp-{k}"
        scratch.mkdir()
        env = {**os.environ, "TMPDIR": str(scratch)}
        args = ground.compare(out, "svm-tfidf,lora")
        one = subprocess.Popen(command(*args), env=env, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
        time.sleep(ground.rng.uniform(0.1, 1.0) * takes)
        family = psutil.Process(one.pid).children(recursive=True) if one.poll() is None else []
        one.send_signal(number)
        said = one.communicate()[1]
        counts["tried"] += 1
        counts["tracebacks"] += "Traceback" in said
        counts["lost"] += bool(psutil.wait_procs(family, timeout=5)[1])
        done = scores(out) if study_folder.is_study(out) else {}
        again = subprocess.run(command(*args), env=env, capture_output=True, text=True, check=False)
        after = scores(out)
        counts["lost"] += again.returncode != 0 or any(after.get(i) != s for i, s in done.items())
        counts["silent"] += after != expected
        counts["lost"] += bool([*(out / "trials").glob(".*"), *out.glob(".*"), *scratch.iterdir()])
    return counts


def attack_power(ground: Ground, tries: int) -> Counts:
    counts: Counts = Counter()
    if os.geteuid() or not shutil.which("mkfs.ext4"):
        return counts
    image, disk, after = (ground.folder / n for n in ("image", "disk", "after"))
    for k in range(max(1, tries // 10)):
        with image.open("wb") as stream:
            stream.truncate(256_000_000)
        disk.mkdir(exist_ok=True)
        after.mkdir(exist_ok=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        if subprocess.run(["mount", "-o", "loop", image, disk], check=False).returncode:
            return counts
        try:
            os.sync()
            ran(counts, *ground.compare(disk / "s"))
            expected = scores(disk / "s")
            time.sleep(3 * k)
            shutil.copy(image, ground.folder / "snapshot")  # as the power fails
        finally:
            subprocess.run(["umount", disk], check=True)
        subprocess.run(["mount", "-o", "loop", ground.folder / "snapshot", after], check=True)
        try:
            counts["tried"] += 1
            empty = {p.name for p in after.rglob("*") if p.is_file() and not p.stat().st_size}
            # Who had the folder is a note for others, of a process that is no more.
            empty -= {"history.jsonl", files.HOLDER}
            lost = bool(empty) or scores(after / "s") != expected
            if lost:
                print(f"  lost {3 * k} s after: {sorted(empty)}", flush=True)
            counts["lost"] += lost
        finally:
            subprocess.run(["umount", after], check=True)
    return counts


def attack_code(ground: Ground, _: int) -> Counts:
    from tunelab.kernels import build

    counts: Counts = Counter()
    ours, path = cache.folder(), os.environ["PATH"]
    for planted, folder in itertools.product((0o600, 0o666), (0o700, 0o777, 0o1777)):
        os.environ["TUNELAB_CACHE"] = str(ground.folder / f"c-{planted:o}-{folder:o}")
        os.environ["PATH"] = ""  # no compiler: what is loaded was there
        library = cache.machine_folder() / f"kernels-{build._library_key()}.so"
        library.parent.mkdir(parents=True)
        library.write_bytes(b"planted")
        library.chmod(planted)
        library.parent.chmod(folder)
        counts["tried"] += 1
        counts["silent"] += build.library()[0] is not None
    os.environ["TUNELAB_CACHE"], os.environ["PATH"] = str(ours), path
    own, mark = shutil.copytree(ground.base, ground.folder / "own"), ground.folder / "ran"
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (own / "config.json").write_text(json.dumps(config))
    (own / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    study = ground.folder / "own.yaml"
    study.write_text(
        f"data: {ground.data}\nmodel: {own}\ntrust_remote_code: true\nmethods: [svm]\n"
    )
    for more in ((), ("--dry-run",)):
        counts["tried"] += 1
        ran(counts, "compare", study, *more, "--output-dir", ground.folder / "o")
        counts["silent"] += mark.exists()
    return counts


def attack_fork(_: Ground, __: int) -> Counts:
    from test_fork import test_scoring_in_a_fork_ends

    counts: Counts = Counter(tried=2)
    try:
        test_scoring_in_a_fork_ends()
    except (AssertionError, subprocess.TimeoutExpired):
        counts["lost"] += 1
    return counts


ATTACKS: dict[str, Callable[[Ground, int], Counts]] = {
    "files": attack_files,
    "cache": attack_cache,
    "disk": attack_disk,
    "kills": attack_kills,
    "power": attack_power,
    "code": attack_code,
    "fork": attack_fork,
}


def rows(names: list[str], tries: int, seed: int) -> Iterator[tuple[str, Counts, float]]:
    """Attacks in turn, each in a folder and with a cache of its own: name, counts, seconds."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            os.environ["TUNELAB_CACHE"] = str(place / "cache")
            started = time.monotonic()
            counts = ATTACKS[name](Ground(place, random.Random(seed)), tries)  # noqa: S311  no secret
            yield name, counts, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("attacks", nargs="*", default=[], help=", ".join(ATTACKS))
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    outcomes = ("tried", "tracebacks", "silent", "lost")
    print(f"{'attack':8}" + "".join(f"{o:>12}" for o in outcomes) + "     seconds", flush=True)
    for name, counts, took in rows(asked.attacks or list(ATTACKS), asked.tries, asked.seed):
        said = "".join(f"{counts[o]:12}" for o in outcomes)
        print(f"{name:8}{said}{took:12.0f}", flush=True)


if __name__ == "__main__":
    main()
