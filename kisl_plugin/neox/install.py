"""Where GPT-NeoX is, how it gets there, and what it needs: packages, and data helpers compiled for this Python."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import hold_lock

__all__ = ["find_neox", "install_neox"]

UPSTREAM = "https://github.com/EleutherAI/gpt-neox.git"
TESTED_COMMIT = "ea7aefd8f8e183256992d9fede4d7c71a46d67a5"
VARIABLE = "GPT_NEOX_DIR"
INSTALL = "kisl neox install"
INSTALL_PACKAGES = "pip install 'kisl-plugin[neox]'"
# Any folder that is not GPT-NeoX lacks one of these.
LANDMARKS = ("deepy.py", "train.py", "megatron/training.py")
# Without one of these megatron.training cannot be imported, or the helpers cannot be compiled.
NEEDED = tuple("numpy torch deepspeed transformers tokenizers sentencepiece requests packaging pybind11".split())
OPTIONAL = tuple("flash-attn apex transformer-engine tensorboard wandb mpi4py tiktoken lm-eval".split())
# The first statement of every worker; it imports all that training imports.
PREPARE = "from kisl_plugin.neox.worker import prepare_process; prepare_process()"

# ---- git, run in one folder and without ever waiting for an answer

# A calling git (a hook) sets these for its children; they would redirect our commands to its repository.
_REPOSITORY_VARIABLES = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX",
)  # fmt: skip


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in `folder`, never in a repository around it. Output is captured; the caller reads a failure.

    Raises FileNotFoundError where git is not installed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _REPOSITORY_VARIABLES}
    environment |= {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    # A folder of another user (a container's) is read too, and no program that its own configuration names is run.
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def _git_output(folder: Path, *arguments: str) -> str:
    """What git prints. Raises KislError with git's own reason where it fails."""
    done = _git(folder, *arguments)
    if done.returncode == 0:
        return done.stdout.strip()
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
    reason = next((line for line in lines if re.match(r"(remote: )?(fatal|error):", line)), lines[-1])
    raise KislError(f"git {arguments[0]} failed in {folder}: {reason}")


def _resolve(folder: Path, ref: str) -> str | None:
    done = _git(folder, "rev-parse", "--quiet", "--verify", "--end-of-options", f"{ref}^{{commit}}")
    return done.stdout.strip() if done.returncode == 0 else None


# ---- where GPT-NeoX is: the user's own clone, or the one in the cache folder


def cache_folder() -> Path:
    """Where `kisl neox install` puts GPT-NeoX; it need not exist."""
    # The XDG specification: a path that is not absolute is to be ignored.
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "kisl" / "gpt-neox"


def own_folder() -> Path | None:
    """The folder that `$GPT_NEOX_DIR` names, absolute, whatever it holds; None where the variable is not set."""
    name = os.environ.get(VARIABLE)
    return Path(name).expanduser().absolute() if name else None


def missing_landmark(folder: Path) -> str | None:
    """The first file of GPT-NeoX that `folder` lacks; None where it holds GPT-NeoX."""
    return next((name for name in LANDMARKS if not (folder / name).is_file()), None)


def find_neox() -> Path:
    """The folder of GPT-NeoX, absolute: `$GPT_NEOX_DIR`, else the cache folder.

    Raises:
        KislError: GPT-NeoX is not there (exit status 1).
    """
    own = own_folder()
    folder = own or cache_folder()
    missing = missing_landmark(folder)
    if missing is None:
        return folder
    if own is not None:
        raise KislError(
            f"${VARIABLE}: {folder} is not GPT-NeoX ({missing} is missing); set it to a clone of GPT-NeoX, or unset it "
            f"and run: {INSTALL}"
        )
    raise KislError(f"GPT-NeoX was not found: ${VARIABLE} is not set and {folder} does not hold it; run: {INSTALL}")


def commit_of(folder: Path) -> str | None:
    """The commit that is checked out in `folder`; None where git or its data are not there (a download, a copy)."""
    try:
        return _resolve(folder, "HEAD")
    except OSError:
        return None


