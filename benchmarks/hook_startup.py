"""What does kisl_lm_eval.pth cost every start of Python in an environment that has it?

    python benchmarks/hook_startup.py [--starts 400]

Two empty virtual environments that differ in this one file are started in turn, so that whatever else the machine does
meets both alike. Elapsed and processor time; the latter decides, since a busy machine hardly moves it. Exit status 1 if
the median of the pairs' differences is not under 1 ms.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PTH = Path(__file__).parents[1] / "kisl_plugin" / "probe" / "kisl_lm_eval.pth"
LIMIT_MS = 1.0


def make_environment(folder: Path, pth: Path | None) -> Path:
    """The interpreter of a new virtual environment that holds nothing but `pth`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    if pth is not None:
        (site_packages,) = folder.glob("lib/python*/site-packages")
        shutil.copy(pth, site_packages)
    return folder / "bin" / "python"


def milliseconds(python: Path) -> tuple[float, float]:
    """Elapsed and processor time of one start."""
    start = time.perf_counter()
    process = os.posix_spawn(python, [str(python), "-c", "pass"], os.environ)
    _, status, used = os.wait4(process, 0)
    assert status == 0
    return 1000 * (time.perf_counter() - start), 1000 * (used.ru_utime + used.ru_stime)


def finders(python: Path) -> str:
    code = "import sys; print([getattr(finder, '__name__', '') for finder in sys.meta_path])"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=400, help="of each environment (default: 400)")
    starts = parser.parse_args().starts
    with tempfile.TemporaryDirectory() as folder:
        without, with_it = (make_environment(Path(folder) / str(k), pth) for k, pth in enumerate((None, PTH)))
        assert "KislFinder" not in finders(without) and "KislFinder" in finders(with_it)
        pairs = [(milliseconds(without), milliseconds(with_it)) for _ in range(starts)]
    for k, kind in enumerate(("elapsed", "processor")):
        before, after = ([times[k] for times in column] for column in zip(*pairs, strict=True))
        low, median, high = statistics.quantiles([b - a for a, b in zip(before, after, strict=True)], n=4)
        medians = f"{statistics.median(before):.2f} ms without, {statistics.median(after):.2f} ms with"
        print(f"{kind} time: {medians}; pair by pair {median:.2f} ms more (quartiles {low:.2f} and {high:.2f})")
    sys.exit(0 if median < LIMIT_MS else f"not under {LIMIT_MS} ms")


if __name__ == "__main__":
    main()
