"""Text for training, streamed: files of any size in, token sequences of bounded length out, in constant memory."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from model.lines import MAX_LINE_BYTES, SourceError, read_lines

T = TypeVar("T")


class Text(NamedTuple):
    """One text; `title` is empty where there is none."""

    title: str
    body: str

    @property
    def whole(self) -> str:
        """Title and body as training reads them."""
        return f"{self.title}\n{self.body}" if self.title else self.body


def read_texts(paths: Iterable[Path]) -> Iterator[str]:
    """Texts of JSON-lines files (`title`, `text`) or plain text files (one text a line), blank ones left out.

    Raises:
        SourceError: A file is missing or damaged, or a line is no text.
    """
    return (text.whole for text in read_titled(paths))


def read_titled(paths: Iterable[Path]) -> Iterator[Text]:
    """What `read_texts` reads, title and body apart."""
    for path in paths:
        structured = ".json" in "".join(path.suffixes)
        for number, line in enumerate(read_lines(path), 1):
            text = _text(line, structured=structured, where=f"{path}:{number}") if line.strip() else Text("", "")
            if text.whole.strip():
                yield text


def _text(line: bytes, *, structured: bool, where: str) -> Text:
    try:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"longer than {MAX_LINE_BYTES // 2**20} MiB")
        if not structured:
            return Text("", line.decode())
        record = json.loads(line)
        title, body = record.get("title") or "", record["text"]
        if not isinstance(body, str):
            raise TypeError(f"text is {body!r:.50}")
        text = Text(str(title), body)
        text.whole.encode()  # half of a surrogate pair, which JSON can hold, is nothing a tokenizer takes
        return text
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(
            f'{where}: want UTF-8 text or JSON like {{"title": "...", "text": "..."}}: {error!r}'
        ) from error


def sequences(paragraphs: Iterable[list[T]], max_tokens: int) -> Iterator[list[T]]:
    """Pack the tokens of one text's paragraphs into runs of at most `max_tokens`; a longer paragraph is cut.

    >>> list(sequences([["a", "b"], ["c"], ["d", "e", "f"]], 3))
    [['a', 'b', 'c'], ['d', 'e', 'f']]
    """
    run: list[T] = []
    for ids in paragraphs:
        if run and len(run) + len(ids) > max_tokens:
            yield run
            run = []
        run = run + ids
        while len(run) > max_tokens:
            yield run[:max_tokens]
            run = run[max_tokens:]
    if run:
        yield run
