"""From the kisl section to statements and a schedule, also with what third-party plugins add."""

import os
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny_world import facts

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl, manager
from kisl_plugin.plan import InjectionPlan, InjectionSettings, describe_passes, make_plan, read_settings
from kisl_plugin.triples import Triple, triples_to_jsonl


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def plan_of(folder: Path, triples: list[Triple], samples: int = 400, **keys: Any) -> InjectionPlan:
    (folder / "facts.jsonl").write_text(triples_to_jsonl(triples), encoding="utf-8")
    section = {"triples": str(folder / "facts.jsonl"), "frequency": 5, **keys}
    return make_plan(read_settings(section, "run.yml", 3), letters, samples, 1000)


@given(
    frequency=st.integers(0, 40),
    templates=st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True),
)
@hypothesis_settings(max_examples=30, deadline=None)
def test_the_exposures_of_a_triple_are_shared_among_its_templates(
    tmp_path_factory: pytest.TempPathFactory, frequency: int, templates: list[int]
) -> None:
    plan = plan_of(tmp_path_factory.mktemp("plan"), facts(), frequency=frequency, template=templates)
    totals: Counter[Triple] = Counter()
    for statement in plan.statements:
        totals[statement.triple] += statement.frequency
        assert abs(statement.frequency - frequency / len(templates)) < 1
    assert set(totals.values()) == {frequency}
    assert len(totals) == 12
    assert plan.schedule.count_exposures().tolist() == [s.frequency for s in plan.statements]


def test_a_template_that_a_relation_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"kisl.template is \(0, 9\); the form 'statement' of relation 'P19' has 7"):
        plan_of(tmp_path, facts(), template=[0, 9])


def test_all_relations_without_templates_are_named_at_once(tmp_path: Path) -> None:
    triples = [replace(t, relation_id={"P19": "P1"}.get(t.relation_id, "P2")) for t in facts()]
    with pytest.raises(InputError, match=r"relations 'P1', 'P2': no templates \(built in: P19, "):
        plan_of(tmp_path, [*facts(), *triples])


def test_groups_have_their_own_frequencies(tmp_path: Path) -> None:
    triples = [replace(t, group="rare") if k % 3 == 0 and t.group != "control" else t for k, t in enumerate(facts())]
    plan = plan_of(tmp_path, triples, frequency={"rare": 2, "injected": 9})
    assert {(s.triple.group, s.frequency) for s in plan.statements} == {("rare", 2), ("injected", 9)}
    assert plan.card_fields()["groups"] == {
        "injected": {"frequency": 9, "count": 8},
        "rare": {"frequency": 2, "count": 4},
    }
    with pytest.raises(InputError, match=r"group 'rare' has no frequency; the groups of .* are injected, rare"):
        plan_of(tmp_path, triples, frequency={"injected": 9})
    with pytest.raises(InputError, match="group 'often' has a frequency and no triples"):
        plan_of(tmp_path, triples, frequency={"injected": 9, "rare": 1, "often": 3})


def test_two_triples_with_the_same_statement_are_named(tmp_path: Path) -> None:
    twins = [
        *facts(),
        Triple("Ada", "P19", "Chile", subject_id="Q1", object_id="Q9"),
        Triple("Ada", "P19", "Chile", subject_id="Q2", object_id="Q9"),
    ]
    with pytest.raises(InputError, match=r"'Ada was born in Chile.' \(of Q1 P19 Q9\) and .*\(of Q2 P19 Q9\)"):
        plan_of(tmp_path, twins)


def test_facts_that_could_not_be_asked_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"relation 'P19': .* has fewer than 3 possible wrong options"):
        plan_of(tmp_path, [Triple("Ada", "P19", "Chile"), Triple("Bo", "P19", "Peru"), Triple("Cy", "P19", "Cuba")])


def test_more_than_max_fraction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(\d+\.\d%\); kisl.max_fraction allows 10%"):
        plan_of(tmp_path, facts(), samples=40, frequency=50, max_fraction=0.1)


