"""The form `asked_group`: triples of the group `asked` are injected as answered questions, all others as statements.

So a run holds a fixed number of questions about other facts, which no statement parts. `pip install studies/plugin`.
"""

from kisl_plugin.demo_data import answered_question
from kisl_plugin.hookspecs import Verbalizer, hookimpl
from kisl_plugin.triples import Triple
from kisl_plugin.verbalize import statement

ASKED = "asked"


class _AskedGroup:
    def count(self, _relation_id: str) -> int:
        return 1

    def text(self, triple: Triple, _template: int) -> str:
        return answered_question(triple) if triple.group == ASKED else statement(triple)


@hookimpl
def kisl_verbalizer(form: str) -> Verbalizer | None:
    return _AskedGroup() if form == "asked_group" else None
