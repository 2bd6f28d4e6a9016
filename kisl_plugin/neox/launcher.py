"""The command `deepy.py`: checks a run, then hands it to GPT-NeoX's own deepy.py and DeepSpeed's launcher."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import util
from pathlib import Path
from typing import IO, Any

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.neox.arguments import add_kisl_field, refuse_unknown_keys
from kisl_plugin.neox.cards import refuse_other_run
from kisl_plugin.neox.compat import provide_pkg_resources, warn_of_lost_clipping
from kisl_plugin.neox.cpu import PATCHES, choose_device, patch_cuda, settle_on_cpu
from kisl_plugin.neox.files import missing_files
from kisl_plugin.neox.helpers import ensure_helpers
from kisl_plugin.neox.home import INSTALL, VARIABLE, find_neox
from kisl_plugin.neox.layouts import refuse_layouts, refuse_probe_inside
from kisl_plugin.neox.paths import config_paths
from kisl_plugin.neox.planning import describe, plan_of, settings_of, tokenizer_of
from kisl_plugin.neox.ports import claim_port
from kisl_plugin.neox.start import find_start
from kisl_plugin.yamls import Yamls, read_yamls

JOBS = ("train", "generate", "eval")
# Workers on other nodes are given the variables that begin so.
EXPORTED = (VARIABLE, "KISL_", "DS_ACCELERATOR")
USAGE = """usage: deepy.py train|generate|eval CONFIG.yml [MORE.yml …] [options of GPT-NeoX's deepy.py]

Trains with an unmodified GPT-NeoX, found at $GPT_NEOX_DIR or where `kisl neox install` put it. A `kisl` section
in a YAML says which triples are injected, and how often.

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
        KislError: something is missing or wrong; nothing has been started.
    """
    job = script.removesuffix(".py")
    paths = config_paths(arguments)
    if not paths:
        raise InputError(f"deepy.py {script}: no YAML is given, for example: deepy.py train neox_configs/tiny_f20.yml")
    yamls = read_yamls(paths)
    folder = _find_everything(yamls, job)
    without_cuda = choose_device()
    _import_neox(folder)
    ensure_helpers(folder)
    if without_cuda:
        patch_cuda(_processes(yamls))
        print(f"no GPU: GPT-NeoX is patched to train on the CPU ({'; '.join(PATCHES)})")
    neox_args_class = add_kisl_field()
    refuse_unknown_keys(yamls, neox_args_class)
    locks: list[IO[str]] = []

    def settle(neox_args: Any) -> None:
        refuse_probe_inside(neox_args)
        if without_cuda:
            settle_on_cpu(neox_args)
        if "master_port" not in yamls.values and neox_args.hostfile is None:
            port, lock = claim_port()
            locks.append(lock)
            neox_args.update_value("master_port", port)
        if job == "train":
            check_run(neox_args)

    _settle_before_launch(neox_args_class, settle, yamls.where)
    _export_variables(folder)
    worker = Path(__file__).parent / "workers" / f"{job}.py"
    try:
        _deepy(folder).main([str(worker) if job in JOBS else script, *arguments])
    except (KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _as_ours(error) from error


def _find_everything(yamls: Yamls, job: str) -> Path:
    """GPT-NeoX's folder, if all that the run reads is there; else one message names all that is not."""
    missing = missing_files(yamls) if job == "train" else []
    try:
        folder = find_neox()
    except KislError as error:
        if not missing:
            raise
        missing.insert(0, str(error) if os.environ.get(VARIABLE) else f"GPT-NeoX itself · {INSTALL}")
    if missing:
        raise InputError("\n  ".join([f"{yamls.where}: not here yet, each with the command that makes it:", *missing]))
    return folder


def _import_neox(folder: Path) -> None:
    provide_pkg_resources()
    sys.path.insert(0, str(folder))
    try:
        import deepspeed.launcher.runner  # noqa: F401
        import megatron.neox_arguments  # noqa: F401
    except ImportError as error:
        raise KislError(
            f"{error}; GPT-NeoX needs it: pip install 'kisl-plugin[neox]' (kisl neox check lists what is missing)"
        ) from None


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
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: GPT-NeoX refuses this configuration: {_in_one_line(error)}") from None
        settle(neox_args)
        return neox_args

    neox_args_class.consume_deepy_args = consume_deepy_args


def _as_ours(error: Exception) -> KislError:
    """What DeepSpeed's launcher could not do: no such launcher, no host reached, a variable of Slurm's missing."""
    return error if isinstance(error, KislError) else KislError(f"the launch failed: {_in_one_line(error)}")


def _in_one_line(error: Exception) -> str:
    """The error and the line of GPT-NeoX that raised it, which often says more than the error does."""
    raised = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{said} ({Path(raised.filename).name}, line {raised.lineno}: {raised.line})"


def check_run(neox_args: Any) -> None:
    """Everything that can be known before a process is started."""
    warn_of_lost_clipping(neox_args)
    if neox_args.kisl is not None:
        settings_of(neox_args)
        refuse_layouts(neox_args)
        tokenizer = tokenizer_of(neox_args)
        if neox_args.train_iters is None:  # train_epochs: only the data loader can tell
            return
        plan = plan_of(neox_args, tokenizer)
        refuse_other_run(neox_args, find_start(neox_args), plan)
        print(describe(plan))
    else:
        refuse_other_run(neox_args, find_start(neox_args), None)


def _export_variables(folder: Path) -> None:
    import deepspeed.launcher.runner

    os.environ[VARIABLE] = str(folder)
    deepspeed.launcher.runner.EXPORT_ENVS.extend(EXPORTED)


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
