"""Rules for the tree itself: names, versions, nothing of the machine it was written on."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc", "base", "core", "manager", "managers", "handlers"}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root|work|home|Users)/\w+|\.\./shared\b|\bissue \d")


def committed() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def newest_section(changelog: str) -> str:
    """The first version that heads a section.

    >>> newest_section("# Changelog\\n\\n## [1.2.0] - 2026-01-02\\n\\n## [1.1.0] - 2025-01-02\\n")
    '1.2.0'
    """
    found = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    assert found, "CHANGELOG.md has no section like '## [0.1.0] - 2026-01-31'"
    return found[1]


def test_the_version_is_that_of_the_newest_changelog_section() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == newest_section((ROOT / "CHANGELOG.md").read_text())
    assert project["version"] == version(project["name"])


def test_no_module_is_a_drawer() -> None:
    drawers = [path for path in committed() if path.suffix == ".py" and DRAWERS & {path.stem, path.parent.name}]
    assert not drawers, "name the thing inside instead"


@pytest.mark.parametrize("line", ["see /root/x", "`/home/me/data`", "cd ../shared/data", "closes issue 7"])
def test_a_machine_path_is_recognized(line: str) -> None:
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize("line", ["https://example.org/home/page", "a/work/b", "tissue 2", "reissue 3", "/v1/search"])
def test_an_innocent_path_is_left_alone(line: str) -> None:
    assert not MACHINE_PATH.search(line)


def test_no_committed_text_names_a_path_of_one_machine() -> None:
    found = []
    for path in committed():
        if path == Path(__file__) or b"\0" in (content := path.read_bytes()):
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_PATH.finditer(content.decode())]
    assert not found
