"""Writing the report's files so that a reader, or a crash, finds the old one or the new one, never a part."""

from pathlib import Path


def utf8(text: str) -> bytes:
    r"""Text as bytes; what is no Unicode in the name of a file (such as \udcff) stands there by its code."""
    return text.encode("utf-8", "backslashreplace")


def put(path: Path, content: bytes) -> Path:
    """Write a file in one step."""
    draft = path.with_name(path.name + ".part")
    try:
        draft.write_bytes(content)
        return draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
