"""A build that was killed, damaged, or filled the disk goes on, and gives the bytes of one that was not."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_builds import World, digests, make_world, several_files
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_world import sentences

from kisl_plugin.corpus import filter as blocks
from kisl_plugin.corpus.inputs import Piece
from kisl_plugin.corpus.shards import BuildPaths, Stamp, claim, load_plan
from kisl_plugin.errors import InputError, KislError

TASKS = 3
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, str]]:
    """A world, and what an undisturbed build of it writes."""
    world = make_world(tmp_path_factory.mktemp("whole"), several_files())
    world.build("whole", tasks=TASKS)
    return world, digests(world.folder / "whole")


@pytest.fixture()
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, in order."""
    names: list[str] = []

    def read_piece(piece: Piece, *note_bad: Any) -> Any:
        names.append(Path(piece.file).name)
        return real(piece, *note_bad)

    real = blocks.read_piece
    monkeypatch.setattr(blocks, "read_piece", read_piece)
    return names


def build_and_die(world: World, name: str, change: int, **options: Any) -> int:
    """Build in a process that ends without a word at its `change`-th change of a file of the build; its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in CHANGES and f"/{name}" in str(arguments[0]):
            seen += 1
            if seen == change:
                os._exit(9)

    try:
        sys.addaudithook(hook)
        world.build(name, **options)
        os._exit(0)
    finally:
        os._exit(1)


def finished(world: World, name: str) -> list[int]:
    """The tasks whose shards have a stamp that fits."""
    paths = BuildPaths(world.folder / name)
    if not paths.plan.exists():
        return []
    plan = load_plan(paths)
    return [rank for rank in range(plan.tasks) if Stamp.read(paths, plan, rank)]


def files_of_tasks(world: World, name: str) -> list[list[str]]:
    plan = load_plan(BuildPaths(world.folder / name))
    return [[Path(piece.file).name for piece in share] for share in plan.shares]


def clear(world: World, name: str) -> None:
    for path in world.folder.glob(f"{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@settings(max_examples=10, deadline=None)
@given(kills=st.lists(st.integers(1, 230), min_size=1, max_size=3))
def test_a_build_that_is_killed_anywhere_any_number_of_times_goes_on_to_the_same_bytes(
    whole: tuple[World, dict[str, str]], kills: list[int]
) -> None:
    world, expected = whole
    clear(world, "killed")
    for change in kills:
        build_and_die(world, "killed", change, tasks=TASKS)
        there = digests(world.folder / "killed")
        if ".idx" in there:
            assert [there[".bin"], there[".idx"]] == [expected[".bin"], expected[".idx"]]
    try:
        world.build("killed", tasks=TASKS)
    except InputError as error:
        assert "killed.json: already exists" in str(error)
    assert digests(world.folder / "killed") == expected
    assert not (world.folder / "killed.work").exists()


def test_only_shards_that_are_not_finished_are_made_again(whole: tuple[World, dict[str, str]], read: list[str]) -> None:
    world, expected = whole
    clear(world, "again")
    seen = set()
    for change in (40, 60, 70):
        build_and_die(world, "again", change, tasks=TASKS)
        done = finished(world, "again")
        left = [file for rank, files in enumerate(files_of_tasks(world, "again")) if rank not in done for file in files]
        seen.add(len(done))
    world.build("again")
    assert read == left
    assert len(seen - {0, TASKS}) > 0
    assert digests(world.folder / "again") == expected


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncate(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[tuple[str, Callable[[Path], Any]]] = [
    ("00001.bin", cut_short),
    ("00001.bin", Path.unlink),
    ("00001.idx", Path.unlink),
    ("00001.json", cut_short),
    ("00001.json", truncate),
    ("00001.json", lambda path: path.write_text('{"plan": "", "documents": 1, "tokens": 1, "empty": 0, "sizes": {}}')),
    ("00001.jsonl", cut_short),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_only_a_damaged_shard_is_made_again(
    whole: tuple[World, dict[str, str]], read: list[str], name: str, damage: Callable[[Path], Any]
) -> None:
    world, expected = whole
    prepare_to_merge(world, "torn")
    read.clear()
    files = files_of_tasks(world, "torn")[1]
    paths = BuildPaths(world.folder / "torn")
    folder = paths.excluded if name.endswith(".jsonl") else paths.shards
    damage(folder / name)
    world.build("torn", tasks=TASKS)
    assert read == files
    assert digests(world.folder / "torn") == expected


def test_a_weighted_build_with_more_tasks_than_paths_can_be_blended_goes_on_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, several_files(4))
    monkeypatch.setattr("kisl_plugin.corpus.build.LARGEST_BLEND", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kisl_plugin.corpus.build.merge_shards", stop)
        with pytest.raises(KislError, match="no merge"):
            world.build(tasks=4, weighted=True)
    assert world.build(tasks=4, weighted=True).documents
    assert len(list(tmp_path.glob("out_*.idx"))) == 2


def prepare_to_merge(world: World, name: str, tasks: int = TASKS) -> None:
    """A build that was killed when all its shards were finished."""
    clear(world, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kisl_plugin.corpus.build.merge_shards", stop)
        with pytest.raises(KislError, match="no merge"):
            world.build(name, tasks=tasks)
    assert len(finished(world, name)) == tasks


def test_a_merge_that_is_killed_at_every_change_of_a_file_leaves_no_draft_behind(
    whole: tuple[World, dict[str, str]],
) -> None:
    world, expected = whole
    prepare_to_merge(world, "merged")
    kills = 0
    while build_and_die(world, "merged", kills + 1, tasks=TASKS):
        kills += 1
    assert kills > 20
    assert digests(world.folder / "merged") == expected


def stop(*_: Any) -> None:
    raise KislError("no merge")


def test_a_build_that_another_call_would_change_is_refused_with_both_values(tmp_path: Path) -> None:
    world = make_world(tmp_path, several_files(3))
    prepare_to_merge(world, "out")
    facts, tokenizer = world.facts.read_text(), world.tokenizer.read_text()
    world.facts.write_text(facts.splitlines()[0] + "\n")
    refused(world, r"begun there with --triples .*facts.jsonl \(\w{12}\), now it is .*facts.jsonl \(\w{12}\); go on")
    world.facts.write_text(facts)
    world.tokenizer.write_text(tokenizer.replace('"add_prefix_space":false', '"add_prefix_space":true'))
    refused(world, r"begun there with --tokenizer \w{12}, now it is \w{12}")
    world.tokenizer.write_text(tokenizer)
    refused(world, r"begun there with --match pair, now it is subject", "--match", "subject")
    refused(world, r"begun there with --min-length 4, now it is 5", "--min-length", "5")
    refused(world, r"begun there with --tasks 3, now it is 2", "--tasks", "2")
    refused(world, r"begun there with --text-column text, now it is body", "--text-column", "body")
    (world.text / "09.txt").write_text("one more")
    refused(world, r"begun there with --input 3 files, now it is 4 files")
    (world.text / "09.txt").unlink()
    (world.text / "00.jsonl").write_text('{"text": "changed"}\n')
    refused(world, r"begun there with the version of .*00.jsonl [\d.]+-\d+, now it is [\d.]+-20")
    assert world.kisl("out", "--force").exit_code == 0
    world.build("fresh")
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def refused(world: World, expected: str, *options: str) -> None:
    result = world.kisl("out", *options)
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    assert re.search(expected, result.output), result.output
    assert result.output.endswith("or add --force to start again\n")


def test_two_builds_into_one_output_are_refused_while_the_first_runs(tmp_path: Path) -> None:
    world = make_world(tmp_path, several_files(2))
    with claim(BuildPaths(tmp_path / "out")):
        result = world.kisl("out")
        assert result.exit_code == 1
        assert f"another build is running (process {os.getpid()} on " in result.output
        world.build("other")
    assert not (tmp_path / "out.work").exists()
    world.build("out")
    assert digests(tmp_path / "out") == digests(tmp_path / "other")


def test_a_full_disk_is_one_line_and_the_build_goes_on_when_there_is_room(tmp_path: Path) -> None:
    world = make_world(tmp_path, [sentences(500, seed=n) for n in range(3)])
    world.build("whole")
    prepare_to_merge(world, "full")
    # No file may grow beyond this: to a writer the same as a disk that is full.
    for largest, name in ((30_000, "fresh"), ((tmp_path / "whole.bin").stat().st_size - 1, "full")):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
            result = world.kisl(name)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (result.exit_code, len(re.findall("^Error", result.output, re.MULTILINE))) == (1, 1), result.output
        assert "File too large; once that is solved the same command goes on from here" in result.output
        assert not (tmp_path / f"{name}.idx").exists()
        world.build(name)
        assert digests(tmp_path / name) == digests(tmp_path / "whole")


def interrupted(world: World, name: str) -> tuple[int, tuple[str, str]]:
    """A build that gets Ctrl-C after two shards: its exit status and output."""
    command = [sys.executable, "-m", "kisl_plugin", *world.command(name), "--force"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background makes its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    shards = BuildPaths(world.folder / name).shards
    while process.poll() is None and len(list(shards.glob("*.idx"))) < 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)
    return process.returncode, output


def test_ctrl_c_is_one_line_that_says_how_to_go_on(tmp_path: Path) -> None:
    world = make_world(tmp_path, [sentences(1000, seed=n) for n in range(12)])
    # Python drops a Ctrl-C that comes while it calls back for a weak reference, as loguru's between two tasks.
    tries = (interrupted(world, "out") for _ in range(5))
    status, (_, error) = next((one for one in tries if one[0]), (0, ("", "")))
    assert status == 1, error
    assert re.search(r"^Error: .*out: interrupted; the same command without --force goes on from", error)
    assert error.count("\n") == 1
    assert len(finished(world, "out")) >= 1
    world.build("out")
    world.build("whole")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.parametrize("damage", [cut_short, truncate])
def test_a_plan_that_cannot_be_read_is_an_error_and_force_starts_again(
    tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    world = make_world(tmp_path, several_files(2))
    prepare_to_merge(world, "out", tasks=2)
    damage(BuildPaths(tmp_path / "out").plan)
    result = world.kisl()
    assert (result.exit_code, "plan.json: cannot be read" in result.output) == (2, True)
    assert world.kisl("out", "--force").exit_code == 0
