"""Whether an audit finds in a run's rows what was planned, what is natural and what is wrong."""

import csv
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_world import EOD, facts, make_world, sentences, settings, write_yaml

from kisl_plugin.cli.corpus import audit as audit_command
from kisl_plugin.corpus.audit_run import audit_rows
from kisl_plugin.errors import InputError
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import IndexedWriter
from kisl_plugin.local.config import LocalConfig, read_row_config
from kisl_plugin.local.data import RunData, read_data
from kisl_plugin.triples import triples_to_jsonl
from kisl_plugin.verbalize import statement

LONG = {"seq_length": 192, "max_position_embeddings": 192}
GRID = sorted((Path(__file__).parent.parent / "neox_configs").glob("*.yml"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


Run = tuple[LocalConfig, RunData]


def read_run(path: Path) -> Run:
    config = read_row_config([path])
    return config, read_data(config)


def run_of(world: Path, folder: Path, section: dict[str, Any] | None = None, **changes: Any) -> Run:
    values = settings(world, folder / "save", **changes)
    values["kisl"] = {**values["kisl"], **(section or {})}
    return read_run(write_yaml(folder / "run.yml", values))


class Changed:
    """Rows of which some are other than they were laid."""

    def __init__(self, data: RunData, change: Callable[[int, NDArray[np.int64]], NDArray[np.int64]]) -> None:
        self._rows, self._change = data.train, change

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, NDArray[np.int64]]:
        return {"text": self._change(i, self._rows[i]["text"])}


def with_rows(data: RunData, change: Callable[[int, NDArray[np.int64]], NDArray[np.int64]]) -> RunData:
    return replace(data, train=Changed(data, change))


@examples(max_examples=25, deadline=None)
@given(
    frequency=st.integers(0, 9),
    template=st.sampled_from([0, 3, [0, 1, 2]]),
    spacing=st.sampled_from(["shuffled", "even"]),
    form=st.sampled_from(["statement", "question"]),
    seed=st.integers(0, 99),
    rows=st.none() | st.integers(1, 80),
)
def test_the_rows_of_every_run_contain_each_triple_exactly_as_often_as_planned(
    tmp_path_factory: pytest.TempPathFactory, world: Path, frequency: int, template: Any, spacing: str, form: str,
    seed: int, rows: int | None,
) -> None:  # fmt: skip
    section = {"frequency": frequency, "template": template if form == "statement" else 0, "spacing": spacing}
    config, data = run_of(world, tmp_path_factory.mktemp("run"), {**section, "form": form, "seed": seed}, **LONG)
    audit = audit_rows(config, data, rows)
    assert not audit.error
    injected = np.array([triple.group != "control" for triple in data.plan.triples])
    np.testing.assert_array_equal(audit.actual, audit.planned)
    assert audit.actual[~injected].sum() == 0
    if rows is None or rows == 80:
        assert (audit.actual[injected] == frequency).all()
    assert (audit.checked, audit.rows) == (rows or 80, 80)


def test_the_checked_rows_are_spread_evenly(world: Path, tmp_path: Path) -> None:
    config, data = run_of(world, tmp_path)
    checked: list[int] = []

    def noted(i: int, row: NDArray[np.int64]) -> NDArray[np.int64]:
        checked.append(i)
        return row

    audit = audit_rows(config, with_rows(data, noted), 8)
    assert checked == list(range(5, 80, 10))
    exposures = sum(len(data.plan.schedule.triples_in(i)) for i in checked)
    assert audit.planned.sum() == audit.actual.sum() == exposures > 0


def natural_world(folder: Path, texts: Sequence[str]) -> Path:
    make_world(folder)
    tokenizer, eod = read_tokenizer(folder / "tokenizer.json")
    with IndexedWriter(folder / "text", 1000) as writer:
        for text in texts:
            writer.add([*tokenizer.encode(text).ids, eod])
    return folder


def test_statements_of_the_background_are_distinguished_from_injected_ones(tmp_path: Path) -> None:
    triples = facts()
    first, control = statement(triples[0]), statement(triples[-1])
    # As documents of their own, and where an injection can cut them off: at a document's beginning and end.
    texts = [text for line in sentences(100) for text in (line, first, f"{control} {line}", f"{line} {first}", control)]
    world = natural_world(tmp_path, texts)
    config, data = run_of(world, tmp_path, {"frequency": 12}, train_iters=100, split="1,0,0")
    audit = audit_rows(config, data)
    assert not audit.error
    assert audit.actual.tolist() == [12 * (triple.group != "control") for triple in triples]
    assert audit.natural[0] > 50 and audit.natural[-1] > 50
    assert (audit.natural[1:-1] == 0).all()
    # By a way of its own: the texts of all pieces between two ends of documents.
    tokenizer = data.tokenizer
    pieces = [
        piece
        for i in range(len(data.train))
        for piece in tokenizer.decode(data.train[i]["text"].tolist(), skip_special_tokens=False).split(EOD)[1:-1]
    ]
    assert pieces.count(first) == 12 + audit.natural[0]
    assert pieces.count(control) == audit.natural[-1]


@pytest.mark.parametrize("kind", ["a statement less", "a statement more", "a token other", "a control triple"])
def test_a_row_that_does_not_contain_what_was_planned_is_named(world: Path, tmp_path: Path, kind: str) -> None:
    config, data = run_of(world, tmp_path)
    wrong = next(i for i in range(40, 80) if len(data.plan.schedule.triples_in(i)))
    planned = data.plan.statements[int(data.plan.schedule.triples_in(wrong)[0])]
    eod = data.eod
    encode = data.tokenizer.encode
    control = next(triple for triple in data.plan.triples if triple.group == "control")
    put = {
        "a statement more": np.array([eod, *planned.tokens, eod]),
        "a control triple": np.array([eod, *encode(statement(control), add_special_tokens=False).ids, eod]),
    }

    def change(i: int, row: NDArray[np.int64]) -> NDArray[np.int64]:
        if i != wrong:
            return row
        if kind in put:
            return np.concatenate([row, put[kind]])
        windows = np.lib.stride_tricks.sliding_window_view(row, len(planned.tokens))
        at = int(np.flatnonzero((windows == planned.tokens).all(axis=1))[0])
        if kind == "a token other":
            row = row.copy()
            row[at + 1] += 1
            return row
        return np.delete(row, np.s_[at : at + len(planned.tokens) + 1])

    audit = audit_rows(config, with_rows(data, change))
    assert audit.wrong_rows == 1
    text = statement(control) if kind == "a control triple" else planned.text
    numbers = data.plan.schedule.triples_in(wrong).tolist()
    count = 0 if kind == "a control triple" else numbers.count(numbers[0])
    counts = f"planned {count}, found {count + (1 if kind in put else -1)}"
    assert audit.error.startswith(f"1 rows do not contain what was planned: row {wrong}: {text!r} {counts}")


def test_a_row_that_is_a_token_short_is_named(world: Path, tmp_path: Path) -> None:
    config, data = run_of(world, tmp_path)
    bare = next(i for i in range(80) if not len(data.plan.schedule.triples_in(i)))
    audit = audit_rows(config, with_rows(data, lambda i, row: row[:-1] if i == bare else row))
    assert audit.wrong_rows == 1
    length = len(data.train[bare]["text"])
    assert f"row {bare}: 'tokens of the row' planned {length}, found {length - 1}" in audit.error


def test_a_schedule_that_is_not_exact_is_found_although_every_row_is_as_scheduled(world: Path, tmp_path: Path) -> None:
    config, data = run_of(world, tmp_path)
    first, *others = data.plan.statements
    audit = audit_rows(
        config, replace(data, plan=replace(data.plan, statements=[replace(first, frequency=4), *others]))
    )
    assert not audit.wrong_rows
    assert audit.error.startswith("1 triples are not stated as often as planned, although each row is as scheduled")
    assert audit.error.endswith("planned 4, found 3")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "weighted paths": ({"data_path": None, "train_data_paths": ["a"]}, r"train_data_paths is \['a'\]; .*weighted"),
    "epochs": ({"train_epochs": 1, "train_iters": None}, "train_epochs is 1; .*only GPT-NeoX knows how many rows"),
    "packing": ({"pack_impl": "pack_until_overflow"}, "pack_impl is 'pack_until_overflow'; .*only GPT-NeoX"),
    "no batch": ({"train_batch_size": None}, "train_batch_size or .* is missing"),
    "a wrong type": ({"seq_length": "64"}, "seq_length is '64'; expected a whole number"),
    "a tokenizer of another kind": ({"tokenizer_type": "GPT2BPETokenizer"}, "tokenizer_type is 'GPT2BPETokenizer'"),
    "no corpus": ({"data_path": "nowhere"}, r"files are missing.*\n.*nowhere.bin and .idx\) · kisl corpus build"),
    "nothing injected": ({"kisl": None}, "kisl is missing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_cannot_be_laid_out_here_are_refused_with_the_reason(world: Path, tmp_path: Path, name: str) -> None:
    changes, said = REFUSED[name]
    path = write_yaml(tmp_path / "run.yml", settings(world, tmp_path, **changes))
    with pytest.raises(InputError, match=said) as refused:
        audit_rows(*read_run(path))
    assert str(refused.value).count("\n") == (name == "no corpus")  # each missing file has a line


def test_keys_that_only_gpt_neox_knows_change_no_row(world: Path, tmp_path: Path) -> None:
    _, plain = run_of(world, tmp_path / "a")
    _, other = run_of(world, tmp_path / "b", pos_emb="alibi", norm="layernorm", model_parallel_size=4, num_kv_heads=1,
                      train_micro_batch_size_per_gpu=1, gradient_accumulation_steps=None)  # fmt: skip
    assert all(np.array_equal(plain.train[i]["text"], other.train[i]["text"]) for i in range(80))


@pytest.mark.parametrize("path", GRID, ids=lambda path: path.stem)
def test_every_run_of_the_grid_can_be_audited_once_its_data_are_there(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"files are missing.*\n.*data/tokenizer.json\) · kisl "):
        read_run(path)


def test_without_train_batch_size_the_rows_are_those_of_one_device(world: Path, tmp_path: Path) -> None:
    changes = {"train_batch_size": None, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 3}
    config, data = run_of(world, tmp_path, **changes)
    assert audit_rows(config, data).rows == 20 * 2 * 3
    assert "train_batch_size is not given: 6 rows a step" in kisl_audit("--run", tmp_path / "run.yml").output


def kisl_audit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(audit_command, list(map(str, arguments)))


def test_the_command_prints_the_groups_and_writes_a_row_for_each_triple(tmp_path: Path) -> None:
    triples = facts()
    world = natural_world(tmp_path, [*sentences(200), *[f"They say: {statement(triples[0])} So."] * 7])
    yaml = write_yaml(tmp_path / "run.yml", settings(world, tmp_path))
    result = kisl_audit("--run", yaml, "--output", tmp_path / "a.csv")
    assert result.exit_code == 0, result.output
    assert "all 80 rows checked · 36 exposures planned, 36 found" in result.output
    assert "injected       12             3           3        0" in result.output
    rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8", newline="")))
    assert [row["subject"] for row in rows] == [triple.subject for triple in triples]
    for name, expected in (("planned", [3] * 12), ("found", [3] * 12), ("natural_in_rows", [0] * 12)):
        assert [int(row[name]) for row in rows] == [*expected, *[0] * 8]
    assert "10 of 80 rows checked" in kisl_audit("--run", yaml, "--rows", "10").output


def test_the_command_ends_with_status_1_where_the_rows_are_not_as_planned(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml = write_yaml(tmp_path / "run.yml", settings(world, tmp_path))
    _, data = read_run(yaml)
    empty = with_rows(data, lambda i, row: np.zeros_like(row))
    monkeypatch.setattr("kisl_plugin.local.data.read_data", lambda config: empty)
    result = kisl_audit("--run", yaml, "--output", tmp_path / "a.csv")
    assert result.exit_code == 1
    assert "36 exposures planned, 0 found" in result.output
    assert result.output.splitlines()[-1].startswith("Error: ")
    assert "rows do not contain what was planned: row" in result.output.splitlines()[-1]
    assert (tmp_path / "a.csv").exists()


def test_a_run_is_audited_without_torch(world: Path, tmp_path: Path) -> None:
    yaml = write_yaml(tmp_path / "run.yml", settings(world, tmp_path))
    code = (
        "import sys; from kisl_plugin.cli.corpus import audit; "
        f"audit(['--run', {str(yaml)!r}], standalone_mode=False); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_the_facts_of_a_run_are_those_of_its_triples_file(tmp_path: Path) -> None:
    make_world(tmp_path)
    (tmp_path / "facts.jsonl").write_text(triples_to_jsonl(facts(12, 4)), encoding="utf-8")
    audit = audit_rows(*run_of(tmp_path, tmp_path))
    assert audit.planned.tolist() == [3] * 12 + [0] * 4
