"""Files that are one document each, and the folders they lie in."""

import io
import os
import shutil
from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from indexer.documents import BadRecord, Document
from indexer.sources import Format, ReadOptions, count_records, read_documents, unread_files
from model.lines import MAX_LINE_BYTES, SourceError

PAGE = b"""<!doctype html><html lang="en"><head><title>
 Gulls &amp; terns</title><link rel="canonical" href="http://birds/1"><style>p {}</style></head>
<body><nav><a href="/">Home</a></nav><h1>Birds</h1><p>They <b>nest</b> on
cliffs.</p><ul><li>sea<li>town</ul><pre>def f():
    return 1</pre><table><tr><td>a</td><td>b</td></tr></table>one<br>two<script>x()</script></body></html>"""

NOTE = """---
title: Gulls
lang: en
date: 2015-01-02
url: http://birds/1
---
# Of the *sea*

They **nest** on
[cliffs](http://x), `f()` and ![a picture](x.png).

> - one
> - two

| a | b |
|---|---|
| c | d |

```python
def f():
    return 1
```

<div align="center">In <b>HTML</b><!-- not seen --></div>
"""


def one(content: bytes, format: Format) -> Document | BadRecord:
    (record,) = read_documents(["-"], io.BytesIO(content), ReadOptions(format))
    return record


def reason(content: bytes, format: Format) -> str:
    record = one(content, format)
    assert isinstance(record, BadRecord)
    assert record.line == 0
    return record.reason


def make_pdf(*pages: str, title: str = "") -> bytes:
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject(f"/{k}"): NameObject(f"/{v}")
            for k, v in (("Type", "Font"), ("Subtype", "Type1"), ("BaseFont", "Helvetica"))
        }
    )
    for text in pages:
        page = writer.add_blank_page(200, 200)
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 10 100 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
    if title:
        writer.add_metadata({"/Title": title})
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def test_a_text_file_is_its_text() -> None:
    assert one(b"\xef\xbb\xbfGulls\r\nnest.\n", "text") == Document("-", text="Gulls\nnest.")


def test_markdown_is_what_a_reader_sees_of_it() -> None:
    blocks = [
        "Of the sea",
        "They nest on cliffs, f() and a picture.",
        "one",
        "two",
        "a",
        "b",
        "c",
        "d",
        "def f():\n    return 1",
        "In HTML",
    ]
    metadata = {"lang": "en", "date": "2015-01-02"}
    assert one(NOTE.encode(), "markdown") == Document("-", "Gulls", "\n\n".join(blocks), "http://birds/1", metadata)


def test_without_front_matter_the_first_heading_is_the_title_and_no_text() -> None:
    assert one(b"Of birds\n\nGulls\n=====\n\nnest", "markdown") == Document("-", "Gulls", "Of birds\n\nnest")


def test_front_matter_may_be_toml() -> None:
    assert one(b'+++\ntitle = "Gulls"\nyear = 2015\n+++\nnest', "markdown") == Document(
        "-", "Gulls", "nest", metadata={"year": 2015}
    )


def test_prose_between_two_rules_is_no_front_matter() -> None:
    assert one(b"---\nGulls nest.\n\n---\nTerns dive.\n", "markdown") == Document(
        "-", text="Gulls nest.\n\nTerns dive."
    )


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("title: a: b", "front matter: mapping values are not allowed here"),
        ("a: &x 1\nb: *x", "front matter: YAML aliases are not read"),
        ("a: .nan", "NaN is not a JSON number"),
        ("a: 99999999999999999999", "does not fit into 64 bits"),
        ('title: "\\ud800"', "half of a surrogate pair"),
        ("title: [a]", "title is not a string"),
        ("a: !!python/name:os.system", "front matter: could not determine a constructor"),
    ],
)
def test_front_matter_that_cannot_be_kept_makes_a_bad_record(front: str, expected: str) -> None:
    assert expected in reason(f"---\n{front}\n---\nx".encode(), "markdown")


def test_html_is_what_a_reader_sees_of_it() -> None:
    text = "Birds\n\nThey nest on cliffs.\n\nsea\n\ntown\n\ndef f():\nreturn 1\n\na b\n\none\ntwo"
    assert one(PAGE, "html") == Document("-", "Gulls & terns", text, "http://birds/1", {"lang": "en"})


def test_the_main_part_of_a_page_goes_before_the_rest() -> None:
    assert one(b"<div>Login</div><main><h1>Gulls</h1>nest</main>", "html") == Document("-", "Gulls", "Gulls\n\nnest")


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1252", "utf-8", "shift_jis"])
def test_a_page_is_read_in_the_encoding_that_it_names(charset: str) -> None:
    text = "鴎" if charset == "shift_jis" else "Möwe"
    page = f'<meta http-equiv="Content-Type" content="text/html; charset={charset}"><p>{text}'.encode(charset)
    assert one(page, "html") == Document("-", text=text)


@pytest.mark.parametrize("charset", ["klingon", "rot13", "hex"])
def test_an_encoding_that_no_page_can_have_makes_a_bad_record(charset: str) -> None:
    assert "names an encoding that does not exist" in reason(f'<meta charset="{charset}">x'.encode(), "html")


