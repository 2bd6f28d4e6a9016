"""GPT-NeoX at one commit, in the cache folder: whole or not there, and never at the cost of somebody's changes."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import hold_lock
from kisl_plugin.neox.home import (
    TESTED_COMMIT,
    VARIABLE,
    cache_folder,
    changed_files,
    commit_of,
    find_neox,
    git,
    missing_landmark,
    named_folder,
)

UPSTREAM = "https://github.com/EleutherAI/gpt-neox.git"
HASH, FULL_HASH = re.compile(r"[0-9a-f]{4,40}"), re.compile(r"[0-9a-f]{40}")
# How git says that a source lacks what was asked for: a commit, a name.
NOT_THERE, NO_NAME = "not our ref", "couldn't find remote ref"
REASONS = ("fatal:", "error:", "remote: fatal:", "remote: error:")
# scheme://… or host:path, which git takes for ssh
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[^/\s]+:[^/]")
TRUST = "if you trust its owner: git config --global --add safe.directory, with that path"
MARK = "refs/kisl/"  # keeps what was installed reachable, and tells commits of one's own from it
BRANCHES = "refs/kisl-source/"

Say = Callable[[str], None]


def set_up(source: str | None, ref: str | None, say: Say = print) -> Path:
    """The folder of GPT-NeoX: the user's own, which is left as it is, or the cache folder after `install`.

    Raises InputError where `$GPT_NEOX_DIR` is set and yet a source or a ref is asked for; else what `install` raises.
    """
    if named_folder() is None:
        return install(source or UPSTREAM, TESTED_COMMIT if ref is None else ref, say)
    folder = find_neox()
    if source or ref:
        raise InputError(
            f"{VARIABLE} is set to {folder}, a clone of yours that is left as it is; unset it to install another"
        )
    say(f"{VARIABLE} is set: GPT-NeoX is used as it is in {folder}")
    return folder


def install(source: str = UPSTREAM, ref: str = TESTED_COMMIT, say: Say = print) -> Path:
    """Bring GPT-NeoX at `ref` (commit, tag or branch) from `source` (URL or path) to the cache folder; returns it.

    What is there already stays where it is at `ref`; a path as `source` needs no network.

    Raises:
        InputError: `source` or `ref` is not one, or `source` does not hold `ref`.
        KislError: no git, no connection, another install is running, or the folder holds changes that would be lost.
    """
    if shutil.which("git") is None:
        raise KislError(
            "git was not found, and GPT-NeoX comes from a git repository: apt install git · dnf install git"
        )
    place = _place(source)
    if not ref or ref.startswith("-"):
        raise InputError(f"--ref {ref!r}: expected a commit, a tag or a branch of {source}")
    folder = cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder.with_name(f"{folder.name}.lock"), "another kisl neox install is running"):
        if folder.is_dir() and any(folder.iterdir()):
            _move(folder, place, ref, say)
        else:
            _clone(folder, place, ref, say)
    return folder


def _clone(folder: Path, place: str, ref: str, say: Say) -> None:
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of an install that was killed
    say(f"cloning GPT-NeoX at {ref} from {place} …")
    try:
        _ask(draft.parent, "init", "--quiet", draft.name)
        commit = _fetch(draft, place, ref)
        _check_out(draft, commit)
        missing = missing_landmark(draft)
        if missing is not None:
            raise InputError(f"{place} at {ref} is not GPT-NeoX: it has no {missing}")
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    say(f"GPT-NeoX is at {commit} in {folder}")


def _move(folder: Path, place: str, ref: str, say: Say) -> None:
    """Check `ref` out in what an earlier call installed."""
    missing, old = missing_landmark(folder), commit_of(folder)
    if missing is not None:
        raise KislError(
            f"{folder} is in the way: it holds something, but no GPT-NeoX ({missing} is missing); move it away"
        )
    if old is None:
        raise KislError(f"{folder} is no git clone, so its commit is unknown; move it away, or set GPT_NEOX_DIR to it")
    if ref != old:
        _check_nothing_is_lost(folder, old)
        ref = _fetch(folder, place, ref)
    if ref == old:
        say(f"GPT-NeoX is at {ref} in {folder} already")
        return
    _check_out(folder, ref)
    say(f"GPT-NeoX was at {old} and is at {ref} in {folder} now")


def _fetch(folder: Path, place: str, ref: str) -> str:
    """Have `ref` in `folder`'s objects; returns its full hash. One commit where the server gives it, else all."""
    if FULL_HASH.fullmatch(ref) and _resolve(folder, ref):
        return ref
    wanted = _resolve(Path(place), ref) if Path(place).is_dir() else ref
    if wanted is None:
        raise _lacks(place, ref)
    one = git(folder, "fetch", "--quiet", "--depth", "1", "--no-tags", "--", place, wanted)
    if one.returncode == 0:
        return _ask(folder, "rev-parse", "--verify", "FETCH_HEAD^{commit}")
    if not HASH.fullmatch(ref) or NOT_THERE in one.stderr:
        raise _lacks(place, ref) if NOT_THERE in one.stderr or NO_NAME in one.stderr else _failed(folder, "fetch", one)
    return _fetch_all(folder, place, ref)


