"""HTML in which text is escaped unless it was made here: labels and paths come from files."""

import base64
import html
from collections.abc import Iterable, Sequence

VOID = frozenset({"img", "meta"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """An element; children that are no Html are escaped, as all attributes are. `class_` stands for class."""
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{joined(children)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """Parts one after the other, those that are no Html escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def bullets(items: Iterable[str]) -> Html:
    """A list."""
    return tag("ul", *(tag("li", item) for item in items))


def table(label: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table in a scroller of its own; the first cell of a row is its heading. Cells that are Html are th or td."""
    head = tag("tr", *(_heading(heading) for heading in headings))
    body = [tag("tr", tag("th", first, scope="row"), *map(_cell, rest)) for first, *rest in rows]
    # Focusable, so that the keyboard can scroll it
    whole = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", whole, class_="scroll", role="region", aria_label=label, tabindex="0")


def _heading(text: str) -> Html:
    return text if isinstance(text, Html) else tag("th", text, scope="col")


def _cell(text: str) -> Html:
    return text if isinstance(text, Html) else tag("td", text)


def figure(svg: bytes, alt: str, caption: str) -> Html:
    """A figure that the page carries within."""
    source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
    return tag("figure", tag("img", src=source, alt=alt), tag("figcaption", caption))
