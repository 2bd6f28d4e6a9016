"""GPT-NeoX's data helpers, compiled for the Python that runs.

GPT-NeoX compiles them with make at every start, for the `python3` and `python3-config` of the PATH. Where those belong
to another Python the file gets another name, or none, and training ends in an ImportError.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from kisl_plugin.errors import KislError

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
