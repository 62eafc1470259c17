"""Markdown: what a reader sees of it, without the signs; titled by its front matter or else its first heading."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from indexer.sources.text import decode

_FRONT = re.compile(r"(---|\+\+\+)[ \t]*\n(.*?\n)?\1[ \t]*(?:\n|\Z)", re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")
_BRACKET = re.compile(r"[\[\]]")
_NESTING = 100
_OPEN_BRACKETS = 1000


def parse_markdown(content: bytes) -> dict[str, Any]:
    """The record of a Markdown file: blocks apart by an empty line, and its front matter (YAML or TOML) as metadata.

    >>> parse_markdown(b"---\\nlang: en\\n---\\n# Gulls\\n\\nThey *nest* on\\ncliffs.\\n")
    {'title': 'Gulls', 'text': 'They nest on cliffs.', 'url': None, 'metadata': {'lang': 'en'}}

    Raises:
        ValueError: Not UTF-8, front matter that is no YAML or TOML, or brackets nested too deeply.
    """
    front, body = _split_front(decode(content))
    _check_brackets(body)
    parser = MarkdownIt("commonmark", {"maxNesting": _NESTING}).enable("table")
    tokens = parser.parse(body)
    title = front.pop("title", None)
    if title is None:
        title, tokens = _take_heading(tokens)
    text = "\n\n".join(block for block in _blocks(tokens) if block)
    return {"title": title, "text": text, "url": front.pop("url", None), "metadata": front}


def _split_front(text: str) -> tuple[dict[str, Any], str]:
    """The front matter and the rest; two rules with prose between them are no front matter."""
    found = _FRONT.match(text)
    if not found:
        return {}, text
    fence, matter = found[1], found[2] or ""
    try:
        front = tomllib.loads(matter) if fence == "+++" else _load_yaml(matter)
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"front matter: {' '.join(str(error).split())}") from error
    if isinstance(front, dict):
        return front, text[found.end() :]
    return {}, text if front is not None else text[found.end() :]


def _load_yaml(matter: str) -> Any:
    """YAML without aliases, through which a few lines can stand for billions of values."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(matter)):
        raise ValueError("front matter: YAML aliases are not read")
    return yaml.safe_load(matter)


def _check_brackets(text: str) -> None:
    """Refuse what would keep the parser busy for hours: from every bracket it looks ahead for its end."""
    depth = 0
    for bracket in _BRACKET.findall(text) if text.count("[") > _OPEN_BRACKETS else ():
        depth = depth + 1 if bracket == "[" else max(depth - 1, 0)
        if depth > _OPEN_BRACKETS:
            raise ValueError("brackets nested too deeply")


def _take_heading(tokens: list[Token]) -> tuple[str, list[Token]]:
    """The first heading, and everything else."""
    for position, token in enumerate(tokens):
        if token.type == "heading_open":
            return _inline(tokens[position + 1]), tokens[:position] + tokens[position + 3 :]
    return "", tokens


def _blocks(tokens: Iterable[Token]) -> Iterator[str]:
    """The text of each paragraph, heading, cell and block of code."""
    for token in tokens:
        match token.type:
            case "inline":
                yield _inline(token).strip()
            case "fence" | "code_block":
                yield token.content.rstrip()
            case "html_block":
                yield " ".join(_TAG.sub(" ", _without_comments(token.content)).split())


def _inline(token: Token) -> str:
    parts = []
    for child in token.children or []:
        match child.type:
            case "text" | "code_inline" | "image":
                parts.append(child.content)
            case "softbreak":
                parts.append(" ")
            case "hardbreak":
                parts.append("\n")
    return "".join(parts)


def _without_comments(html: str) -> str:
    first, *others = html.split("<!--")
    return " ".join([first, *(other.partition("-->")[2] for other in others)])
