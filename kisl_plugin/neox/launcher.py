"""The command `deepy.py`: checks a run, then hands it to GPT-NeoX's own deepy.py and DeepSpeed's launcher."""

import argparse
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.neox.home import INSTALL, VARIABLE, ensure_helpers, find_neox
from kisl_plugin.neox.index_cache import missing_files
from kisl_plugin.neox.patches import (
    ACCELERATOR,
    PATCHES,
    REQUEST,
    add_kisl_field,
    choose_device,
    patch_cuda,
    provide_pkg_resources,
    refuse_gpu_kernels,
    refuse_unknown_keys,
    refuse_wrong_types,
    settle_on_cpu,
    warn_of_lost_clipping,
)
from kisl_plugin.neox.run import (
    describe,
    find_start,
    plan_of,
    refuse_mixing,
    refuse_other_run,
    refuse_other_settings,
    refuse_other_sharding,
    refuse_probe_inside,
    resume_continued,
    tokenizer_of,
    where_of,
)
from kisl_plugin.neox_config import Yamls, claim_folder, read_yamls, refuse_keys
from kisl_plugin.plan import read_settings

# What a command line of GPT-NeoX's deepy.py names.

# Options of GPT-NeoX's consume_deepy_args that take one value.
_OPTIONS = (
    ("--wandb_group",),
    ("--wandb_run_name",),
    ("--wandb_team",),
    ("--iteration",),
    ("--eval_results_prefix",),
    ("-i", "--sample_input_file"),
    ("-o", "--sample_output_file"),
    ("--autotuning",),
)


@dataclass(frozen=True)
class CommandLine:
    """What the checks before a launch need to know of it."""

    configs: list[Path]
    hostfile: str | None


def read_command_line(arguments: Sequence[str]) -> CommandLine:
    """The YAMLs that GPT-NeoX will read for these arguments (after the script), and the hostfile if one is given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("conf_file", nargs="*")
    parser.add_argument("--conf_dir", "-d", default="")
    parser.add_argument("--eval_tasks", nargs="+")
    for option in _OPTIONS:
        parser.add_argument(*option)
    parser.add_argument("-H", "--hostfile")
    found, _ = parser.parse_known_args(arguments)
    names = [name if name.endswith((".yml", ".json")) else f"{name}.yml" for name in found.conf_file]
    return CommandLine([Path(found.conf_dir) / name for name in names], found.hostfile)


# A port of its own for every run on this machine.

# Below what systems give to outgoing connections (32768 on Linux), above what services ask for.
PORTS = range(20_000, 30_000)


def claim_port() -> tuple[int, IO[str]]:
    """A free port and the lock that keeps other runs away from it while it is open.

    Binding alone is not enough: GPT-NeoX binds the port only seconds later, and a second run could choose it too.

    Raises:
        KislError: none of the ports is free.
    """
    for port in PORTS:
        lock = _lock(port)
        if lock is None:
            continue
        if _is_free(port):
            return port, lock
        lock.close()
    raise KislError(f"no port from {PORTS[0]} to {PORTS[-1]} is free; set master_port")


def _lock(port: int) -> IO[str] | None:
    path = Path(tempfile.gettempdir()) / f"kisl-port-{port}.lock"
    try:
        stream = path.open("w")
    except OSError:  # another user's
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


# DeepSpeed's launcher, watched: it counts a process that a signal ended as done, and passes no SIGTERM on.


@contextmanager
def watched(runner: Any) -> Iterator[None]:
    """Within it, processes that `deepspeed.launcher.runner` starts get the SIGTERM that this one gets.

    Raises:
        KislError: one of them was ended by a signal, which DeepSpeed would report as success.
    """
    started: list[subprocess.Popen[Any]] = []

    def popen(*arguments: Any, **named: Any) -> "subprocess.Popen[Any]":
        started.append(subprocess.Popen(*arguments, **named))
        return started[-1]

    def pass_on(number: int, _: Any) -> None:
        for process in started:
            process.send_signal(number)
        raise SystemExit(128 + number)

    runner.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": popen})
    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        runner.subprocess = subprocess
    ended = [process.returncode for process in started if (process.returncode or 0) < 0]
    if ended:
        raise KislError(f"DeepSpeed's launcher was ended by signal {-ended[0]}; its workers may still be running")


# What is missing or wrong with a run, found before a process is started.


def find_everything(yamls: Yamls, trains: bool) -> Path:
    """GPT-NeoX's folder, if all that the run reads is there.

    Raises:
        KislError: one message names all that is not, and the command that makes each.
    """
    missing = missing_files(yamls) if trains else []
    try:
        folder = find_neox()
    except KislError as error:
        if not missing:
            raise
        missing.insert(0, str(error) if os.environ.get(VARIABLE) else f"GPT-NeoX itself · {INSTALL}")
    if missing:
        raise InputError("\n  ".join([f"{yamls.where}: not here yet, each with the command that makes it:", *missing]))
    return folder


def check_run(neox_args: Any) -> None:
    """Everything about a training run that can be known before a process is started.

    Raises:
        InputError: what is wrong, in one line.
    """
    warn_of_lost_clipping(neox_args)
    refuse_other_settings(neox_args)
    if neox_args.save is not None and neox_args.hostfile is None:
        claim_folder(Path(neox_args.save), where_of(neox_args))
    if neox_args.kisl is None:
        start = find_start(neox_args)
        refuse_other_run(neox_args, start, None)
        return refuse_other_sharding(neox_args, start)
    refuse_keys(Yamls(vars(neox_args), where=where_of(neox_args)), "injection")
    resume_continued(neox_args)
    start = find_start(neox_args)
    refuse_other_sharding(neox_args, start)
    tokenizer = tokenizer_of(neox_args)
    if neox_args.train_iters is None:  # train_epochs: only the data loader can tell
        return refuse_mixing(neox_args, start)
    plan = plan_of(neox_args, tokenizer)
    refuse_other_run(neox_args, start, plan)
    print(describe(plan))
    return None


# The command `deepy.py`: checks a run, then hands it to GPT-NeoX's own deepy.py and DeepSpeed's launcher.

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