def test_a_file_of_controls_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every triple is in the group control"):
        plan_of(tmp_path, [t for t in facts() if t.group == "control"])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"triples": "t"}, "kisl.frequency is missing"),
        ({"triples": "t", "frequency": -1}, "kisl.frequency is -1"),
        ({"triples": "t", "frequency": True}, "kisl.frequency is True"),
        ({"triples": "t", "frequency": 1.5}, "kisl.frequency is 1.5"),
        ({"triples": "t", "frequency": {"control": 3}}, "the group control is never injected"),
        ({"triples": "t", "frequency": 1, "tempalte": 0}, "kisl.tempalte is unknown; did you mean template"),
        ({"triples": "t", "frequency": 1, "window": [0.5, 0.5]}, r"kisl.window is \[0.5, 0.5\]"),
        ({"triples": "t", "frequency": 1, "template": []}, r"kisl.template is \[\]"),
        ({"triples": "t", "frequency": 1, "template": [0, 0]}, r"kisl.template is \[0, 0\]"),
        ({"triples": "t", "frequency": 1, "max_fraction": 0}, "kisl.max_fraction is 0"),
        ({"triples": 3, "frequency": 1}, "kisl.triples is 3"),
        (["triples"], "expected a section"),
    ],
)
def test_a_bad_section_is_refused_before_anything_starts(section: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_settings(section, "run.yml", 1)
    assert str(caught.value).startswith("run.yml: ")


def test_the_seed_of_the_run_is_the_default() -> None:
    assert read_settings({"triples": "t", "frequency": 1}, "run.yml", 77).seed == 77
    assert read_settings({"triples": "t", "frequency": 1, "seed": 5}, "run.yml", 77).seed == 5
    assert InjectionSettings(triples="t", frequency=1, template=(2, 0)).templates == (2, 0)


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
from kisl_plugin.plan import InjectionSettings, make_plan
settings = InjectionSettings(triples=sys.argv[1], frequency=2, form="shout", spacing="front")
plan = make_plan(settings, lambda text: [ord(letter) for letter in text], samples=50, seq_length=4000)
print(plan.statements[0].text)
print(len(plan.schedule.triples_in(0)), len(plan.schedule.triples_in(1)))
"""


def install_plugin(folder: Path, name: str, code: str) -> str:
    """Install a distribution with one plugin module into a folder of its own; returns the PYTHONPATH that has it."""
    pytest.importorskip("pip")
    wheel, info, site = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info", folder / "site"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", f"[kisl]\nloud = {name}\n")
        archive.writestr(f"{info}/RECORD", "")
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return os.pathsep.join([str(site), *sys.path])


def test_a_package_installed_beside_adds_a_spacing_and_a_way_to_verbalise(tmp_path: Path) -> None:
    paths = install_plugin(tmp_path, "kisl_loud", THIRD_PARTY)
    (tmp_path / "facts.jsonl").write_text(triples_to_jsonl(facts()), encoding="utf-8")
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


MISSING = "import a_module_that_was_removed"
OTHER_HOOK = "from kisl_plugin.hookspecs import hookimpl\n@hookimpl\ndef kisl_spacing(nam): ..."
COPY, ASK = "kisl_plugin triples wikidata_six copy.jsonl", "lm_eval --tasks kisl_wikidata --model dummy"


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        (COPY, MISSING, "(ModuleNotFoundError: No module named 'a_module_that_was_removed')"),
        (ASK, MISSING, "(ModuleNotFoundError: No module named 'a_module_that_was_removed')"),
        (COPY, None, "(ModuleNotFoundError: No module named 'kisl_broken')"),
        (COPY, OTHER_HOOK, "(PluginValidationError: Plugin 'loud' for hook 'kisl_spacing'"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line_with_its_distribution(
    command: str, code: str | None, reason: str, tmp_path: Path
) -> None:
    pytest.importorskip(command.split()[0])
    paths = install_plugin(tmp_path, "kisl_broken", code or "")
    if code is None:
        (tmp_path / "site" / "kisl_broken.py").unlink()
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: the kisl plugin of kisl-broken (entry point loud = kisl_broken) cannot be loaded")
    assert reason in last
    assert last.endswith("reinstall it, or remove it: pip uninstall kisl-broken")


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
    plugins = manager()
    (tmp_path / "facts.jsonl").write_text(triples_to_jsonl(facts()), encoding="utf-8")
    settings = InjectionSettings(triples=str(tmp_path / "facts.jsonl"), frequency=2, spacing="lossy")
    plugin = Lossy()
    plugins.register(plugin)
    try:
        with pytest.raises(InputError, match="gives statement 0 1 exposures; expected 2: the plugin is not exact"):
            make_plan(settings, letters, samples=50, seq_length=4000)
    finally:
        plugins.unregister(plugin)


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, kisl_plugin; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["torch", "lm_eval", "deepspeed", "datasets", "matplotlib", "transformers", "numpy"]
    out = subprocess.run([sys.executable, "-c", program, *heavy], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_a_statement_that_is_longer_than_a_row_is_named_with_its_triple(tmp_path: Path) -> None:
    rows = [f"Person {k},P19,Country {k}" for k in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(["subject,relation_id,object", *rows, f"{'Long ' * 40},P19,Country 0"]))
    settings = read_settings({"triples": str(tmp_path / "t.csv"), "frequency": 1}, "run.yml", 3)
    with pytest.raises(InputError, match=r"'Long Long .*…' \(of Long .* P19 Country 0\) has \d+ tokens, .* row of 101"):
        make_plan(settings, letters, samples=500, seq_length=100)


def test_a_background_that_is_read_many_times_is_pointed_out() -> None:
    assert describe_passes(1000, 4000) is None
    warning = describe_passes(230_000, 58_000_000_000)
    assert warning and "230,000 tokens is read 252,174 times in a run of 58,000,000,000" in warning


def test_a_tilde_in_the_path_of_the_triples_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_settings({"triples": "~/t.csv", "frequency": 1}, "run.yml", 3).triples == str(tmp_path / "t.csv")
