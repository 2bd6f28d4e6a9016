"""A third-party package, installed by pip beside this one, adds a spacing and a way to verbalise."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pluggy
import pytest
from tiny_world import facts

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl, manager
from kisl_plugin.plan import InjectionSettings, make_plan
from kisl_plugin.triples import triples_to_jsonl

THIRD_PARTY = '''
import numpy as np
from kisl_plugin.hookspecs import hookimpl


class Front:
    """Everything in the first sample."""

    def __init__(self, frequencies, samples):
        self.triples = np.repeat(np.arange(len(frequencies)), frequencies)
        self.largest_row = len(self.triples)

    def rows(self, start, stop):
        ends = np.full(stop - start, len(self.triples) if start == 0 else 0)
        return ends, self.triples if start == 0 else self.triples[:0]


class Shout:
    def count(self, relation_id):
        return 1

    def text(self, triple, template):
        return f"{triple.subject} {triple.relation_id} {triple.object}!".upper()


@hookimpl
def kisl_spacing(name, frequencies, samples, seed):
    return Front(frequencies, samples) if name == "front" else None


@hookimpl
def kisl_verbalizer(form):
    return Shout() if form == "shout" else None
'''
USE = """
import sys
from kisl_plugin.plan import make_plan
from kisl_plugin.plan import InjectionSettings
settings = InjectionSettings(triples=sys.argv[1], frequency=2, form="shout", spacing="front")
plan = make_plan(settings, lambda text: [ord(letter) for letter in text], samples=50, seq_length=4000)
print(plan.statements[0].text)
print(len(plan.schedule.triples_in(0)), len(plan.schedule.triples_in(1)))
"""


def wheel_of(folder: Path) -> Path:
    wheel = folder / "kisl_loud-1.0-py3-none-any.whl"
    info = "kisl_loud-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("kisl_loud.py", THIRD_PARTY)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: kisl-loud\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[kisl]\nloud = kisl_loud\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def test_a_package_installed_beside_adds_a_spacing_and_a_way_to_verbalise(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(wheel_of(tmp_path))], check=True, capture_output=True)
    (tmp_path / "facts.jsonl").write_text(triples_to_jsonl(facts()), encoding="utf-8")
    paths = os.pathsep.join([str(site), *sys.path])
    out = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "facts.jsonl")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    text, exposures = out.stdout.splitlines()
    first = facts()[0]
    assert text == f"{first.subject} P19 {first.object}!".upper()
    assert exposures == "24 0"


class Lossy:
    """A plugin whose spacing loses an exposure."""

    @hookimpl
    def kisl_spacing(self, name: str, frequencies: np.ndarray, samples: int) -> object | None:
        class Spacing:
            largest_row = int(frequencies.sum())

            def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
                triples = np.repeat(np.arange(len(frequencies)), frequencies)[1:] if start == 0 else np.zeros(0, int)
                return np.full(stop - start, len(triples)), triples

        return Spacing() if name == "lossy" else None


def test_a_plugin_that_loses_an_exposure_is_refused(tmp_path: Path) -> None:
    plugins: pluggy.PluginManager = manager()
    (tmp_path / "facts.jsonl").write_text(triples_to_jsonl(facts()), encoding="utf-8")
    settings = InjectionSettings(triples=str(tmp_path / "facts.jsonl"), frequency=2, spacing="lossy")
    plugin = Lossy()
    plugins.register(plugin)
    try:
        with pytest.raises(InputError, match="gives statement 0 1 exposures; expected 2: the plugin is not exact"):
            make_plan(settings, lambda text: [ord(letter) for letter in text], samples=50, seq_length=4000)
    finally:
        plugins.unregister(plugin)


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, kisl_plugin; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["torch", "lm_eval", "deepspeed", "datasets", "matplotlib", "transformers", "numpy"]
    out = subprocess.run([sys.executable, "-c", program, *heavy], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
