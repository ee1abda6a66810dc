from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.report.markup import Html, fingerprint, harmless, script, tag


class Read(HTMLParser):
    """What a browser makes of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Any]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"))


@given(TEXT, TEXT)
def test_what_is_said_is_text(child: str, attribute: str) -> None:
    read = Read(tag("p", child, title=attribute))
    assert read.tags == [("p", {"title": attribute})]
    assert read.text == child


def test_elements_nest() -> None:
    inner = [tag("li", n) for n in (1, 2)]
    made = tag("ul", inner, None, class_="a", data_what="b", hidden=True, lang=None)
    assert made == '<ul class="a" data-what="b" hidden><li>1</li><li>2</li></ul>'
    assert tag("p", Html("<b>x</b>"), "<") == "<p><b>x</b>&lt;</p>"
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'


@pytest.mark.parametrize("code", ["'</script>'", "'<!--'", "'</SCRIPT >'"])
def test_no_string_ends_a_script(code: str) -> None:
    assert Read(script(code) + Html("<p>")).tags == [("script", {}), ("p", {})]
    assert "</" not in harmless(code)


def test_a_fingerprint_is_that_of_what_is_written() -> None:
    assert fingerprint("1") == "'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='"
    assert fingerprint("'</p>'") == fingerprint(r"'<\/p>'")
