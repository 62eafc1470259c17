"""`make bench`: that it says what it will do, goes on when a part fails, and leaves everything behind. The scripts are
run by hand, since speed is no matter for a test."""

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[1] / "bench"
LIBRARIES = {"callers.py", "peers.py", "record.py", "suite.py"}

WORKS = """
from record import parser_of, picture, write
given = parser_of("A table.").parse_args()
print("| a table |")
write(given.json, [{"n": 1}], [picture("Lines", "n", "ms", {"ours": [(1, 2.0), (10, 3.0)]}, log=True)])
"""
BARS = WORKS.replace("(1, 2.0), (10, 3.0)", "('search', 1.0), ('serve', 2.0)").replace(", log=True", "")
FAILS = "import sys; print('half a table', flush=True); sys.exit('no index here')"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("suite")


def part(suite: ModuleType, folder: Path, name: str, source: str) -> object:
    script = folder / f"{name}.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(BENCH)!r})\n{source}")
    return suite.Part(name, f"what {name} measures", str(script))


def test_a_part_that_fails_is_named_and_the_others_run(
    suite: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"lines": WORKS, "broken": FAILS, "bars": BARS}
    parts = [part(suite, tmp_path, name, source) for name, source in sources.items()]
    runs = [(each, ()) for each in parts]
    records = suite.run_all(runs, tmp_path, {})
    assert [bool(record["exit_code"]) for record in records] == [False, True, False]
    assert [bool(record["figures"]) for record in records] == [True, False, True]
    assert suite.draw(records, tmp_path / "figures.png")
    with pytest.raises(SystemExit, match="failed: broken"):
        suite.finish(runs, records, tmp_path, True)
    shown = capsys.readouterr().out
    assert "half a table\nno index here" in shown
    assert "2 of 3 parts" in shown
    assert (tmp_path / "broken.txt").read_text() == "half a table\nno index here\n"
    assert (tmp_path / "figures.png").stat().st_size > 10_000


def test_what_is_finished_before_ctrl_c_is_kept(suite: ModuleType, tmp_path: Path) -> None:
    stop = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(5)"
    sources = {"lines": WORKS, "stopped": stop, "never": WORKS}
    runs = [(part(suite, tmp_path, name, source), ()) for name, source in sources.items()]
    records = suite.run_all(runs, tmp_path, {})
    assert [record["part"] for record in records] == ["lines"]
    with pytest.raises(SystemExit, match="interrupted before the end of: stopped, never"):
        suite.finish(runs, records, tmp_path, False)


def test_figures_say_what_made_them_and_where(suite: ModuleType, tmp_path: Path) -> None:
    figures = suite.run(part(suite, tmp_path, "lines", WORKS), (), tmp_path, {})["figures"]
    assert figures == json.loads((tmp_path / "lines.json").read_text())
    assert figures["command"].startswith("lines.py")
    assert figures["machine"]["cores"] >= 1
    assert figures["rows"] == [{"n": 1}]


def test_what_is_left_out_has_its_reason(suite: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        suite.Part("a", "both", "a.py", ("--whole",), ("--quick",)),
        suite.Part("b", "long", "b.py"),
        suite.Part("c", "rare", "c.py", needs="no_such_library"),
    ]
    runs, left_out = suite.plan(parts, quick=True)
    assert [(each.name, arguments) for each, arguments in runs] == [("a", ("--quick",))]
    assert left_out == {"b": "not in --quick", "c": "needs no_such_library, which is not installed"}
    suite.announce(runs, left_out, quick=True)
    assert "About 1 min on" in capsys.readouterr().out


def test_every_script_is_described_and_every_part_is_a_script() -> None:
    scripts = {path.name for path in BENCH.glob("*.py")}
    described = re.findall(r"^- `(\w+\.py)`", (BENCH / "README.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(scripts - LIBRARIES)


def test_every_part_is_a_script_of_the_folder_and_takes_its_arguments(suite: ModuleType) -> None:
    for each in suite.PARTS:
        source = (BENCH / each.script).read_text()
        options = {word for word in (*each.whole, *(each.quick or ())) if word.startswith("--")}
        assert not {option for option in options if f'"{option}"' not in source}, each.name
        assert ('"--json"' in source or "parser_of(__doc__)" in source) == each.figures, each.name
