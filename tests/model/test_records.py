"""Training records: what is read is what was meant, any of them at any time, and a broken rewrite is never seen."""

import gzip
import hashlib
import lzma
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from model.lines import MAX_LINE_BYTES, SourceError
from model.records import Example, Records, Rewritten, read_examples, rewrite, to_line

EXAMPLES = [Example(f"query {i} ü", (f"answer {i}",), tuple(f"wrong {i} {j}" for j in range(i % 4))) for i in range(23)]

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
}


def write(path: Path, *records: Example | str) -> Path:
    path.write_text("".join((r if isinstance(r, str) else to_line(r)) + "\n" for r in records), encoding="utf-8")
    return path


def test_records_are_read_in_flagembeddings_format(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl",
        '{"query": "q", "pos": ["a"], "neg": ["b", "c"]}',
        '{"query": "r", "pos": ["d"], "neg": null, "pos_scores": null}',
        "",
        '{"query": "s", "pos": ["e"], "neg": ["f"], "pos_scores": [2], "neg_scores": [-0.5], "id": 7, "prompt": "p"}',
    )
    assert list(read_examples(path)) == [
        Example("q", ("a",), ("b", "c")),
        Example("r", ("d",)),
        Example("s", ("e",), ("f",), (2.0,), (-0.5,), {"id": 7, "prompt": "p"}),
    ]


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(
    st.builds(
        lambda query, texts, cut, scores, others: Example(
            query,
            tuple(texts[:cut]),
            tuple(texts[cut:]),
            tuple(map(float, range(cut))) if scores else (),
            tuple(map(float, range(len(texts) - cut))) if scores else (),
            others,
        ),
        texts,
        st.lists(texts, min_size=2, unique=True),
        st.integers(1, 2),
        st.booleans(),
        st.dictionaries(st.sampled_from(["id", "type", "prompt"]), st.integers() | texts),
    )
)
def test_what_is_written_is_read_again(example: Example) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert list(read_examples(write(Path(folder) / "one.jsonl", example))) == [example]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"query": "q"}', "pos is missing or empty"),
        ('{"query": "q", "pos": []}', "pos is missing or empty"),
        ('{"query": "q", "pos": "abc"}', 'pos is "abc", not a list of strings'),
        ('{"query": "q", "pos": [1]}', r"pos is \[1\], not a list of strings"),
        ('{"query": "q", "pos": ["a"], "neg": "b"}', 'neg is "b", not a list of strings'),
        ('{"query": 3, "pos": ["a"]}', "query is 3, not a string"),
        ('{"pos": ["a"]}', "query is null, not a string"),
        ('["q"]', "not a JSON object"),
        ('{"query": "q", "pos": ["a"]', "not JSON: .* at column 28"),
        ('{"query": "q", "pos": ["a"], "pos_scores": [1, 2]}', "pos_scores holds 2 numbers for 1 texts"),
        ('{"query": "q", "pos": ["a"], "neg_scores": [1]}', "neg_scores holds 1 numbers for 0 texts"),
        ('{"query": "q", "pos": ["a"], "pos_scores": ["1"]}', "pos_scores is .*, not a list of numbers"),
        ('{"query": "q", "pos": ["a"], "pos_scores": [true]}', "pos_scores is .*, not a list of numbers"),
        ('{"query": "q", "pos": ["a"], "pos_scores": [NaN]}', "NaN is not a JSON number"),
        ('{"query": "q", "pos": ["a"], "pos_scores": [1e999]}', "not finite"),
        ('{"query": "q", "pos": ["a"], "pos_scores": [1%s]}' % ("0" * 400), "too large"),
        ('{"query": "\\ud800", "pos": ["a"]}', "half of a surrogate pair"),
        ('{"query": "q", "pos": ["a"], "id": %s}' % ("[" * 100_000), "nested too deeply"),
        ('{"query": "%s", "pos": ["a"]}' % ("q" * MAX_LINE_BYTES), "longer than 16 MiB"),
    ],
    ids=lambda value: value[:60],
)
def test_a_bad_line_is_named_with_its_place_what_is_wanted_and_what_was_found(
    tmp_path: Path, line: str, found: str
) -> None:
    path = write(tmp_path / "train.jsonl", EXAMPLES[0], line)
    for read in (lambda: list(read_examples(path)), lambda: Records(path)):
        with pytest.raises(SourceError, match=rf'train\.jsonl:2: want {{"query": .*}}: .*{found}'):
            read()


