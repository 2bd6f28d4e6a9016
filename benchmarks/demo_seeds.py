"""Does the demo show its collapse point with other seeds? Run it for each, and write one row a seed.

    python benchmarks/demo_seeds.py --out seeds 1234 1 2 3 4 5 6 7 8 9 > results/demo_seeds.csv

Demos that are complete below --out are only read.
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path

from kisl_plugin.demo import QUESTION, STATEMENT
from kisl_plugin.fit import fit_results


def row_of(out: Path, seed: int) -> dict[str, object]:
    """What the fits say of one demo."""
    asked, stated = (fit_results([out / "results"], task=task).curves[0] for task in (QUESTION, STATEMENT))
    curve, points = asked.curve, asked.points
    best = max(points, key=lambda point: point.accuracy)
    low, high = curve.f_star_interval if curve.ok else (None, None)
    return {
        "seed": seed,
        "status": curve.status,
        "f_star": f"{curve.f_star:.1f}" if curve.ok else "",
        "low": "" if low is None else f"{low:.1f}",
        "high": "" if high is None else f"{high:.1f}",
        "fall_p": f"{curve.fall_p:.3f}",
        "form_p": f"{curve.form_p:.3f}",
        "tau": f"{curve.tau:.2f}",
        "floor": f"{asked.floor.value:.3f}",
        "best_f": best.frequency,
        "best_p": f"{best.accuracy:.3f}",
        "last_f": points[-1].frequency,
        "last_p": f"{points[-1].accuracy:.3f}",
        "statement": stated.curve.status,
        "statement_last_p": f"{stated.points[-1].accuracy:.3f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the demos")
    parser.add_argument("seeds", type=int, nargs="+", metavar="SEED")
    arguments = parser.parse_args()
    writer = None
    for seed in arguments.seeds:
        out = arguments.out / f"s{seed}"
        command = [sys.executable, "-m", "kisl_plugin", "demo", "--seed", str(seed), "--out", str(out)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        row = row_of(out, seed)
        if writer is None:
            writer = csv.DictWriter(sys.stdout, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
