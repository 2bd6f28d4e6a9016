"""What GPT-NeoX imports: found by leaving each package out and seeing what fails."""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from kisl_plugin.neox.home import VARIABLE

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
