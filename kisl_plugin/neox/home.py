"""Where GPT-NeoX is: the user's own clone, or the one that `kisl neox install` made."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from kisl_plugin.errors import KislError

# git, asked from outside: about one folder alone, and without stopping at a question.

# What a calling git (a hook, say) tells its children; it would redirect ours to another repository.
LOCAL_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in `folder`, never in a repository around it; output is captured, a failure is the caller's to read.

    A folder of another user, as in a container, is read all the same ("dubious ownership"), and a server that asks
    for a password is a failure. Raises FileNotFoundError where there is no git.
    """
    environment = {name: value for name, value in os.environ.items() if name not in LOCAL_VARIABLES}
    environment |= {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    # No program that the folder's own configuration names is run.
    settings = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    command = ["git", *settings, "-C", str(folder), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


# Where GPT-NeoX is: the user's own clone, or the one that `kisl neox install` made.

TESTED_COMMIT = "ea7aefd8f8e183256992d9fede4d7c71a46d67a5"
VARIABLE = "GPT_NEOX_DIR"
INSTALL = "kisl neox install"
# One of these is missing in any folder that is not GPT-NeoX.
LANDMARKS = ("deepy.py", "train.py", "megatron/training.py")


def cache_folder() -> Path:
    """Where `kisl neox install` puts GPT-NeoX; it need not exist."""
    # The XDG specification: a path that is not absolute is to be ignored.
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "kisl" / "gpt-neox"


def named_folder() -> Path | None:
    """The folder that `$GPT_NEOX_DIR` names, absolute, whatever it holds; None where it is not set."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else None


def find_neox() -> Path:
    """The folder of GPT-NeoX, absolute: `$GPT_NEOX_DIR`, else the cache folder.

    Raises KislError (exit status 1) where it is not there, naming the place and `kisl neox install`.
    """
    named = named_folder()
    if named is not None:
        return _own_clone(named)
    folder = cache_folder()
    if missing_landmark(folder) is None:
        return folder
    raise KislError(f"GPT-NeoX was not found: ${VARIABLE} is not set and {folder} does not hold it; run: {INSTALL}")


def missing_landmark(folder: Path) -> str | None:
    """The first file of GPT-NeoX that `folder` lacks; None where it holds GPT-NeoX."""
    return next((name for name in LANDMARKS if not (folder / name).is_file()), None)


def commit_of(folder: Path) -> str | None:
    """The commit that is checked out in `folder`; None where git or its data are not there (a download, a copy)."""
    try:
        asked = git(folder, "rev-parse", "--verify", "HEAD")
    except OSError:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def changed_files(folder: Path) -> list[str]:
    """The files of GPT-NeoX that differ from the commit checked out in `folder`; none where that is unknown."""
    if commit_of(folder) is None:
        return []
    lines = git(folder, "status", "--porcelain", "--untracked-files=no").stdout.splitlines()
    return [line[3:] for line in lines]


def _own_clone(folder: Path) -> Path:
    missing = missing_landmark(folder)
    if missing is not None:
        raise KislError(
            f"${VARIABLE}: {folder} holds no GPT-NeoX ({missing} is missing); set it to a clone of GPT-NeoX, "
            f"or unset it and run: {INSTALL}"
        )
    return folder


# What GPT-NeoX imports: found by leaving each package out and seeing what fails.

GET_NEEDED = "pip install 'kisl-plugin[neox]'"
# What every worker does first; it imports all that training imports.
PREPARE = "from kisl_plugin.neox.worker import prepare; prepare()"
COLOURS = ("FORCE_COLOR", "PYTHON_COLORS")


@dataclass(frozen=True)
class Package:
    """A distribution, the module it is imported as, and what stops without it."""

    distribution: str
    module: str
    without: str

    @property
    def version(self) -> str | None:
        """The installed version; "?" where the module came without one, None where there is no module."""
        if find_spec(self.module) is None:
            return None
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return "?"


# Without one of these megatron.training cannot be imported, or the helpers cannot be compiled.
NEEDED = (
    Package("numpy", "numpy", "everything"),
    Package("torch", "torch", "training"),
    Package("deepspeed", "deepspeed", "training"),
    Package("transformers", "transformers", "the tokenizers"),
    Package("tokenizers", "tokenizers", "the tokenizers"),
    Package("sentencepiece", "sentencepiece", "the tokenizers"),
    Package("requests", "requests", "training"),
    Package("packaging", "packaging", "training"),
    Package("pybind11", "pybind11", "compiling the data helpers"),
)
# In the extra too: GPT-NeoX's own requirements, which only these parts of it import.
TOOLS = (
    Package("lm_dataformat", "lm_dataformat", "GPT-NeoX's tools/datasets"),
    Package("ftfy", "ftfy", "GPT-NeoX's tools/datasets"),
    Package("tiktoken", "tiktoken", "tokenizer_type: TiktokenTokenizer"),
)
OPTIONAL = (
    Package("flash-attn", "flash_attn", "attention flash, use_flashattn_swiglu (GPU)"),
    Package("apex", "apex", "layernorm_fusion, and apex's Adam (GPU)"),
    Package("transformer-engine", "transformer_engine", "the te_… keys (GPU)"),
    Package("tensorboard", "tensorboard", "tensorboard_dir"),
    Package("wandb", "wandb", "use_wandb"),
    Package("mpi4py", "mpi4py", "deepspeed_mpi, launchers openmpi, mvapich"),
    Package("lm-eval", "lm_eval", "deepy.py eval.py, lm_eval, kisl probe"),
)


def missing() -> list[str]:
    """The needed distributions that are not installed here."""
    return [package.distribution for package in NEEDED if package.version is None]


def import_failure(neox: Path) -> str | None:
    """The error with which a worker's imports of `neox` end, in one line; None where they work. Takes seconds."""
    environment = {key: value for key, value in os.environ.items() if key not in COLOURS} | {VARIABLE: str(neox)}
    tried = subprocess.run(
        [sys.executable, "-c", PREPARE], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if tried.returncode == 0:
        return None
    lines = [line.strip() for line in tried.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with status {tried.returncode}"


# GPT-NeoX's data helpers, compiled for the Python that runs.
#
# GPT-NeoX compiles them with make at every start, for the `python3` and `python3-config` of the PATH. Where those
# belong to another Python the file gets another name, or none, and training ends in an ImportError.

FLAGS = ("-O3", "-Wall", "-shared", "-std=c++11", "-fPIC")  # those of GPT-NeoX's own Makefile
COMPILERS = ("g++", "c++", "clang++")
IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); import helpers; helpers.build_blending_indices"
GET_COMPILER = "apt install g++ · dnf install gcc-c++ · conda install gxx · or set CXX to one"
GET_HEADERS = "apt install python3-dev · dnf install python3-devel · or a Python of conda, uv or pyenv, which has them"


def helpers_file(neox: Path) -> Path:
    """The helpers compiled for this Python; the file need not exist."""
    return neox / "megatron" / "data" / f"helpers{sysconfig.get_config_var('EXT_SUFFIX')}"


def why_unusable(neox: Path) -> str | None:
    """Why the helpers of `neox` do not serve this Python, in a few words; None where they do."""
    compiled, source = helpers_file(neox), _source(neox)
    if not compiled.is_file():
        return "not compiled for this Python"
    if source.is_file() and compiled.stat().st_mtime < source.stat().st_mtime:
        return "older than their source"
    tried = subprocess.run([sys.executable, "-c", IMPORT, str(compiled.parent)], capture_output=True, text=True)
    return None if tried.returncode == 0 else _last_line(tried.stderr)


def ensure_helpers(neox: Path) -> bool:
    """Compile the helpers unless they serve this Python already; returns whether they had to be compiled.

    Raises KislError where that cannot be done: what is missing, and how to get it.
    """
    if why_unusable(neox) is None:
        return False
    _compile(neox)
    reason = why_unusable(neox)
    if reason is not None:
        raise KislError(f"{helpers_file(neox)}: was compiled, and this Python cannot import it: {reason}")
    return True


def _compile(neox: Path) -> None:
    compiled = helpers_file(neox)
    command = [*_compiler(), *FLAGS, *(f"-I{folder}" for folder in _includes()), str(_source(neox))]
    if not os.access(compiled.parent, os.W_OK):
        raise KislError(f"{compiled.parent}: cannot be written to, and the helpers have to be compiled there once")
    draft = compiled.with_name(f"{compiled.name}.{os.getpid()}.draft")
    try:
        made = subprocess.run([*command, "-o", str(draft)], capture_output=True, text=True)
        if made.returncode != 0:
            errors = [line for line in made.stderr.splitlines() if "error" in line.lower()]
            raise KislError(f"{_source(neox)}: did not compile: {(errors or [_last_line(made.stderr)])[0].strip()}")
        draft.replace(compiled)
    finally:
        draft.unlink(missing_ok=True)


def _compiler() -> list[str]:
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen and shutil.which(chosen[0]) is None:
        raise KislError(f"CXX is {shlex.join(chosen)!r}, and there is no such program; unset it, or {GET_COMPILER}")
    found = next(filter(shutil.which, COMPILERS), None)
    if not chosen and found is None:
        raise KislError(f"no C++ compiler was found (looked for {', '.join(COMPILERS)}): {GET_COMPILER}")
    return chosen or [str(found)]


def _includes() -> list[str]:
    paths = sysconfig.get_paths()
    if not (Path(paths["include"]) / "Python.h").is_file():
        raise KislError(f"{paths['include']}: Python.h is missing, this Python came without its headers: {GET_HEADERS}")
    if find_spec("pybind11") is None:
        raise KislError("pybind11 is not installed, and the helpers are compiled with it: pip install pybind11")
    import pybind11

    return [paths["include"], paths["platinclude"], pybind11.get_include()]


def _source(neox: Path) -> Path:
    return neox / "megatron" / "data" / "helpers.cpp"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
