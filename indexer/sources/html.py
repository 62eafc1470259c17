"""HTML: what a reader sees of a page. Its <main>, where there is just one, and its <body> otherwise; never what lies in
`_UNSEEN`, menus included.
"""

import codecs
import re
from typing import Any

from selectolax.lexbor import LexborHTMLParser, LexborNode

_UNSEEN = "script, style, noscript, template, nav, iframe, object, svg, button, select"
_BLOCKS = (
    "address, article, aside, blockquote, caption, dd, details, div, dl, dt, fieldset, figcaption, figure, footer, "
    "form, h1, h2, h3, h4, h5, h6, header, hr, li, main, ol, p, section, summary, table, tr, ul"
)
_BLOCK, _LINE = "\x1e", "\x1f"  # the separators of ASCII mark what may not be lost among the white space of the page

_CHARSET = re.compile(rb"<meta[^<>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_LATIN = {"ascii", "iso8859-1"}  # what browsers read as windows-1252, its superset

_TAG = re.compile(rb"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_CLOSED_BY_OTHERS = frozenset(
    b"p li dt dd tr td th thead tbody tfoot option colgroup area base br col embed hr img input link meta source "
    b"track wbr html head body".split()
)
_NESTING = 2000


def parse_html(content: bytes) -> dict[str, Any]:
    """The record of a page: blocks apart by an empty line; the title is its <title>, or its first <h1>.

    >>> parse_html(b"<title>Gulls</title><p>They <b>nest</b>\\n on cliffs.<p>And roofs.")["text"]
    'They nest on cliffs.\\n\\nAnd roofs.'

    Raises:
        ValueError: Not in the encoding that it names (UTF-8 where it names none), or nested too deeply.
    """
    _check_nesting(content)
    tree = LexborHTMLParser(_decode(content))
    for node in tree.css(_UNSEEN):
        node.decompose()
    heading = tree.css_first("title") or tree.css_first("h1")
    canonical, root = tree.css_first("link[rel=canonical]"), tree.root
    language = root.attributes.get("lang") if root else None
    mains = tree.css("main")
    body = mains[0] if len(mains) == 1 else tree.body
    return {
        "title": " ".join(heading.text().split()) if heading else "",
        "text": _text(tree, body) if body else "",
        "url": canonical.attributes.get("href") if canonical else None,
        "metadata": {"lang": language} if language else {},
    }


def _text(tree: LexborHTMLParser, body: LexborNode) -> str:
    for node in tree.css("pre"):
        node.replace_with(_BLOCK + node.text().replace("\n", _LINE) + _BLOCK)
    for node in tree.css("br"):
        node.replace_with(_LINE)
    for node in tree.css("td, th"):
        node.insert_before(" ")
    for node in tree.css(_BLOCKS):
        node.insert_before(_BLOCK)
        node.insert_after(_BLOCK)
    blocks = ([" ".join(line.split()) for line in block.split(_LINE)] for block in body.text().split(_BLOCK))
    return "\n\n".join("\n".join(filter(None, lines)) for lines in blocks if any(lines))


def _decode(content: bytes) -> str:
    """A page as text, in the encoding that it names, or UTF-8."""
    found = None if content.startswith(codecs.BOM_UTF8) else _CHARSET.search(content[:4096])
    if found is None:
        return content.decode("utf-8-sig")
    label = found[1].decode("ascii", "replace")
    try:
        name = codecs.lookup(label).name
        return content.decode("cp1252" if name in _LATIN else name)
    except LookupError as error:  # also of what encodes no text, such as hex
        raise ValueError(f"it names an encoding that does not exist: {label}") from error


def _check_nesting(content: bytes) -> None:
    """Refuse what would keep the parser busy for hours: its time grows with tags times depth."""
    depth = 0
    for closing, name in _TAG.findall(content) if content.count(b"<") > _NESTING else ():
        if name.lower() not in _CLOSED_BY_OTHERS:
            depth = max(depth - 1, 0) if closing else depth + 1
            if depth > _NESTING:
                raise ValueError("nested too deeply")
