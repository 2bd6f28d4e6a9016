from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny_world import facts

from kisl_plugin.errors import InputError
from kisl_plugin.plan import InjectionPlan, InjectionSettings, make_plan, read_settings
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


def test_groups_have_their_own_frequencies(tmp_path: Path) -> None:
    from dataclasses import replace

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
