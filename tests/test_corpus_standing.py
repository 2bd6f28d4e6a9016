"""How far a build is, as its caller sees it."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from corpus_builds import make_world

from kisl_plugin.corpus.build import Build, run_build
from kisl_plugin.corpus.executors import LocalRunner, Stage


@pytest.mark.parametrize("looks", [0, 1])
def test_the_progress_ends_with_all_tasks_however_seldom_it_is_looked_at(
    tmp_path: Path, looks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    class Seldom(LocalRunner):
        def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
            done = super().run(stages)
            for _ in range(looks):
                assert progress is not None
                progress()
            return done

    world = make_world(tmp_path, [["one"], ["two"]])
    run_build(Build([world.text], "none", world.tokenizer, tmp_path / "out"), Seldom(1))
    assert re.findall(r"MB (\d+/\d+) · .* · (\d of \d tasks) done\n", capsys.readouterr().err) == [
        ("1/1", "2 of 2 tasks")
    ]