def test_bytes_that_are_no_text_are_named_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b'{"query": "\xff", "pos": ["a"]}\n')
    with pytest.raises(SourceError, match=r"train\.jsonl:1: .*not UTF-8: byte 0xff at 11"):
        Records(tmp_path / "train.jsonl")


def test_what_cannot_be_learned_from_is_left_out_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl",
        '{"query": " ", "pos": ["a"]}',
        '{"query": "q", "pos": ["", "\\t"], "neg": ["b"]}',
        '{"query": "r", "pos": ["a", " ", "a"], "neg": ["b", "a", "c", "b", ""], "pos_scores": [1, 2, 3],'
        ' "neg_scores": [4, 5, 6, 7, 8], "pos_id": [1, 2, 3], "neg_id": ["4", "5", "6", "7", "8"], "neg_note": [1]}',
    )
    counts = Counter[str]()
    others: dict[str, JsonValue] = {"pos_id": [1], "neg_id": ["4", "6"], "neg_note": [1]}
    assert list(read_examples(path, counts)) == [Example("r", ("a",), ("b", "c"), (1.0,), (4.0, 6.0), others)]
    assert counts == {
        "records without a query": 1,
        "records without a positive": 1,
        "blank texts": 4,
        "repeated texts": 3,
    }
    with Records(path) as records:
        assert (len(records), records.skipped) == (1, counts)


def test_a_score_that_fits_no_text_is_a_programmers_error() -> None:
    with pytest.raises(AssertionError, match="a score for each negative"):
        replace(Example("q", ("a",), ("b",), (1.0,), (2.0,)), negatives=("c", "d"))


@pytest.mark.parametrize("ending", PACK)
def test_any_record_of_a_file_packed_or_not_is_there_by_position(tmp_path: Path, ending: str) -> None:
    plain = write(tmp_path / "train.jsonl", *EXAMPLES[:9], "", '{"query": "", "pos": ["a"]}', *EXAMPLES[9:])
    content = plain.read_bytes()
    packed = tmp_path / f"packed.jsonl{ending}"
    packed.write_bytes(PACK[ending](content))
    with Records(packed) as records:
        assert list(records) == EXAMPLES
        assert [records[i] for i in (22, 8, 9, 0, -1)] == [EXAMPLES[i] for i in (22, 8, 9, 0, -1)]
        assert records[3:20:5] == EXAMPLES[3:20:5]
        assert records.digest == hashlib.sha256(content).hexdigest()
        with pytest.raises(IndexError):
            records[23]


def test_a_last_line_without_its_newline_counts(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(to_line, EXAMPLES)))
    with Records(path) as records:
        assert list(records) == EXAMPLES


