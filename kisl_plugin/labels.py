"""Labels as people write them: one spelling to store, and a folded one to compare."""

import unicodedata

NO_BREAK_SPACES = str.maketrans({"\u00a0": " ", "\u2007": " ", "\u202f": " "})
# Letters that Unicode does not take apart into a base letter and a mark.
_BARRED = str.maketrans("øłđı", "oldi")
_JOINING = ".'’"


def normalised(label: str) -> str:
    """The label in Unicode NFC, with plain spaces for no-break ones, without spaces at the ends."""
    if label.isascii():
        return label.strip()
    return unicodedata.normalize("NFC", label.translate(NO_BREAK_SPACES)).strip()


def folded_words(label: str) -> tuple[str, ...]:
    """The label's words without case, diacritics, punctuation and a leading "the": U.S.A. → usa."""
    bare = unicodedata.normalize("NFKD", label.casefold()).translate(_BARRED)
    kept = (char if _in_a_word(char) else " " for char in bare if char not in _JOINING)
    words = "".join(char for char in kept if not unicodedata.combining(char)).split()
    return tuple(words[1:] if len(words) > 1 and words[0] == "the" else words)


def _in_a_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMNS"
