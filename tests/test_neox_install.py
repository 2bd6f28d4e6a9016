"""Finding and installing GPT-NeoX, with a small git repository that has the files it is known by."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kisl_plugin.cli.main import main
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.neox.install import (
    LANDMARKS,
    NEEDED,
    cache_folder,
    commit_of,
    ensure_helpers,
    find_neox,
    install_neox,
)

PROJECT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no clone of the user's own, and none of the machine's git settings."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.delenv("GPT_NEOX_DIR", raising=False)
    return tmp_path / "cache" / "kisl"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A work tree of three commits: `first` (a tag), `second` (a branch) and main."""
    folder = tmp_path / "source"
    for name in LANDMARKS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    git(folder, "init", "--quiet", "--initial-branch=main")
    for number in ("first", "second", "third"):
        (folder / "number.txt").write_text(number, encoding="utf-8")
        commit(folder, number)
        git(folder, *{"first": ("tag", "first"), "second": ("branch", "second")}.get(number, ("status",)))
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, message: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    git(folder, "add", "--all")
    git(folder, *who, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def commit_after_change(folder: Path) -> str:
    (folder / "number.txt").write_text("mine", encoding="utf-8")
    return commit(folder, "mine")


def number(folder: Path) -> str:
    return (folder / "number.txt").read_text(encoding="utf-8")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["neox", *arguments])


@pytest.mark.parametrize("kind", ["work tree", "bare", "file address", "subset of branches"])
def test_a_commit_of_any_kind_of_source_is_installed_whole(
    kind: str, source: Path, cache: Path, tmp_path: Path
) -> None:
    expected = git(source, "rev-parse", "second")
    place = str(source)
    if kind != "work tree":
        options = ["--single-branch"] if kind == "subset of branches" else []
        git(tmp_path, "clone", "--quiet", "--bare", *options, str(source), "bare.git")
        place = f"{'file://' if kind == 'file address' else ''}{tmp_path / 'bare.git'}"
    folder = install_neox(place, expected)
    assert folder == cache_folder() == find_neox() == cache / "gpt-neox"
    assert (commit_of(folder), number(folder)) == (expected, "second")
    assert sorted(path.name for path in cache.iterdir()) == ["gpt-neox", "gpt-neox.lock"]


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize(("ref", "content"), [("first", "first"), ("second", "second"), ("main", "third")])
def test_a_ref_may_be_a_tag_or_a_branch(ref: str, content: str, scheme: str, source: Path) -> None:
    assert number(install_neox(f"{scheme}{source}", ref)) == content
    assert number(install_neox("https://127.0.0.1:1/x.git", ref)) == content  # installed already


