"""A cursor is taken from whoever signed it with our secret, and from nobody else."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cursors import SECRET_FILE, Cursor, Cursors, InvalidCursor, digest, kept_secret

CURSOR = Cursor("20261126-191145-3df0d3", digest(["q"]), 200, 10, digest(["a", "b"]))
OURS = Cursors(b"x" * 32)


def test_a_cursor_is_read_as_it_was_written_by_any_holder_of_the_secret() -> None:
    text = OURS.write(CURSOR)
    assert Cursors(b"x" * 32).read(text) == CURSOR
    assert text.isascii()
    assert len(text) < 200


@given(st.integers(min_value=0), st.characters())
def test_a_changed_cursor_is_refused(at: int, character: str) -> None:
    text = OURS.write(CURSOR)
    at %= len(text)
    changed = text[:at] + character + text[at + 1 :]
    try:
        read = OURS.read(changed)
    except InvalidCursor:
        return
    assert read == CURSOR  # the last character holds bits that no byte is made of


@given(st.text(max_size=80))
def test_what_was_never_a_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor, match="DUPMAE_CURSOR_SECRET"):
        OURS.read(text)


def test_a_cursor_of_another_secret_is_refused() -> None:
    with pytest.raises(InvalidCursor):
        Cursors(b"y" * 32).read(OURS.write(CURSOR))


def test_a_signed_text_that_is_no_cursor_is_refused() -> None:
    with pytest.raises(InvalidCursor):
        OURS.read(OURS.write(CURSOR._replace(offset="ten")))  # type: ignore[arg-type]  # as of another release


def test_everybody_who_serves_from_a_folder_has_the_same_secret_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with ThreadPoolExecutor(8) as threads:
        secrets = set(threads.map(kept_secret, [folder] * 32))
    assert len(secrets) == 1
    assert len(secrets.pop()) == 32
    assert [path.name for path in folder.iterdir()] == [SECRET_FILE]
    assert stat.S_IMODE((folder / SECRET_FILE).stat().st_mode) == 0o600


def test_a_folder_that_keeps_nothing_leaves_each_process_its_own_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = tmp_path / "file" / "data"
    nowhere.parent.write_text("not a folder")
    assert kept_secret(nowhere) != kept_secret(nowhere)
    assert "set DUPMAE_CURSOR_SECRET" in caplog.text


def test_a_damaged_secret_is_named(tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).write_bytes(b"short")
    with pytest.raises(OSError, match="5 bytes, not 32; delete it"):
        kept_secret(tmp_path)
