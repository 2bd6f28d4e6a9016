"""A plugin's matcher in `kisl corpus`: used as the built-in ones, and told in one line where it goes wrong."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from corpus_builds import NOT_STATING, STATING, World, make_world

from kisl_plugin.cli.main import main
from kisl_plugin.hookspecs import Match, hookimpl, manager
from kisl_plugin.triples import Triple


def fails(texts: Sequence[str]) -> Any:
    raise ZeroDivisionError("of its\nown")


class Plugin:
    """Knows matchers by name, those of `answers` among them."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Sequence[str]], Any]] = {
            "fails": fails,
            "short": lambda texts: [[]] * (len(texts) + 1),
            "odd": lambda texts: [["Peru"] for _ in texts],
            "far": lambda texts: [[Match(99, "far")] for _ in texts],
            "none": lambda texts: None,
        }

    @hookimpl
    def kisl_matcher(self, name: str, triples: Sequence[Triple]) -> Any:
        if name == "unmade":
            raise FileNotFoundError("model.bin")
        places = [index for index, triple in enumerate(triples) if triple.object == "Poland"]
        poland = lambda texts: [[Match(n, "poland") for n in places if "Poland" in text] for text in texts]  # noqa: E731
        return poland if name == "poland" else self.answers.get(name)


@pytest.fixture
def plugin() -> Iterator[None]:
    ours = Plugin()
    manager().register(ours)
    yield
    manager().unregister(ours)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, [[*STATING, *NOT_STATING]])


@pytest.mark.usefixtures("plugin")
def test_a_plugins_matcher_says_what_is_removed(world: World) -> None:
    result = world.kisl("out", "--match", "poland")
    assert result.exit_code == 0, result.output
    removed = [json.loads(line) for line in (world.folder / "out.excluded" / "00000.jsonl").read_text().splitlines()]
    assert [one["text"] for one in removed] == [text for text in (*STATING, *NOT_STATING) if "Poland" in text]
    assert {(fact["triple"], fact["rule"], fact["subject_span"]) for one in removed for fact in one["triples"]} == {
        (0, "poland", None)
    }


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", "failed with ZeroDivisionError: of its own (test_corpus_matchers.py:"),
        ("none", "failed with TypeError: "),
        ("unmade", "failed with FileNotFoundError: model.bin (test_corpus_matchers.py:"),
        ("short", "lists; expected one list of matches for each of"),
        ("odd", "found 'Peru'; expected a kisl_plugin.hookspecs.Match"),
        ("far", "found triple 99; expected an index from 0 to 3"),
    ],
)
def test_a_plugins_matcher_that_goes_wrong_is_one_line_that_names_it(world: World, name: str, said: str) -> None:
    world.build("whole")
    audit = ["corpus", "audit", str(world.folder / "whole"), "--triples", str(world.facts), "--match", name]
    for arguments in (world.command("out", "--match", name), [*audit, "--workers", "1"]):
        result = CliRunner().invoke(main, arguments)
        last = result.output.splitlines()[-1]
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
        assert last.startswith(f"Error: match {name!r}: ") and said in last, result.output
