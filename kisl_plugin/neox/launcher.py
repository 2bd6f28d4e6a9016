"""The command `deepy.py`: checks a run, then hands it to GPT-NeoX's own deepy.py and DeepSpeed's launcher."""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import util
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import yaml

from kisl_plugin.checkpoints import LATEST, hold_save
from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.indexed import IndexedDataset
from kisl_plugin.neox import patches
from kisl_plugin.neox.install import INSTALL, VARIABLE, ensure_helpers, find_neox
from kisl_plugin.neox.run import RUN_ID, check_start, injection_plan, tokenizer_of, where_of
from kisl_plugin.neox.worker import SCRIPT
from kisl_plugin.neox_config import (
    PATH_KEYS,
    Yamls,
    check_values,
    missing_files,
    missing_files_error,
    read_yamls,
    refuse_keys,
)
from kisl_plugin.plan import describe_passes, read_settings

__all__ = ["main"]

JOBS = ("train", "generate", "eval")
# On other nodes DeepSpeed sets the variables that begin with one of these, and no others.
EXPORTED = (VARIABLE, "KISL_", "WANDB_R")
USAGE = """usage: deepy.py train|generate|eval CONFIG.yml [MORE.yml…]
                [--override KEY=VALUE…]
                [options of GPT-NeoX's deepy.py]

Trains with an unmodified GPT-NeoX, found at $GPT_NEOX_DIR
or where `kisl neox install` put it. A `kisl` section in a
YAML says which triples are injected, and how often.
--override changes keys of the YAML: train_iters=3.
KISL_CPU=1 trains on the CPU where there is a GPU.

Example: deepy.py train neox_configs/tiny_f20.yml"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; exit status 2 for a wrong call or input, 1 for a failure."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or {"-h", "--help"} & set(words[:1] if words[0] not in JOBS else words[:2]):
        print(USAGE)
        sys.exit(0 if words else 2)
    try:
        launch(words[0], words[1:])
    except KislError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


def launch(script: str, arguments: list[str]) -> None:
    """Run `script` (train, generate, eval, with or without .py, or a file of the user's) with GPT-NeoX."""
    path = Path(script)
    name = path.name.removesuffix(".py")
    # The name of GPT-NeoX's own script, or its path in a clone; any other file is a script of the user's.
    job = name if name in JOBS and (str(path) == path.name or (path.parent / "megatron").is_dir()) else None
    arguments, changes = read_overrides(arguments)
    configs, hostfile, others = read_command_line(arguments)
    if not configs:
        raise InputError(f"deepy.py {script}: no YAML is given, for example: deepy.py train neox_configs/tiny_f20.yml")
    yamls = read_yamls(configs)
    yamls = yamls.override(changes, "--override")
    if job == "train":
        check_values(yamls)
        if "kisl" in yamls.values:
            read_settings(yamls.values["kisl"], yamls.file_of("kisl"), 0)
            refuse_keys(yamls, "export")
    missing = missing_files(yamls.values) if job == "train" else []
    try:
        folder = find_neox()
    except KislError as error:
        if not missing:
            raise
        missing.insert(0, str(error) if os.environ.get(VARIABLE) else f"GPT-NeoX itself · {INSTALL}")
    if missing:
        raise missing_files_error(yamls.where, missing)

    with needs_extra("neox", "GPT-NeoX"):
        without_cuda = patches.choose_device()
        # With a hostfile the run's GPUs are those of other machines, where each worker looks for itself.
        default = Path(os.environ.get("DLTS_HOSTFILE", "/job/hostfile"))
        has_hostfile = bool(hostfile or yamls.values.get("hostfile")) or default.is_file()
        on_cpu = without_cuda and (os.environ.get(patches.REQUEST) == "1" or not has_hostfile)
        if on_cpu:
            on_gpu = patches.without_gpu_kernels(yamls.values)
            changes |= on_gpu
            yamls = yamls.override(on_gpu, "the CPU")
            os.environ[patches.ACCELERATOR] = "cpu"
        patches.provide_pkg_resources()
        sys.path.insert(0, str(folder))
        import deepspeed.launcher.runner as runner
        from megatron.neox_arguments import NeoXArgs

        if yamls.values.get("use_wandb"):
            patches.provide_wandb_id()

    ensure_helpers(folder)
    if on_cpu:
        processes = yamls.values.get("num_gpus")
        patches.patch_cuda(processes if isinstance(processes, int) and processes > 0 else 1)
        print("no GPU: GPT-NeoX is patched to train on the CPU (see kisl_plugin/neox/patches.py)")
        if on_gpu:
            print(f"no GPU: {', '.join(f'{key} is {value}' for key, value in on_gpu.items())}")
    patches.check_keys(yamls, patches.add_kisl_field())
    os.environ[VARIABLE] = str(folder)
    if job is not None:
        os.environ[SCRIPT] = f"{job}.py"
    runner.EXPORT_ENVS.extend(EXPORTED)
    # GPT-NeoX's deepy.py as a module; this command's own file has the same name.
    spec: Any = util.spec_from_file_location("gpt_neox_deepy", folder / "deepy.py")
    deepy = util.module_from_spec(spec)
    spec.loader.exec_module(deepy)
    try:
        with ExitStack() as stack:
            if changes:  # GPT-NeoX takes each key once, so the YAMLs become one
                merged = Path(stack.enter_context(TemporaryDirectory())) / configs[0].name
                merged.write_text(yaml.safe_dump(dict(yamls.values), sort_keys=False), encoding="utf-8")
                arguments = [str(merged), *others]
            program = str(Path(__file__).with_name("worker.py")) if job else script
            neox_args = read_arguments([program, *arguments], yamls, on_cpu)
            if job == "train":
                check_run(neox_args, stack)
            # deepy.py reads the configuration by this function.
            stack.callback(setattr, NeoXArgs, "consume_deepy_args", NeoXArgs.consume_deepy_args)
            NeoXArgs.consume_deepy_args = lambda _: neox_args
            stack.enter_context(terminate_children(runner))
            deepy.main(None)
    except KislError:
        raise
    except (KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        # No such launcher, no host reached, a variable of Slurm's missing.
        raise KislError(f"the launch failed: {_in_one_line(error)}") from error
    if job == "train":
        print(next_steps(yamls.values.get("save")), end="")


def next_steps(save: Any) -> str:
    """The commands that make results of what was trained, one a line; none where `save` holds no checkpoint."""
    if not isinstance(save, str) or not (Path(save) / LATEST).is_file():
        return ""
    model = f"{Path(save).name}_hf"
    arguments = shlex.quote(f"pretrained={model},dtype=float32")
    return (
        f"next: kisl export {shlex.quote(save)} {shlex.quote(model)}\n"
        f"      lm_eval --tasks kisl_wikidata --model hf --model_args {arguments} --output_path results --log_samples\n"
        "      kisl-fit results\n"
    )


def read_arguments(arguments: Sequence[str], yamls: Yamls, on_cpu: bool) -> Any:
    """GPT-NeoX's own reading of the arguments, with the values that are settled here."""
    from megatron.neox_arguments import NeoXArgs

    try:
        neox_args = NeoXArgs.consume_deepy_args(arguments)
    except (AssertionError, AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{yamls.where}: GPT-NeoX refuses this configuration: {_in_one_line(error)}") from None
    neox_args.update_values({key: yamls.values[key] for key in PATH_KEYS & yamls.values.keys()})
    if on_cpu:
        neox_args.update_value("distributed_backend", "gloo")
        if neox_args.hostfile is None:  # as many processes as num_gpus says
            neox_args.update_value("num_gpus", neox_args.num_gpus or 1)
    if "master_port" not in yamls.values and neox_args.hostfile is None:
        with socket.socket() as probe:  # a port that is free now, for the processes of the run to meet at
            probe.bind(("", 0))
            neox_args.update_value("master_port", probe.getsockname()[1])
    return neox_args


def read_overrides(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments without `--override KEY=VALUE …`, and those keys with their values, which are YAML."""
    if "--override" not in arguments:
        return arguments, {}
    at = arguments.index("--override")
    words = list(takewhile(lambda word: not word.startswith("-"), arguments[at + 1 :]))
    changes = {}
    for word in words or [""]:
        key, equals, text = word.partition("=")
        try:
            changes[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            equals = ""
        if not key or not equals:
            raise InputError(f"--override {word}: expected KEY=VALUE …, such as train_iters=3 kisl.frequency=1")
    return [*arguments[:at], *arguments[at + 1 + len(words) :]], changes


def read_command_line(arguments: Sequence[str]) -> tuple[list[Path], str | None, list[str]]:
    """The YAMLs that GPT-NeoX will read for these arguments (after the script), the hostfile, and the other arguments.

    Source: consume_deepy_args in megatron/neox_arguments/arguments.py.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("conf_file", nargs="*")
    parser.add_argument("--conf_dir", "-d", default="")
    parser.add_argument("--hostfile", "-H")
    parser.add_argument("--eval_tasks", nargs="+")
    # What follows one of these is its value and not a YAML.
    for option in (
        "--iteration",
        "--eval_results_prefix",
        *(f"--wandb_{name}" for name in ("group", "run_name", "team")),
        "-i",
        "--sample_input_file",
        "-o",
        "--sample_output_file",
        "--autotuning",
    ):
        parser.add_argument(option)
    options, _ = parser.parse_known_args(arguments)
    names = [name if name.endswith((".yml", ".json")) else f"{name}.yml" for name in options.conf_file]
    others = [word for word in arguments if word not in options.conf_file]
    if options.conf_dir:
        at = others.index(options.conf_dir)
        del others[at - 1 : at + 1]
    return [Path(options.conf_dir) / name for name in names], options.hostfile, others


@contextmanager
def terminate_children(runner: Any) -> Iterator[None]:
    """Within it, processes that `deepspeed.launcher.runner` starts get the SIGTERM that this one gets.

    DeepSpeed's launcher does not pass it on, and counts as done a process that a signal ended, which is an error here.
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


def _in_one_line(error: Exception) -> str:
    """The error and the line of GPT-NeoX that raised it, which often says more than the error does."""
    raised = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text} ({Path(raised.filename).name}, line {raised.lineno}: {raised.line})"


# ---- what is missing or wrong with a run, found before a process is started


def check_run(neox_args: Any, stack: ExitStack) -> None:
    """Everything about a training run that can be known before a process is started.

    `save` is locked until `stack` is closed, and before anything is looked for in it.
    """
    where = where_of(neox_args)
    patches.warn_of_lost_clipping(neox_args)
    if bool(neox_args.train_iters) == bool(neox_args.train_epochs):
        iters, epochs = neox_args.train_iters, neox_args.train_epochs
        raise InputError(f"{where}: train_iters is {iters!r} and train_epochs {epochs!r}; expected one of them")
    if not neox_args.seed or neox_args.seed < 1:
        raise InputError(f"{where}: seed is {neox_args.seed!r}; GPT-NeoX needs a whole number from 1")
    if neox_args.save is not None:
        try:
            stack.enter_context(hold_save(Path(neox_args.save), where))
        except InputError:
            # With a hostfile the folder may be one that only the nodes can write to.
            if neox_args.hostfile is None:
                raise
    if neox_args.kisl is None:
        check_start(neox_args, None)
        return
    refuse_keys(Yamls(vars(neox_args), where=where), "injection")
    tokenizer = tokenizer_of(neox_args)
    # With train_epochs only the data loader knows the number of samples; the workers check the rest.
    plan = injection_plan(neox_args, tokenizer) if neox_args.train_iters else None
    os.environ.pop(RUN_ID, None)  # another run's, where one process launches several
    start = check_start(neox_args, plan)
    if plan is not None and start.iteration == neox_args.train_iters:
        # GPT-NeoX would write the last checkpoint anew, in place.
        print(f"kisl: {start.checkpoint}: already trained to iteration {start.iteration}")
        print(next_steps(neox_args.save), end="")
        sys.exit(0)
    os.environ[RUN_ID] = start.run_id
    if not neox_args.wandb_init_all_ranks:  # a run of W&B goes on with the run, unless the user's own settings say more
        os.environ.setdefault("WANDB_RUN_ID", os.environ[RUN_ID])
        os.environ.setdefault("WANDB_RESUME", "allow")
    if plan is not None:
        print(f"kisl: {plan.describe()}")
        exits, factor = neox_args.exit_interval, neox_args.checkpoint_factor
        linear = neox_args.checkpoint_scale == "linear"
        if exits and linear and (not factor or exits % factor) and exits not in (neox_args.extra_save_iters or ()):
            print(
                f"kisl: exit_interval {exits} ends the run after iteration {exits}, where checkpoint_factor {factor} "
                "saves nothing; what is trained after the last checkpoint will be lost"
            )
        with suppress(InputError):  # the older format that data_impl: cached reads
            prefixes = neox_args.train_data_paths or [neox_args.data_path]
            tokens = sum(int(IndexedDataset(Path(prefix)).sizes.sum(dtype="int64")) for prefix in prefixes)
            warning = describe_passes(tokens, plan.schedule.samples * plan.seq_length)
            if warning:
                print(f"kisl: {warning}")


if __name__ == "__main__":
    main()
