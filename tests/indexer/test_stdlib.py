"""The demo's corpus is the documentation of the interpreter that runs, read without running it."""

import sys
import textwrap
from pathlib import Path

import pytest

from indexer.documents import BadRecord, Document
from indexer.stdlib import read_stdlib


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    records = list(read_stdlib())
    found = {record.id: record for record in records if isinstance(record, Document)}
    assert len(found) == len(records)  # every source is parsed and no id occurs twice
    return found


def tree(folder: Path, **sources: str) -> dict[str, Document | BadRecord]:
    for name, source in sources.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return {record.id if isinstance(record, Document) else record.source: record for record in read_stdlib(folder)}


def test_there_are_thousands_of_documents(documents: dict[str, Document]) -> None:
    assert 4_000 < len(documents) < 8_000


def test_the_order_is_the_same_every_time(documents: dict[str, Document]) -> None:
    assert [record.id for record in read_stdlib() if isinstance(record, Document)] == list(documents)


def test_a_function_has_signature_text_address_and_kind(documents: dict[str, Document]) -> None:
    document = documents["gzip.compress"]
    assert document.title.startswith("gzip.compress(data, compresslevel=")
    assert document.text.startswith("Compress data in one shot")
    assert document.url == "https://docs.python.org/3/library/gzip.html#gzip.compress"
    assert document.metadata == {"module": "gzip", "kind": "function"}


@pytest.mark.parametrize(
    "name",
    [
        "str.split",  # a method of a built-in class
        "time.sleep",  # a function in C
        "os.path.join",  # defined in posixpath
        "asyncio.sleep",  # defined in asyncio.tasks
        "concurrent.futures.Executor.submit",  # defined in a private module
        "collections.abc.Mapping.get",
        "sqlite3.connect",
        "decimal.Decimal.quantize",
        "datetime.datetime.strptime",
        "pathlib.Path.glob",
    ],
)
def test_what_people_look_for_has_the_name_they_write(documents: dict[str, Document], name: str) -> None:
    assert name in documents


def test_nothing_private_and_no_test_is_among_them(documents: dict[str, Document]) -> None:
    assert not [name for name in documents if "._" in f".{name}"]
    modules = {part for document in documents.values() for part in str(document.metadata["module"]).split(".")}
    assert not modules & {"test", "tests", "idlelib", "lib2to3", "turtledemo"}


def test_a_module_is_parsed_and_not_run(tmp_path: Path) -> None:
    records = tree(tmp_path, shout='"""Shouts."""\nraise SystemExit("imported")')
    assert records["shout"] == Document(
        "shout",
        title="shout",
        text="Shouts.",
        url="https://docs.python.org/3/library/shout.html#module-shout",
        metadata={"module": "shout", "kind": "module"},
    )
    assert "shout" not in sys.modules


def test_a_source_that_does_not_parse_is_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    records = tree(tmp_path, broken="def f(:\n", fine='"""Fine."""')
    broken = records[str(tmp_path / "broken.py")]
    assert isinstance(broken, BadRecord)
    assert broken.line == 1
    assert "not Python" in broken.reason
    assert "fine" in records


def test_only_documented_public_names_are_taken(tmp_path: Path) -> None:
    source = '''
    def open_it(path: str, *, mode="r") -> None:
        """Opens."""
    def silent(): pass
    def _private():
        """Hidden."""
    class Door:
        def __init__(self, width=1):
            """A door."""
        async def close(self, slowly=False):
            """Closes."""
        def _bolt(self):
            """Hidden."""
    if True:
        def lock():
            """Locks."""
    else:
        def lock():
            """Locks otherwise."""
    '''
    records = tree(tmp_path, doors=source)
    assert {name: (record.title, record.text) for name, record in records.items() if isinstance(record, Document)} == {
        "doors.open_it": ("doors.open_it(path, *, mode='r')", "Opens."),
        "doors.Door": ("doors.Door(width=1)", "A door."),
        "doors.Door.close": ("doors.Door.close(slowly=False)", "Closes."),
        "doors.lock": ("doors.lock()", "Locks."),
    }


def test_a_long_signature_is_cut_between_parameters(tmp_path: Path) -> None:
    parameters = ", ".join(f"parameter_{number}" for number in range(20))
    records = tree(tmp_path, wide=f'def f({parameters}):\n    """Takes a lot."""')
    (document,) = records.values()
    assert isinstance(document, Document)
    assert document.title.endswith(", ...)")
    assert len(document.title) < 100


def test_a_name_belongs_to_the_package_that_exports_it(tmp_path: Path) -> None:
    records = tree(
        tmp_path,
        birds__in____init__="from ._gulls import cry\nfrom birds.terns import *",
        birds__in___gulls='def cry():\n    """Cries."""\ndef sleep():\n    """Sleeps."""',
        birds__in__terns='def dive():\n    """Dives."""',
    )
    assert list(records) == ["birds.cry", "birds.dive"]
