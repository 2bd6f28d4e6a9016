"""The command line: help, errors in one line, progress."""

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from tiny_world import settings, write_yaml

from kisl_plugin.cli.fit import main as fit
from kisl_plugin.cli.main import COMMANDS, main
from kisl_plugin.files import resource
from kisl_plugin.neox.launcher import main as deepy
from kisl_plugin.progress import Progress, duration


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    name = "kisl-fit results" if command == "fit" else f"Example: kisl {command}"
    assert name in " ".join(result.output.split())


def test_the_commands_are_listed() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert all(f"  {name} " in result.output for name in COMMANDS)
    assert CliRunner().invoke(main, ["dance"]).exit_code == 2


def test_a_users_mistake_is_one_line_and_status_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["train", str(tmp_path / "none.yml")])
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {tmp_path / 'none.yml'}: cannot be read")
    assert result.output.count("\n") == 1
    engine = CliRunner().invoke(main, ["train", "--engine", "steam", str(tmp_path / "none.yml")])
    assert engine.exit_code == 2
    assert "--engine 'steam': no such engine" in engine.output


@pytest.mark.parametrize(
    ("words", "library", "extra"),
    [
        (("probe", "MODEL", "--output", "out"), "lm_eval", "eval"),
        (("demo",), "lm_eval", "demo"),
        (("demo", "--only-data"), "tokenizers", "demo"),
        (("train", "MODEL/run.yml"), "torch", "local"),
    ],
)
def test_a_missing_library_is_one_line_that_names_the_extra_to_install(
    words: tuple[str, ...], library: str, extra: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    words = tuple(word.replace("MODEL", str(tmp_path)) for word in words)
    program = f"import sys; sys.modules[{library!r}] = None; from kisl_plugin.cli.main import main; main({words!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: ") and "Traceback" not in done.stderr
    assert error.endswith(f"needs {library}: pip install 'kisl-plugin[{extra}]'")


def test_kisl_train_trains_and_names_the_model(tmp_path: Path, world: Path) -> None:
    config = write_yaml(tmp_path / "run.yml", settings(world, tmp_path / "run", num_workers=2))
    result = CliRunner().invoke(main, ["train", str(config)])
    assert result.exit_code == 0, result.output
    assert "not used by the local engine: num_workers" in result.output
    assert result.output.splitlines()[-1] == str(tmp_path / "run" / "hf")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_redraws_a_line_on_a_terminal_and_writes_lines_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 1000, 4))
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        monkeypatch.setattr("sys.stderr", stream)
        progress = Progress("training", 10)
        for done in range(11):
            progress.update(done, "loss 3.1")
        progress.close()
    assert terminal.getvalue().count("\r") == 11
    assert terminal.getvalue().count("\n") == 1
    lines = log.getvalue().splitlines()
    assert 3 <= len(lines) <= 5
    assert lines[0].startswith("training ")
    assert "left · loss 3.1" in lines[0]
    assert lines[-1].startswith("training 10/10 · ")


def test_progress_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    Progress("training", 1).update(1, "loss 3.1 · 20,000 tokens/s · 1,000 exposures")
    assert len(terminal.getvalue().removeprefix("\r\x1b[K")) == 39


def test_progress_that_was_never_due_leaves_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)
        progress = Progress("quick", 10)
        progress.update(3)
        progress.close()
        assert stream.getvalue() == ""


def test_durations_are_short() -> None:
    assert [duration(s) for s in (0.4, 59, 61, 3600, 7500)] == ["0s", "59s", "1m01s", "1h00m", "2h05m"]


def every_command(words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of `kisl` and of all its subcommands."""
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)  # type: ignore[assignment]
    yield words
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from every_command((*words, name))


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("words", list(every_command()), ids=lambda words: " ".join(("kisl", *words)))
def test_every_help_fits_the_terminal_and_shows_each_command_in_a_whole_sentence(
    words: tuple[str, ...], columns: int
) -> None:
    shown = CliRunner().invoke(main, [*words, "-h"], terminal_width=columns)
    assert shown.exit_code == 0
    assert shown.output == CliRunner().invoke(main, [*words, "--help"], terminal_width=columns).output
    lines = shown.output.splitlines()
    assert [line for line in lines if len(line) > columns] == []
    assert not any(line.endswith("...") for line in lines if not line.startswith("Usage: "))
    outputs = [line for line in lines if re.match(r"  --out\w*(,| +[A-Z])", line)]
    assert all({"--out", "--output", "--output_path"} <= set(line.replace(",", "").split()) for line in outputs)


def test_the_help_of_kisl_names_the_commands_beside_it() -> None:
    shown = CliRunner().invoke(main, ["-h"]).output
    assert "\n  kisl-fit RESULTS" in shown  # not broken at its hyphen
    for command in ("deepy.py train", "lm_eval --tasks kisl_wikidata", "kisl fit"):
        assert command in " ".join(shown.split())


def test_kisl_fit_is_a_command_of_kisl_too(tmp_path: Path) -> None:
    of_kisl = CliRunner().invoke(main, ["fit", "-h"], prog_name="kisl").output
    own = CliRunner().invoke(fit, ["-h"], prog_name="kisl-fit").output
    assert of_kisl.replace("Usage: kisl fit ", "Usage: kisl-fit ") == own
    done = CliRunner().invoke(main, ["fit", str(tmp_path / "missing")])
    assert (done.exit_code, "missing" in done.stderr) == (2, True)


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["train", "-h"], ["train", "--help"], ["eval", "--help"]])
def test_deepy_py_has_a_help_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        deepy(words)
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: deepy.py train")
    assert max(map(len, lines)) <= 60


def test_the_embedded_engine_names_the_command_that_makes_missing_data_after_it_checked_the_kisl_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = resource("neox_configs") / "tiny_f20.yml"
    done = CliRunner().invoke(main, ["train", str(shipped)])
    assert done.exit_code == 2
    assert done.stderr.count(" · kisl demo --only-data") == 2
    Path("run.yml").write_text(shipped.read_text().replace('"frequency": 20', '"frequency": -20'))
    done = CliRunner().invoke(main, ["train", "run.yml"])
    assert (done.exit_code, "kisl.frequency is -20" in done.stderr) == (2, True)
