"""A virtual environment made for a test, and the wheel to install into it; nothing is downloaded."""

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from kisl_plugin.probe.hook import DISABLE


def build_wheel(project: Path, out: Path) -> Path:
    pytest.importorskip("hatchling")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=project, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


@dataclass(frozen=True)
class Fresh:
    """A new virtual environment that holds nothing."""

    folder: Path

    @property
    def site(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def pip(self, *arguments: object) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.folder), "--disable-pip-version-check"]
        subprocess.run([*pip, *map(str, arguments)], check=True, capture_output=True, timeout=120)

    def see_lm_eval(self) -> None:
        """Show it this interpreter's packages but not their .pth files, and lm_eval without its own 14,000 tasks."""
        package = Path(pytest.importorskip("lm_eval").__file__).parent
        seen = {str(package.parent), sysconfig.get_path("purelib")}
        (self.site / "seen.pth").write_text("\n".join(seen), encoding="utf-8")
        (self.site / "lm_eval" / "tasks").mkdir(parents=True)
        for path in [*package.iterdir(), *(package / "tasks").glob("*.py")]:
            if path.name not in ("tasks", "__pycache__"):
                (self.site / "lm_eval" / path.relative_to(package)).symlink_to(path)

    def python(self, *arguments: str, **environment: str) -> str:
        """What it prints; it must succeed and must not complain."""
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", DISABLE)}
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **environment}
        done = subprocess.run(
            [self.folder / "bin" / "python", *arguments],
            cwd=self.folder,
            env={**kept, **offline},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def files(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if not path.is_dir()}


def new_environment(folder: Path) -> Fresh:
    pytest.importorskip("pip")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return Fresh(folder)