def changed_files(folder: Path) -> list[str]:
    """The files of GPT-NeoX that differ from the commit checked out in `folder`, a git clone."""
    return [line[3:] for line in _git(folder, "status", "--porcelain", "--untracked-files=no").stdout.splitlines()]


# ---- installing it: whole or not at all, and never at the cost of changes that somebody made

_FETCHED = "refs/kisl-source/"


def install_neox(source: str | None = None, ref: str | None = None, say: Callable[[str], None] = print) -> Path:
    """Bring GPT-NeoX at `ref` (commit, tag or branch) from `source` (URL or path) to the cache folder; returns it.

    By default the tested commit from its public address. An installation that is at `ref` already is left as it is,
    and so is a clone that `$GPT_NEOX_DIR` names, which is returned. A path as `source` needs no network.

    Raises:
        InputError: `source` or `ref` is not one, `source` does not hold `ref`, or `$GPT_NEOX_DIR` is set as well.
        KislError: no git, no connection, another install is running, or the folder holds changes that would be lost.
    """
    if own_folder() is not None:
        folder = find_neox()
        if source or ref:
            raise InputError(f"{VARIABLE} is set to {folder}, which is left as it is; unset it to install another")
        say(f"{VARIABLE} is set: GPT-NeoX is used as it is in {folder}")
        return folder
    source, ref = source or UPSTREAM, TESTED_COMMIT if ref is None else ref
    if shutil.which("git") is None:
        raise KislError("git was not found, and GPT-NeoX is installed from a git repository; install git")
    if Path(source).expanduser().exists():
        source = str(Path(source).expanduser().resolve())
        if _git(Path(source), "rev-parse", "--git-dir").returncode != 0:
            raise InputError(f"--source {source}: not a git repository; to use a plain copy, set {VARIABLE} to it")
    elif not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|[^/\s]+:[^/]", source):  # scheme://… or host:path
        raise InputError(f"--source {source!r}: there is no such path, and it is no URL")
    if not ref or ref.startswith("-"):
        raise InputError(f"--ref {ref!r}: expected a commit, a tag or a branch of {source}")
    folder = cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder.with_name(f"{folder.name}.lock"), "another kisl neox install is running"):
        if not folder.is_dir() or not any(folder.iterdir()):
            draft = folder.with_name(f"{folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)  # left by an install that was killed
            say(f"cloning GPT-NeoX at {ref} from {source} …")
            try:
                _git_output(draft.parent, "init", "--quiet", draft.name)
                commit = _fetch(draft, source, ref)
                _git_output(draft, "checkout", "--quiet", "--detach", commit)
                missing = missing_landmark(draft)
                if missing is not None:
                    raise InputError(f"{source} at {ref} is not GPT-NeoX: it has no {missing}")
                draft.replace(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            say(f"GPT-NeoX is at {commit} in {folder}")
            return folder
        missing, previous = missing_landmark(folder), commit_of(folder)
        if missing is not None:
            raise KislError(f"{folder} is in the way: it is not empty and not GPT-NeoX ({missing} is missing); move it")
        if previous is None:
            raise KislError(f"{folder} is not a git clone, so its commit is unknown; move it, or set {VARIABLE} to it")
        if ref != previous:
            changed = changed_files(folder)
            if changed:
                raise KislError(
                    f"{folder} has changes that another commit would overwrite ({', '.join(changed[:3])}); keep them "
                    f"elsewhere, or drop them: git -C {folder} checkout -- ."
                )
            ref = _fetch(folder, source, ref)
        if ref == previous:
            say(f"GPT-NeoX is at {ref} in {folder} already")
        else:
            _git_output(folder, "checkout", "--quiet", "--detach", ref)
            say(f"GPT-NeoX was at {previous} and is now at {ref} in {folder}")
    return folder


def _fetch(folder: Path, source: str, ref: str) -> str:
    """Have `ref` in `folder`'s objects; returns its full hash. One commit where the server gives it, else all."""
    if re.fullmatch(r"[0-9a-f]{40}", ref) and _resolve(folder, ref):
        return ref
    if _git(folder, "fetch", "--quiet", "--depth", "1", "--no-tags", "--", source, ref).returncode == 0:
        return _git_output(folder, "rev-parse", "--verify", "FETCH_HEAD^{commit}")
    # A server may refuse single commits, and none knows shortened hashes: look for those among all branches.
    depth = ["--unshallow"] if (folder / ".git" / "shallow").is_file() else []
    _git_output(folder, "fetch", "--quiet", *depth, "--", source, f"+refs/heads/*:{_FETCHED}*")
    commit = _resolve(folder, ref)
    if commit is None:
        raise InputError(f"{source} has no commit, tag or branch {ref!r}")
    return commit


# ---- the packages that GPT-NeoX imports: found by leaving each one out and looking at what fails


def installed_version(distribution: str) -> str | None:
    """The installed version; "?" where a module came without one (a source build), None where there is no module."""
    if find_spec(distribution.replace("-", "_")) is None:
        return None
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "?"


def import_failure(neox: Path) -> str | None:
    """The error with which a worker's imports of `neox` end, in one line; None where they work. Takes seconds."""
    environment = {**os.environ, VARIABLE: str(neox), "PYTHON_COLORS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PREPARE], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return None if done.returncode == 0 else _last_line(done.stderr)


# ---- GPT-NeoX's data helpers, compiled for the Python that runs
#
# GPT-NeoX compiles them with make at every start, for the `python3` and `python3-config` of the PATH. Where those
# belong to another Python the file gets another name, or none, and training ends in an ImportError.


def helpers_file(neox: Path) -> Path:
    """The helpers compiled for this Python; the file need not exist."""
    return neox / "megatron" / "data" / f"helpers{sysconfig.get_config_var('EXT_SUFFIX')}"


def why_unusable(neox: Path) -> str | None:
    """Why this Python cannot use the helpers of `neox`, in a few words; None where it can."""
    compiled, source = helpers_file(neox), neox / "megatron" / "data" / "helpers.cpp"
    if not compiled.is_file():
        return "not compiled for this Python"
    if source.is_file() and compiled.stat().st_mtime < source.stat().st_mtime:
        return "older than their source"
    load = "import sys; sys.path.insert(0, sys.argv[1]); import helpers; helpers.build_blending_indices"
    done = subprocess.run([sys.executable, "-c", load, str(compiled.parent)], capture_output=True, text=True)
    return None if done.returncode == 0 else _last_line(done.stderr)


def ensure_helpers(neox: Path) -> bool:
    """Compile the helpers unless this Python can use them already; returns whether they had to be compiled.

    Raises:
        KislError: that cannot be done; says what is missing, and how to get it.
    """
    if why_unusable(neox) is None:
        return False
    compiled, source = helpers_file(neox), neox / "megatron" / "data" / "helpers.cpp"
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(compiler[0]) is None:
        raise KislError(f"the C++ compiler {compiler[0]} was not found; install one (apt install g++), or set CXX")
    paths = sysconfig.get_paths()
    if not (Path(paths["include"]) / "Python.h").is_file():
        raise KislError(f"{paths['include']}: Python.h is missing; install Python's headers (apt install python3-dev)")
    with needs_extra("neox", "compiling GPT-NeoX's data helpers"):
        import pybind11
    flags = ["-O3", "-Wall", "-shared", "-std=c++11", "-fPIC"]  # those of GPT-NeoX's own Makefile
    includes = [f"-I{folder}" for folder in (paths["include"], paths["platinclude"], pybind11.get_include())]
    draft = compiled.with_name(f"{compiled.name}.{os.getpid()}.draft")
    try:
        done = subprocess.run(
            [*compiler, *flags, *includes, str(source), "-o", str(draft)], capture_output=True, text=True
        )
        if done.returncode != 0:
            errors = [line.strip() for line in done.stderr.splitlines() if re.search("error|denied", line.lower())]
            raise KislError(f"{source}: did not compile: {(errors or [_last_line(done.stderr)])[0]}")
        draft.replace(compiled)
    finally:
        draft.unlink(missing_ok=True)
    reason = why_unusable(neox)
    if reason is not None:
        raise KislError(f"{compiled}: was compiled, and this Python cannot import it: {reason}")
    return True


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