def _fetch_all(folder: Path, place: str, ref: str) -> str:
    """A short hash, or a server that does not give single commits."""
    _ask(folder, "fetch", "--quiet", *_unshallow(folder), "--", place, f"+refs/heads/*:{BRANCHES}*")
    commit = _resolve(folder, ref)
    if commit is None:
        raise _lacks(place, ref)
    return commit


def _check_nothing_is_lost(folder: Path, head: str) -> None:
    changed = changed_files(folder)
    if changed:
        names = ", ".join(changed[:3]) + (" …" if changed[3:] else "")
        raise KislError(
            f"{folder} has changes that another commit would overwrite ({names}); keep them elsewhere, or drop them: "
            f"git -C {folder} checkout -- ."
        )
    if not _ask(folder, "for-each-ref", "--count=1", f"--contains={head}"):
        raise KislError(
            f"{folder}: {head} is a commit of its own that no branch holds; keep it: git -C {folder} branch mine"
        )


def _check_out(folder: Path, commit: str) -> None:
    _ask(folder, "checkout", "--quiet", "--detach", commit)
    _ask(folder, "update-ref", f"{MARK}{commit}", commit)


def _resolve(folder: Path, ref: str) -> str | None:
    found = git(folder, "rev-parse", "--quiet", "--verify", "--end-of-options", f"{ref}^{{commit}}")
    return found.stdout.strip() if found.returncode == 0 else None


def _unshallow(folder: Path) -> list[str]:
    return ["--unshallow"] if _ask(folder, "rev-parse", "--is-shallow-repository") == "true" else []


def _ask(folder: Path, *arguments: str) -> str:
    asked = git(folder, *arguments)
    if asked.returncode != 0:
        raise _failed(folder, arguments[0], asked)
    return asked.stdout.strip()


def _failed(folder: Path, command: str, asked: CompletedProcess[str]) -> KislError:
    lines = [line.strip() for line in asked.stderr.splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith(REASONS)), lines[-1] if lines else "no reason given")
    hint = f"; {TRUST}" if "dubious ownership" in said else ""
    return KislError(f"git {command} failed in {folder}: {said}{hint}")


def _lacks(place: str, ref: str) -> InputError:
    return InputError(f"{place} has no commit, tag or branch {ref!r}")


def _place(source: str) -> str:
    path = Path(source).expanduser()
    if path.exists():
        if git(path, "rev-parse", "--git-dir").returncode != 0:
            raise InputError(
                f"--source {source}: is no git repository; a plain copy of GPT-NeoX is used by GPT_NEOX_DIR"
            )
        return str(path.resolve())
    if not URL.match(source):
        raise InputError(f"--source {source!r}: there is no such path, and it is no URL")
    return source
