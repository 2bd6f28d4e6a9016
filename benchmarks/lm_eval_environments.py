"""For lm_eval_versions.py: the checkout's wheel, one virtual environment per release of lm_eval, and its command."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[1]
# 0.4.6 was never released.
RELEASES = "0.4.4 0.4.5 0.4.7 0.4.8 0.4.9 0.4.9.1 0.4.9.2 0.4.10 0.4.11 0.4.12 0.4.13".split()
# These name transformers.AutoModelForVision2Seq as they are imported, which transformers 5 lacks.
BEFORE_TRANSFORMERS_5 = (Version("0.4.5"), Version("0.4.9.2"))
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
# What would let a run find another kisl_plugin than the wheel's, or none.
NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "KISL_NO_LM_EVAL_HOOK")


class ReleaseError(Exception):
    """A release does not do what is expected of it; the message is one line for the table."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with one release of lm_eval and the wheel."""

    release: str
    folder: Path

    def lm_eval(self, arguments: Sequence[str], away: Path, **variables: str) -> float:
        """Run the `lm_eval` command in the folder `away` without a network; the seconds that it took.

        Raises:
            ReleaseError: its exit status is not 0.
        """
        command = [str(self.folder / "bin" / "lm_eval"), *arguments]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=away, env=_environment(**variables), capture_output=True, text=True)
        if done.returncode != 0:
            raise ReleaseError(_last_line(done.stderr or done.stdout))
        return time.perf_counter() - start

    def version_of(self, distribution: str) -> str:
        code = f"from importlib.metadata import version; print(version({distribution!r}))"
        return _run([str(self.folder / "bin" / "python"), "-c", code]).strip()


def make_environment(release: str, folder: Path, wheel: Path, torch: str) -> Environment:
    """Make the environment, or put the wheel into the one that stands there already.

    Raises:
        ReleaseError: pip could not install it.
    """
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    if not (folder / "bin" / "lm_eval").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        first, last = BEFORE_TRANSFORMERS_5
        old = ["transformers<5"] if first <= Version(release) <= last else []
        _run([*pip, str(wheel), f"lm-eval[hf,api]=={release}", torch, *old])
    _run([*pip, "--no-deps", "--force-reinstall", str(wheel)])
    return Environment(release, folder)


def build_wheel(out: Path) -> Path:
    """The checkout's wheel, built by hatchling in this interpreter."""
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    return out / _run([sys.executable, "-c", code, str(out)], ROOT).split()[-1]


def _run(command: Sequence[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise ReleaseError(_last_line(done.stderr or done.stdout))
    return done.stdout


def _environment(**variables: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
    return {**kept, **OFFLINE, **variables}


def _last_line(text: str) -> str:
    # Progress bars overwrite their line with \r; colours of a log do not belong into a table.
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