def test_a_second_install_of_the_same_commit_does_not_contact_the_source(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = git(source, "rev-parse", "main")
    folder = install_neox(str(source), expected)
    (folder / "mine.txt").write_text("kept", encoding="utf-8")
    capsys.readouterr()
    install_neox("https://127.0.0.1:1/x.git", expected)
    assert capsys.readouterr().out == f"GPT-NeoX is at {expected} in {folder} already\n"
    assert (folder / "mine.txt").read_text(encoding="utf-8") == "kept"


def test_another_commit_is_refused_with_both_named_and_nothing_is_changed(source: Path) -> None:
    first, third = git(source, "rev-parse", "first"), git(source, "rev-parse", "main")
    folder = install_neox(str(source), third)
    with pytest.raises(KislError, match=rf"{third}, not GPT-NeoX at {first}; delete or move .* GPT_NEOX_DIR"):
        install_neox(str(source), first)
    assert (commit_of(folder), number(folder)) == (third, "third")
    own = commit_after_change(folder)
    with pytest.raises(KislError, match=own):
        install_neox(str(source), third)
    assert number(folder) == "mine"


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize("ref", ["no-such-branch", "0" * 39 + "1", "abcdef12", "--upload-pack=touch"])
def test_a_commit_that_the_source_lacks_is_named_and_leaves_nothing(
    ref: str, scheme: str, source: Path, cache: Path
) -> None:
    with pytest.raises(KislError, match=re.escape(repr(ref))):
        install_neox(f"{scheme}{source}", ref)
    assert [path.name for path in cache.glob("*") if path.name != "gpt-neox.lock"] == []


def test_another_project_is_refused_and_leaves_nothing(source: Path, cache: Path) -> None:
    (source / "train.py").unlink()
    with pytest.raises(InputError, match=r"is not GPT-NeoX: it has no train\.py"):
        install_neox(str(source), commit(source, "another project"))
    assert [path.name for path in cache.iterdir()] == ["gpt-neox.lock"]


@pytest.mark.parametrize("place", ["no/such/folder", "plain", "source/megatron", "https://127.0.0.1:1/x.git"])
def test_a_source_without_a_repository_is_refused(
    place: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    monkeypatch.chdir(tmp_path)
    result = call("install", "--source", place, "--ref", "main")
    assert result.exit_code == 1 and "git fetch failed" in result.output and place in result.output
    assert "Traceback" not in result.output and not cache_folder().exists()


def test_a_folder_with_other_files_is_refused_and_kept(source: Path) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / "thesis.txt").write_text("years", encoding="utf-8")
    with pytest.raises(KislError, match="holds no clone of GPT-NeoX"):
        install_neox(str(source), "main")
    assert (cache_folder() / "thesis.txt").read_text(encoding="utf-8") == "years"


def test_a_copy_without_gits_data_is_left_as_it_is(source: Path) -> None:
    shutil.copytree(source, cache_folder(), ignore=shutil.ignore_patterns(".git"))
    with pytest.raises(KislError, match="holds no clone of GPT-NeoX"):
        install_neox(str(source), "first")
    assert number(cache_folder()) == "third"


def test_a_killed_install_leaves_no_partial_clone_and_can_be_repeated(source: Path, tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *checkout*) kill -9 $PPID; exit 1;; esac\nexec {shutil.which("git")} "$@"\n',
        encoding="utf-8",
    )
    fake.chmod(0o755)
    command = [sys.executable, "-m", "kisl_plugin", "neox", "install", "--source", str(source), "--ref", "main"]
    env = {**os.environ, "PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}"}
    killed = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(KislError, match="kisl neox install"):
        find_neox()
    assert number(install_neox(str(source), "main")) == "third"


def test_a_second_install_at_the_same_time_is_refused(source: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    with (cache / "gpt-neox.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(KislError, match="another kisl neox install is running"):
            install_neox(str(source), "main")


def test_the_users_own_clone_is_preferred_to_the_cache(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_neox(str(source), "first")
    monkeypatch.setenv("GPT_NEOX_DIR", str(source))
    assert find_neox() == source
    result = call("install", "--ref", "main")
    assert result.exit_code == 2 and "GPT_NEOX_DIR is set" in result.output
    assert number(cache_folder()) == "first"


def test_a_variable_that_names_another_folder_is_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_neox(str(source), "main")
    monkeypatch.setenv("GPT_NEOX_DIR", str(tmp_path))
    with pytest.raises(KislError, match=rf"{re.escape(str(tmp_path))} \(\$GPT_NEOX_DIR\), which has no deepy\.py"):
        find_neox()


def test_a_relative_cache_is_ignored_as_the_standard_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_folder() == Path.home() / ".cache" / "kisl" / "gpt-neox"


def test_the_commit_is_that_of_the_folder_not_of_one_around_it(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(source) == git(source, "rev-parse", "main")
    assert commit_of(source / "megatron") is None
    monkeypatch.setenv("GIT_DIR", str(source / ".git"))  # as in a git hook
    assert commit_of(source / "megatron") is None


def test_the_commit_is_unknown_without_git(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit_of(source) is None
    with pytest.raises(KislError, match="git was not found"):
        install_neox(str(source), "main")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to another user")
def test_the_commit_of_another_users_folder_is_read(source: Path) -> None:
    expected = git(source, "rev-parse", "HEAD")
    for path in (source, *source.rglob("*")):
        os.chown(path, 12345, 12345)
    assert commit_of(source) == expected


def test_a_missing_compiler_is_named_with_how_to_get_one(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(KislError, match="compiler no-such-compiler was not found"):
        ensure_helpers(source)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(KislError, match="apt install g"):
        ensure_helpers(source)


def test_a_check_without_gpt_neox_fails_and_prints_what_is_missing() -> None:
    result = call("check")
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert last.startswith("Error: GPT-NeoX was not found") and last.endswith("kisl neox install")


def test_the_extra_holds_every_needed_package() -> None:
    tomllib = pytest.importorskip("tomllib")
    extra = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["neox"]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in extra}
    assert set(NEEDED) - {"numpy"} <= names  # numpy is the core's
