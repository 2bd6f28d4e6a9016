"""Are the collapse curve's estimates, intervals and verdicts what they claim? Known curves, drawn counts, targets.

    python benchmarks/fit_recovery.py [--quick] [--processes 2] [--out docs/fit_recovery.md]

Four studies: recovery of curves of the form (beside scipy's curve_fit and least squares on logs), run-to-run noise and
shared triples, truths of other shapes, and whether the optimum is one. Every draw comes from a seed of its truth, so
the numbers do not depend on the number of processes. Exit status 1 if a target is missed beyond chance.
"""

import argparse
import sys
import time
from pathlib import Path

from recovery import noise, optimum, shapes, study
from recovery.plan import FULL, QUICK, scaled
from recovery.tables import Section, of_targets

STUDIES = (study, noise, shapes, optimum)
INTRODUCTION = """# How well collapse curves are recovered

Written by `python benchmarks/fit_recovery.py{flags}`. Known curves, counts drawn from them, fitted and judged as
`kisl-fit` does. A verdict is against the truth where it is `ok` although the truth never falls up to the largest
frequency or has two peaks, or `no collapse` although the truth falls, between the frequencies asked, by more than the
largest fall that the verdict allows. Coverage is over all draws, an open end covers on its side. Efficiency is the
Cramér–Rao variance of log F* over the mean squared error among `ok` draws. A share misses its target where the exact
binomial 99.9 % interval of what was seen excludes it; an efficiency, or an average, where 3.29 standard errors do.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few truths and draws, in seconds: the same code")
    parser.add_argument("--scale", type=float, default=1.0, help="of the full study's draws (default: 1)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the report here, in Markdown; without it, it is printed")
    args = parser.parse_args()
    began = time.perf_counter()
    plan = QUICK if args.quick else scaled(FULL, args.scale)
    sections = [one.run(plan, args.processes) for one in STUDIES]
    text = report(sections, " --quick" if args.quick else "" if args.scale == 1 else f" --scale {args.scale:g}")
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    print(summary(sections) if args.out else text)
    print(f"{time.perf_counter() - began:.0f} s")
    return 0 if all(target.met for section in sections for target in section.targets) else 1


def report(sections: list[Section], flags: str = "") -> str:
    """The whole report."""
    return "\n".join([INTRODUCTION.format(flags=flags), summary(sections), *map(str, sections)])


def summary(sections: list[Section]) -> str:
    """The targets, and every miss."""
    targets = [target for section in sections for target in section.targets]
    misses = [f"- {target.name}: {miss}" for target in targets for miss in target.misses]
    told = ["", "Missed:", "", *misses] if misses else []
    return "\n".join(["## Targets", "", of_targets(targets), *told, ""])


if __name__ == "__main__":
    sys.exit(main())
