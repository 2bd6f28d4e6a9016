"""Where GPT-NeoX is, how it gets there, and what it needs: packages, and data helpers compiled for this Python."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from kisl_plugin.errors import InputError, KislError, error_line, needs_extra
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
# The first statement of every worker; it imports all that training imports.
PREPARE = "from kisl_plugin.neox.worker import prepare_process; prepare_process()"

# ---- git, run in one folder and without ever waiting for an answer

# A calling git (a hook) sets these for its children; they would redirect our commands to its repository.
_REPOSITORY = "GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR GIT_PREFIX".split()


def _git(folder: Path, *arguments: str, check: bool = True) -> str:
    """What git prints, run in `folder` and never in a repository around it; "" where it fails and `check` is False.

    Raises KislError with git's own reason where it fails, and FileNotFoundError where git is not installed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _REPOSITORY}
    environment |= {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    # A folder of another user (a container's) is read too, and no program that its own configuration names is run.
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        return done.stdout.strip()
    if not check:
        return ""
    reasons = [line for line in done.stderr.splitlines() if re.match(r"(remote: )?(fatal|error):", line)]
    reason = reasons[0] if reasons else error_line(done.stderr.splitlines())
    raise KislError(f"git {arguments[0]} failed in {folder}: {reason}")


# ---- where GPT-NeoX is: the user's own clone, or the one in the cache folder


def cache_folder() -> Path:
    """Where `kisl neox install` puts GPT-NeoX; it need not exist."""
    # The XDG specification: a path that is not absolute is to be ignored.
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "kisl" / "gpt-neox"


def _missing_landmark(folder: Path) -> str | None:
    """The first file of GPT-NeoX that `folder` lacks; None where it holds GPT-NeoX."""
    return next((name for name in LANDMARKS if not (folder / name).is_file()), None)


def find_neox() -> Path:
    """The folder of GPT-NeoX, absolute: `$GPT_NEOX_DIR`, else the cache folder.

    Raises:
        KislError: GPT-NeoX is not there (exit status 1).
    """
    own = os.environ.get(VARIABLE)
    folder = Path(own).expanduser().absolute() if own else cache_folder()
    missing = _missing_landmark(folder)
    if missing is not None:
        raise KislError(
            f"GPT-NeoX was not found in {folder}{f' (${VARIABLE})' if own else ''}, which has no {missing}; set "
            f"{VARIABLE} to a clone of GPT-NeoX, or leave it unset and run: {INSTALL}"
        )
    return folder


def commit_of(folder: Path) -> str | None:
    """The commit that is checked out in `folder`; None where git or its data are not there (a download, a copy)."""
    try:
        return _git(folder, "rev-parse", "--quiet", "--verify", "HEAD", check=False) or None
    except OSError:
        return None


# ---- installing it: whole or not at all, and never over what the cache folder holds


def install_neox(source: str | None = None, ref: str | None = None) -> Path:
    """Bring GPT-NeoX at `ref` (full hash, tag or branch) from `source` (URL or path) to the cache folder; returns it.

    By default the tested commit from its public address. An installation at `ref` is left as it is, and so is a clone
    that `$GPT_NEOX_DIR` names, which is returned. A path as `source` needs no network.

    Raises:
        InputError: `source` at `ref` is not GPT-NeoX, or `$GPT_NEOX_DIR` is set as well.
        KislError: no git, `ref` cannot be fetched, another install is running, or the folder holds something else.
    """
    if os.environ.get(VARIABLE):
        folder = find_neox()
        if source or ref:
            raise InputError(f"{VARIABLE} is set to {folder}, which is left as it is; unset it to install another")
        print(f"{VARIABLE} is set: GPT-NeoX is used as it is in {folder}", flush=True)
        return folder
    source, ref = source or UPSTREAM, ref or TESTED_COMMIT
    if shutil.which("git") is None:
        raise KislError("git was not found, and GPT-NeoX is installed from a git repository; install git")
    if Path(source).expanduser().exists():
        source = str(Path(source).expanduser().resolve())
    folder = cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder.with_name(f"{folder.name}.lock"), "another kisl neox install is running"):
        if folder.is_dir() and any(folder.iterdir()):
            commit = None if _missing_landmark(folder) else commit_of(folder)
            # What was installed as `ref`, a branch for example, is still the commit that is checked out.
            installed = _git(folder, "rev-parse", "--quiet", "--verify", f"refs/kisl/{ref}", check=False)
            if commit is None or commit not in (ref, installed):
                raise KislError(
                    f"{folder} holds {f'GPT-NeoX at {commit}' if commit else 'no clone of GPT-NeoX'}, not GPT-NeoX at "
                    f"{ref}; delete or move that folder, or set {VARIABLE} to the clone to use"
                )
            print(f"GPT-NeoX is at {commit} in {folder} already", flush=True)
            return folder
        draft = folder.with_name(f"{folder.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)  # left by an install that was killed
        print(f"cloning GPT-NeoX at {ref} from {source} …", flush=True)
        try:
            _git(draft.parent, "init", "--quiet", draft.name)
            commit = _fetch(draft, source, ref)
            _git(draft, "checkout", "--quiet", "--detach", commit)
            _git(draft, "update-ref", f"refs/kisl/{ref}", commit)
            missing = _missing_landmark(draft)
            if missing is not None:
                raise InputError(f"{source} at {ref} is not GPT-NeoX: it has no {missing}")
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    print(f"GPT-NeoX is at {commit} in {folder}", flush=True)
    return folder


def _fetch(folder: Path, source: str, ref: str) -> str:
    """Have the one commit `ref` in `folder`'s objects; returns its full hash."""
    try:
        _git(folder, "fetch", "--quiet", "--depth", "1", "--no-tags", "--", source, ref)
        return _git(folder, "rev-parse", "--verify", "FETCH_HEAD^{commit}")
    except KislError as error:
        raise KislError(
            f"{source} at {ref!r} cannot be fetched: {error}; expected a full hash, a tag or a branch as "
            f"--ref; or set {VARIABLE} to a clone of yours"
        ) from None


# ---- the packages that GPT-NeoX imports: found by leaving each one out and looking at what fails


def installed_version(distribution: str) -> str | None:
    """The installed version; "?" where a module came without one (a source build), None where there is no module."""
    if find_spec(distribution.replace("-", "_")) is None:
        return None
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "?"


def missing_packages() -> list[str]:
    """The distributions that GPT-NeoX needs and that are not installed."""
    return [name for name in NEEDED if installed_version(name) is None]


def import_failure(neox: Path) -> str | None:
    """The error with which a worker's imports of `neox` end, in one line; None where they work. Takes seconds."""
    return _error_of(PREPARE, **{VARIABLE: str(neox), "PYTHON_COLORS": "0"})


def _error_of(program: str, *arguments: str, **variables: str) -> str | None:
    """The last line of the error with which another process of this Python ends; None where it succeeds."""
    command, environment = [sys.executable, "-c", program, *arguments], {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return None if done.returncode == 0 else error_line(done.stderr.splitlines())


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
    return _error_of(load, str(compiled.parent))


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
    with needs_extra("neox", "compiling GPT-NeoX's data helpers"):
        import pybind11
    paths = sysconfig.get_paths()
    flags = ["-O3", "-Wall", "-shared", "-std=c++11", "-fPIC"]  # those of GPT-NeoX's own Makefile
    includes = [f"-I{folder}" for folder in (paths["include"], paths["platinclude"], pybind11.get_include())]
    draft = compiled.with_name(f"{compiled.name}.{os.getpid()}.draft")
    command = [*compiler, *flags, *includes, str(source), "-o", str(draft)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        errors = [line.strip() for line in done.stderr.splitlines() if re.search("error|denied", line.lower())]
        raise KislError(f"{source}: did not compile: {errors[0] if errors else error_line(done.stderr.splitlines())}")
    draft.replace(compiled)
    return True
