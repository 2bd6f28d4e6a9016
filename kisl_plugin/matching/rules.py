"""How a document is matched against triples."""

from dataclasses import dataclass

from kisl_plugin.errors import InputError

PAIR, SUBJECT = "pair", "subject"
DOCUMENT, PARAGRAPH, SENTENCE = "document", "paragraph", "sentence"


@dataclass(frozen=True)
class MatchRules:
    """What makes a document state a triple.

    `match` is "pair" (subject and object), "subject" (the subject alone: stricter), or a plugin's name. `scope` says
    how near subject and object must be: in one document, paragraph (a line), sentence, or within a number of
    characters, counted from where the first of them begins to where the last ends. A sentence ends at . ! ? … and
    white space, at 。！？ or a line's end, but not at a full stop after a single letter, an initial's; a name that goes
    over an end belongs to both sides. Aliases, not labels, are passed over where they have fewer than `min_length`
    characters or are on the `stop_list`.

    Raises:
        InputError: the scope is none of these, or `min_length` is below 1.
    """

    match: str = PAIR
    scope: str = DOCUMENT
    min_length: int = 4
    stop_list: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = self.scope in (DOCUMENT, PARAGRAPH, SENTENCE)
        if not known and not (self.scope.isascii() and self.scope.isdigit() and int(self.scope)):
            raise InputError(
                f"scope {self.scope!r}: expected document, paragraph, sentence or a number of characters, such as 200"
            )
        if self.min_length < 1:
            raise InputError(f"min_length {self.min_length}: expected 1 or more characters")

    @property
    def name(self) -> str:
        """The rule as it is written beside a removed document: `pair:document`, `pair:200`, `subject`."""
        return f"{self.match}:{self.scope}" if self.match == PAIR else self.match