@pytest.mark.parametrize("unit", [b"<div>", b"<a><div>", b"<b>x", b"<table>", b"<div></p>"])
def test_nesting_that_would_keep_the_parser_busy_for_hours_makes_a_bad_record(unit: bytes) -> None:
    assert reason(unit * (MAX_LINE_BYTES // 32), "html") == "nested too deeply"


def test_brackets_that_would_keep_the_markdown_parser_busy_for_hours_make_a_bad_record() -> None:
    assert reason(b"[" * 2**20, "markdown") == "brackets nested too deeply"
    assert isinstance(one(b"- [ ] [a](b)\n" * 2000, "markdown"), Document)


@pytest.mark.parametrize("unit", [b"<p>x", b"<li>x", b"<div>x</div>", b"x<br>", b"<"])
def test_a_long_page_is_no_deep_one(unit: bytes) -> None:
    assert isinstance(one(unit * 20_000 + b"x", "html"), Document)


def test_the_pages_of_a_pdf_are_its_text() -> None:
    assert one(make_pdf("Gulls nest.", "Terns dive.", title="Birds"), "pdf") == Document(
        "-", "Birds", "Gulls nest.\n\nTerns dive.", metadata={"pages": 2}
    )


def test_a_pdf_without_text_or_without_sense_makes_a_bad_record() -> None:
    assert "no text on its pages" in reason(make_pdf(""), "pdf")
    assert "damaged, or no PDF" in reason(b"%PDF-1.4 nothing", "pdf")
    assert "damaged, or no PDF" in reason(make_pdf("Gulls nest.")[:200], "pdf")


def test_a_locked_pdf_makes_a_bad_record() -> None:
    writer = PdfWriter(clone_from=io.BytesIO(make_pdf("Gulls nest.")))
    writer.encrypt("secret", algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    assert reason(file.getvalue(), "pdf") == "locked by a password"


@pytest.mark.parametrize("format", ["text", "markdown", "html"])
def test_a_file_that_is_not_utf8_or_too_long_makes_a_bad_record(format: Format) -> None:
    assert reason(b"x\xff", format) == "not UTF-8: byte 0xff at 1"
    assert reason(b"x" * (MAX_LINE_BYTES + 1), format) == "longer than 16 MiB"
    assert reason(b"\n", format) == "title and text are both empty"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Notes in two levels, with what is none of them."""
    for name, content in {
        "b.md": b"# Terns\ndive",
        "a/z.txt": b"Gulls nest.",
        "a/y.HTML": b"<title>Owls</title>hunt",
        "c.pdf": make_pdf("Auks swim."),
        "empty.txt": b"",
        "data.csv": b"id,text\n1,x\n",
        "more/data.csv.gz": b"",
        "notes.txt.gz": b"",
        "picture.png": b"",
        "Makefile": b"",
        ".git/x.md": b"hidden",
        ".hidden.md": b"hidden",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def test_a_folder_is_read_in_the_order_of_names_and_ids_are_paths_below_it(folder: Path) -> None:
    records = list(read_documents([folder]))
    assert records == [
        Document("a/y.HTML", "Owls", "hunt"),
        Document("a/z.txt", text="Gulls nest."),
        Document("b.md", "Terns", "dive"),
        Document("c.pdf", text="Auks swim.", metadata={"pages": 1}),
        BadRecord(str(folder / "empty.txt"), 0, "title and text are both empty", str(folder / "empty.txt")),
    ]
    assert (records[0].source, records[0].line) == (str(folder / "a/y.HTML"), 0)
    assert count_records([folder]) == len(records)


def test_what_is_not_read_in_a_folder_is_counted_but_for_what_is_hidden(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "a")
    assert unread_files([folder, folder / "b.md"]) == {
        ".csv": 1,
        ".gz": 2,
        ".png": 1,
        "no suffix": 1,
        "links to folders and special files": 1,
    }


def test_a_format_that_is_named_says_which_files_of_a_folder_are_read(folder: Path) -> None:
    shutil.rmtree(folder / "more")
    assert list(read_documents([folder], options=ReadOptions("csv"))) == [Document("1", text="x")]
    assert [record.source for record in read_documents([folder], options=ReadOptions("markdown"))] == [
        str(folder / "b.md")
    ]
    assert unread_files([folder], ReadOptions("csv"))[".md"] == 1


def test_a_folder_without_a_file_to_read_is_an_error_with_those_there_are(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"no parquet files \(other files: 1 \.HTML, 1 \.csv, .*say --format"):
        list(read_documents([folder], options=ReadOptions("parquet")))


def test_a_folder_with_a_corpus_is_that_corpus(folder: Path) -> None:
    (folder / "corpus.jsonl").write_text('{"_id": "1", "text": "x"}')
    assert list(read_documents([folder])) == [Document("1", text="x")]
    assert not unread_files([folder])


def test_a_file_by_itself_has_its_name_as_id(folder: Path) -> None:
    assert list(read_documents([folder / "a/z.txt"])) == [Document("z.txt", text="Gulls nest.")]


def test_a_file_or_a_folder_that_vanishes_meanwhile_is_a_bad_record(folder: Path) -> None:
    reading = read_documents([folder])
    next(reading)
    (folder / "a/z.txt").unlink()
    shutil.rmtree(folder / "more")
    assert [record.reason for record in reading if isinstance(record, BadRecord)] == [
        "No such file or directory",
        "title and text are both empty",
        "No such file or directory",
    ]


def test_a_name_that_is_not_utf8_makes_a_bad_record_that_can_be_written_down(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with open(os.fsencode(tmp_path) + b"/\xff.txt", "w") as file:  # noqa: PTH123  a Path has no bytes
        file.write("x")
    (good, bad) = read_documents([tmp_path])
    assert isinstance(good, Document)
    assert isinstance(bad, BadRecord)
    assert bad.reason == "half of a surrogate pair, which is not text"
    assert bad.source.endswith(r"\xff.txt")
