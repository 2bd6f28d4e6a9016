"""The command `deepy.py`: checks a run, then hands it to GPT-NeoX's own deepy.py and DeepSpeed's launcher."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import IO, Any

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.neox.arguments import add_kisl_field, refuse_unknown_keys, refuse_wrong_types
from kisl_plugin.neox.compat import provide_pkg_resources
from kisl_plugin.neox.cpu import (
    ACCELERATOR,
    PATCHES,
    REQUEST,
    choose_device,
    patch_cuda,
    refuse_gpu_kernels,
    settle_on_cpu,
)
from kisl_plugin.neox.helpers import ensure_helpers
from kisl_plugin.neox.home import VARIABLE
from kisl_plugin.neox.layouts import refuse_probe_inside
from kisl_plugin.neox.paths import read_command_line
from kisl_plugin.neox.ports import claim_port
from kisl_plugin.neox.preflight import check_run, find_everything
from kisl_plugin.neox.watch import watched
from kisl_plugin.settings import read_settings
from kisl_plugin.yamls import Yamls, read_yamls

WORKERS = Path(__file__).parent / "workers"
JOBS = ("train", "generate", "eval")
# Workers on other nodes are given the variables that begin so.
EXPORTED = (VARIABLE, "KISL_")
PROBE = "lm_eval --tasks kisl_wikidata --model hf --model_args pretrained=MODEL"
USAGE = """usage: deepy.py train|generate|eval CONFIG.yml [MORE.yml …] [options of GPT-NeoX's deepy.py]

Trains with an unmodified GPT-NeoX, found at $GPT_NEOX_DIR or where `kisl neox install` put it. A `kisl` section
in a YAML says which triples are injected, and how often. KISL_CPU=1 trains on the CPU where there is a GPU.

Example: deepy.py train neox_configs/tiny_f20.yml"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; exit status 2 for a wrong call or input, 1 for a failure."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if given else 2)
    try:
        launch(given[0], given[1:])
    except KislError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


def launch(script: str, arguments: list[str]) -> None:
    """Run `script` (train, generate, eval, with or without .py, or a file of the user's) with GPT-NeoX.

    Raises:
        KislError: something is missing or wrong, and nothing has been started; or the launch itself failed.
    """
    job, line = _job(script), read_command_line(arguments)
    if not line.configs:
        raise InputError(f"deepy.py {script}: no YAML is given, for example: deepy.py train neox_configs/tiny_f20.yml")
    yamls = read_yamls(line.configs)
    if job == "train" and "kisl" in yamls.values:
        read_settings(yamls.values["kisl"], yamls.file_of("kisl"), 0)
    folder = find_everything(yamls, job == "train")
    on_cpu = _runs_on_cpu(yamls, line.hostfile)
    if on_cpu:
        refuse_gpu_kernels(yamls)
        os.environ[ACCELERATOR] = "cpu"
    _import_neox(folder)
    ensure_helpers(folder)
    if on_cpu:
        patch_cuda(_processes(yamls))
        print(f"no GPU: GPT-NeoX is patched to train on the CPU ({'; '.join(PATCHES)})")
    neox_args_class = add_kisl_field()
    refuse_unknown_keys(yamls, neox_args_class)
    refuse_wrong_types(yamls, neox_args_class)
    launch_ = Launch(job, yamls, on_cpu)
    _settle_before_launch(neox_args_class, launch_.settle, yamls.where)
    _start(folder, [str(WORKERS / f"{job}.py") if job else script, *arguments])
    if launch_.saved:
        print(f"kisl: next: kisl export {launch_.saved} MODEL, and then: {PROBE}")