def test_a_file_that_changes_in_use_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", *EXAMPLES)
    with Records(path) as records:
        write(path, EXAMPLES[0])
        with pytest.raises(SourceError, match="changed while it was in use"):
            records[20]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.jsonl", None, "No such file"),
        ("missing.jsonl.gz", None, "No such file"),
        ("cut.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "damaged or incomplete archive"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"{name}: {said}"):
        Records(tmp_path / name)


# ---- rewriting


def shout(examples: list[Example]) -> Iterator[Example]:
    """A step that knows its batch: a result that was made in another one would differ."""
    size = len(examples)
    return (replace(e, query=f"{e.query.upper()} of {size}", others={"first": examples[0].query}) for e in examples)


def test_a_rewritten_file_appears_whole_with_nothing_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.jsonl"
    assert rewrite(EXAMPLES, out, shout, batch=4, made_by={"source": "abc"}) == Rewritten(written=23, resumed=0)
    found = list(read_examples(out))
    assert [example.negatives for example in found] == [example.negatives for example in EXAMPLES]
    assert found[-1].query == "QUERY 22 Ü of 3"
    assert list(out.parent.iterdir()) == [out]


def broken_at(position: int) -> Iterator[Example]:
    yield from EXAMPLES[:position]
    raise SourceError("the disk is gone")


def test_a_run_goes_on_after_the_last_whole_batch_wherever_its_file_was_cut(tmp_path: Path) -> None:
    whole, out, partial = (tmp_path / name for name in ("whole.jsonl", "out.jsonl", "out.jsonl.partial"))
    rewrite(EXAMPLES, whole, shout, batch=4, made_by={})
    content = whole.read_bytes()
    for cut in range(0, len(content) + 1, 29):
        with pytest.raises(SourceError, match="the disk is gone"):
            rewrite(broken_at(5), out, shout, batch=4, made_by={})
        partial.write_bytes(content[:cut])
        kept = content[:cut].count(b"\n") // 4 * 4
        assert rewrite(EXAMPLES, out, shout, batch=4, made_by={}) == Rewritten(written=23, resumed=kept)
        assert out.read_bytes() == content
        out.unlink()


KILLED_AT_EVERY_LINE = """
import os, signal, sys
from pathlib import Path
import model.records
from model.records import rewrite
from tests.model.test_records import EXAMPLES, shout

root = Path(sys.argv[1])

def go_on(folder, lives_for=None):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    left = [lives_for]
    def count(frame, event, _):
        if frame.f_code.co_filename != model.records.__file__:
            return None
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return count
    if lives_for:
        sys.settrace(count)
    rewrite(EXAMPLES[:14], folder / "out.jsonl", shout, batch=4, made_by={"source": "abc"})
    os._exit(0)

lives_for = killed = 0
while killed == lives_for:
    lives_for += 1
    folder = root / str(lives_for)
    folder.mkdir()
    killed += go_on(folder, lives_for) == signal.SIGKILL
    if not (folder / "out.jsonl").exists():
        assert go_on(folder) == 0, lives_for
print(killed)
"""


def test_a_run_that_was_killed_at_any_line_ends_with_the_same_bytes(tmp_path: Path) -> None:
    unbroken = tmp_path / "unbroken.jsonl"
    rewrite(EXAMPLES[:14], unbroken, shout, batch=4, made_by={"source": "abc"})
    script = [sys.executable, "-c", KILLED_AT_EVERY_LINE, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
    found = list(tmp_path.glob("*/out.jsonl"))
    assert len(found) == int(done.stdout) + 1
    assert {path.read_bytes() for path in found} == {unbroken.read_bytes()}


def test_an_unfinished_run_of_another_origin_is_refused_and_restart_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(SourceError):
        rewrite(broken_at(9), out, shout, batch=4, made_by={"source": "abc", "scale": 1})
    with pytest.raises(FileExistsError, match=r"batch was 4, is 5; scale was 1, is 20\. Give .* --restart"):
        rewrite(EXAMPLES, out, shout, batch=5, made_by={"source": "abc", "scale": 20})
    assert rewrite(EXAMPLES, out, shout, batch=5, made_by={}, restart=True).resumed == 0
    assert len(list(read_examples(out))) == 23


def test_a_partial_file_of_unknown_origin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.partial").write_text(to_line(EXAMPLES[0]) + "\n")
    with pytest.raises(FileExistsError, match="batch was None, is 4"):
        rewrite(EXAMPLES, tmp_path / "out.jsonl", shout, batch=4, made_by={})


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    out = write(tmp_path / "out.jsonl", EXAMPLES[0])
    with pytest.raises(FileExistsError, match=r"exists already; .* --restart"):
        rewrite(EXAMPLES, out, shout, batch=4, made_by={})
    with pytest.raises(SourceError):
        rewrite(broken_at(9), out, shout, batch=4, made_by={}, restart=True)
    assert list(read_examples(out)) == EXAMPLES[:1]
    rewrite(EXAMPLES, out, shout, batch=4, made_by={}, restart=True)
    assert len(list(read_examples(out))) == 23


def test_a_packed_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"out\.jsonl\.gz: records are written plain"):
        rewrite(EXAMPLES, tmp_path / "out.jsonl.gz", shout, batch=4, made_by={})


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"

    def another(batch: list[Example]) -> list[Example]:
        with pytest.raises(BlockingIOError, match="another process is writing it"):
            rewrite(EXAMPLES, out, shout, batch=4, made_by={})
        return list(shout(batch))

    assert rewrite(EXAMPLES, out, another, batch=4, made_by={}).written == 23


def test_reading_records_needs_no_torch() -> None:
    script = 'import sys, model.records; assert not {"torch", "transformers"} & sys.modules.keys()'
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
