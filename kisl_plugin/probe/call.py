"""What a call of the probe asks for, checked before the first model is loaded."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kisl_plugin.errors import InputError
from kisl_plugin.resources import resource

GROUP_FILE = "kisl_wikidata/kisl.yaml"


def model_folder(model: Path) -> Path:
    """The folder of a Hugging Face model, absolute."""
    if not (model / "config.json").is_file():
        raise InputError(f"{model}: no config.json; expected the folder of a Hugging Face model")
    return model.resolve()


def task_manager() -> Any:
    """lm_eval's TaskManager with the tasks of this package only."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(f"lm_eval: {error}; pip install 'kisl-plugin[eval]'") from None
    return TaskManager(include_path=str(resource("tasks")), include_defaults=False)


def distinct_tasks(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The tasks that are named, each once: lm_eval refuses one that is also in a group that is asked."""
    if not names:
        raise InputError(f"no task is named; expected one of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise InputError(f"task {name!r} is unknown; expected one of {', '.join(known)}")
    group = yaml.safe_load((resource("tasks") / GROUP_FILE).read_text(encoding="utf-8"))
    contained = group["task"] if group["group"] in names else []
    return [name for name in dict.fromkeys(names) if name not in contained]


def usable_device(asked: str | None) -> str:
    """The device asked for, else cuda where there is one: lm_eval takes another in silence where that is missing."""
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise InputError(f"--device {asked!r} is unknown; expected cpu, cuda or cuda:0") from None
    index = device.index or 0
    if not 0 <= index < _device_count(device.type):
        raise InputError(f"--device {asked!r}: PyTorch sees no such device here; leave it out to use what there is")
    return "cpu" if device.type == "cpu" else f"{device.type}:{index}"  # lm_eval knows no bare xpu, and no cpu:0


def _device_count(kind: str) -> int:
    import torch

    if kind in ("cpu", "mps"):
        return int(kind == "cpu" or torch.backends.mps.is_available())
    accelerator = getattr(torch, kind, None)  # torch.cuda, torch.xpu, …; none for meta
    count: int = accelerator.device_count() if accelerator is not None and accelerator.is_available() else 0
    return count


def make_output(output: Path) -> None:
    """Make the folder, and write a file in it that is removed again: lm_eval would only fail after the last answer."""
    if output.suffix == ".json":
        raise InputError(f"{output}: the output is a folder; choose a name that does not end in .json")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made a folder ({error.strerror}); choose another output") from None
    try:
        with tempfile.TemporaryFile(dir=output) as file:
            file.write(b"\n")
    except OSError as error:
        raise InputError(f"{output}: cannot be written to ({error.strerror}); choose another output") from None
