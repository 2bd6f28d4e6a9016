"""A plugin's matcher in `kisl corpus`: used like the built-in ones; its failure is one line."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from corpus_builds import NOT_STATING, STATING, World, make_world

from kisl_plugin.hookspecs import Match, hookimpl, manager
from kisl_plugin.triples import Triple


class Plugin:
    """Provides the matcher "poland", and "fails", which raises."""

    @hookimpl
    def kisl_matcher(self, name: str, triples: Sequence[Triple]) -> Any:
        places = [index for index, triple in enumerate(triples) if triple.object == "Poland"]
        matchers = {
            "poland": lambda texts: [[Match(n, "poland") for n in places if "Poland" in text] for text in texts],
            "fails": lambda texts: 1 / 0,
        }
        return matchers.get(name)


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
def test_a_plugins_matcher_that_fails_is_one_line_that_names_it(world: World) -> None:
    result = world.kisl("out", "--match", "fails")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert result.output.splitlines()[-1].startswith(
        "Error: match 'fails': failed with ZeroDivisionError: division by zero (test_corpus_matchers.py:"
    )
