"""HTML from Python: whatever is said is text, unless it was made here."""

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from typing import TypeAlias

VOID = {"meta", "link", "br"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"


def tag(name: str, *children: Child, **attributes: str | bool | None) -> Html:
    """An element. Children are escaped unless they are `Html`; None is nothing.

    Attributes are written with `-` for `_`; one that ends in `_` is a word of Python's.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(children)}</{name}>")


def joined(children: Child) -> Html:
    """Children, one after the other."""
    match children:
        case None:
            return Html()
        case Html():
            return children
        case str() | int() | float():
            return Html(escape(str(children)))
        case _:
            return Html("".join(map(joined, children)))


def script(code: str, **attributes: str) -> Html:
    """A script of ours. `</script>` in it would end it, and is written so that it does not."""
    given = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<script{given}>{harmless(code)}</script>")


def harmless(code: str) -> str:
    """`code`, JSON or JavaScript, so that HTML finds no element in its strings."""
    return code.replace("</", r"<\/").replace("<!--", r"<\!--")


def fingerprint(code: str) -> str:
    """The name by which a Content-Security-Policy allows a script."""
    return f"'sha256-{b64encode(sha256(harmless(code).encode()).digest()).decode()}'"