@dataclass
class Launch:
    """One launch. `locks` keep its port while the launcher lives; `saved` is where an injected run's model will be."""

    job: str | None
    yamls: Yamls
    on_cpu: bool
    locks: list[IO[str]] = field(default_factory=list)
    saved: str | None = None

    def settle(self, neox_args: Any) -> None:
        """Called by GPT-NeoX once it has read the configuration, before anything is started."""
        refuse_probe_inside(neox_args)
        if self.on_cpu:
            settle_on_cpu(neox_args)
        if "master_port" not in self.yamls.values and neox_args.hostfile is None:
            port, lock = claim_port()
            self.locks.append(lock)
            neox_args.update_value("master_port", port)
        if self.job == "train":
            check_run(neox_args)
            self.saved = neox_args.save if neox_args.kisl is not None else None


def _job(script: str) -> str | None:
    """train, generate or eval, named so or by GPT-NeoX's own script; None for a script of the user's."""
    path = Path(script)
    name = path.name.removesuffix(".py")
    is_neoxs = str(path) == path.name or (path.parent / "megatron").is_dir()
    return name if name in JOBS and is_neoxs else None


@contextmanager
def _naming_what_is_missing() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise KislError(
            f"{error}; GPT-NeoX needs it: pip install 'kisl-plugin[neox]' (kisl neox check lists what is missing)"
        ) from None


def _import_neox(folder: Path) -> None:
    provide_pkg_resources()
    sys.path.insert(0, str(folder))
    with _naming_what_is_missing():
        import deepspeed.launcher.runner  # noqa: F401
        import megatron.neox_arguments  # noqa: F401


def _runs_on_cpu(yamls: Yamls, hostfile: str | None) -> bool:
    """With a hostfile the run's GPUs are those of other machines: there each worker looks for itself."""
    with _naming_what_is_missing():
        without_cuda = choose_device()
    return without_cuda and (os.environ.get(REQUEST) == "1" or not _has_hostfile(yamls, hostfile))


def _has_hostfile(yamls: Yamls, given: str | None) -> bool:
    default = os.environ.get("DLTS_HOSTFILE", "/job/hostfile")
    return bool(given or yamls.values.get("hostfile")) or Path(default).is_file()


def _processes(yamls: Yamls) -> int:
    count = yamls.values.get("num_gpus")
    return count if isinstance(count, int) and count > 0 else 1


def _settle_before_launch(neox_args_class: Any, settle: Callable[[Any], None], where: str) -> None:
    """Have GPT-NeoX's own reading of the configuration followed by `settle`, and its refusals told in one line."""
    consume = neox_args_class.consume_deepy_args

    def consume_deepy_args(input_args: list[str] | None = None) -> Any:
        try:
            neox_args = consume(input_args)
        except KislError:
            raise
        except ImportError as error:
            raise InputError(
                f"{where}: GPT-NeoX lacks a package for this configuration: {_in_one_line(error)}; install it, or "
                "change the key (without flash-attn, set attention_config to global)"
            ) from None
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: GPT-NeoX refuses this configuration: {_in_one_line(error)}") from None
        settle(neox_args)
        return neox_args

    neox_args_class.consume_deepy_args = consume_deepy_args


def _in_one_line(error: Exception) -> str:
    """The error and the line of GPT-NeoX that raised it, which often says more than the error does."""
    raised = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{said} ({Path(raised.filename).name}, line {raised.lineno}: {raised.line})"


def _start(folder: Path, arguments: list[str]) -> None:
    import deepspeed.launcher.runner as runner

    os.environ[VARIABLE] = str(folder)
    runner.EXPORT_ENVS.extend(EXPORTED)
    try:
        with watched(runner):
            _deepy(folder).main(arguments)
    except KislError:
        raise
    except (KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        # No such launcher, no host reached, a variable of Slurm's missing.
        raise KislError(f"the launch failed: {_in_one_line(error)}") from error


def _deepy(folder: Path) -> Any:
    """GPT-NeoX's deepy.py as a module; this command's own file has the same name."""
    spec = util.spec_from_file_location("gpt_neox_deepy", folder / "deepy.py")
    if spec is None or spec.loader is None:
        raise KislError(f"{folder / 'deepy.py'}: cannot be loaded")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
