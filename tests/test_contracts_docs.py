"""What README and docs promise and a machine can check: settings, commands, links."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main
from pydantic import BaseModel
from typer.core import TyperGroup

import model.cli
from model.flags import flag_of
from model.options import AdaptOptions, FinetuneOptions, PretrainOptions
from model.score import ScoreOptions
from service import settings
from service.cli import app
from service.metrics import Metrics
from service.problems import KINDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


class Example(NamedTuple):
    page: str
    line: str


def commands(text: str) -> list[str]:
    """The `dupmae` lines of fenced blocks, continued lines joined, without prompts, environment, pipes and comments.

    >>> commands("```sh\\n$ DUPMAE_DEPTH=10 dupmae search \\\\\\n  'a b' | head  # three\\n```\\ndupmae prose\\n")
    ["dupmae search   'a b'"]
    """
    lines = [line for block in FENCE.findall(text) for line in block.replace("\\\n", "").splitlines()]
    found = [re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(dupmae .*)", line) for line in lines]
    return [re.split(r"\s+(?:[#|>&])", match[1])[0].rstrip() for match in found if match]


def unknown_words(command: str) -> Iterator[str]:
    """The words of a `dupmae` line that no command or option of that name stands for."""
    node = typer.main.get_command(app)
    _, *words = command.split()
    while isinstance(node, TyperGroup) and words and not words[0].startswith("-"):
        name, *words = words
        if name not in node.commands:
            yield name
            return
        _, found, _ = node.resolve_command(typer.Context(node), [name])
        assert found is not None
        node = found
    options = {option for parameter in node.params for option in [*parameter.opts, *parameter.secondary_opts]}
    for word in words:
        option = word.strip("[]").partition("=")[0]
        if option.startswith("--") and option not in options | {"--help"}:
            yield option


EXAMPLES = [Example(page.name, line) for page in PAGES for line in commands(page.read_text())]


def test_every_setting_stands_in_the_documented_table_with_its_default() -> None:
    documented = [line for line in (ROOT / "docs" / "settings.md").read_text().splitlines() if line.startswith("| `")]
    table = [f"| `{row.name}` | {row.type} | {row.default} | {row.description} |" for row in settings.table()]
    assert documented == table


@pytest.mark.parametrize(
    ("command", "options"),
    [("pretrain", PretrainOptions), ("finetune", FinetuneOptions), ("score", ScoreOptions), ("adapt", AdaptOptions)],
)
def test_every_option_of_a_training_stands_in_its_documented_table(command: str, options: type[BaseModel]) -> None:
    section = (
        (ROOT / "docs" / "training.md").read_text().partition(f"## Options of {command}\n")[2].partition("\n## ")[0]
    )
    documented = [line for line in section.splitlines() if line.startswith("| `")]
    assert documented == [
        f"| `{flag_of(name)}` | {'' if field.default in (None, False) else field.default} | {field.description} |"
        for name, field in options.model_fields.items()
    ]


def test_every_kind_of_error_stands_in_the_documented_table() -> None:
    documented = re.findall(
        r"^\| (\d+) \| `urn:dupmae:([a-z-]+)`", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    assert {(str(kind.status), kind.name) for kind in KINDS.values()} <= set(documented)


def test_every_metric_stands_in_the_documented_table() -> None:
    documented = re.findall(r"^\| `(dupmae_\w+)`", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    exposed = re.findall(r"^# TYPE (\w+)", Metrics().text().decode(), re.MULTILINE)
    assert sorted(documented) == sorted(name for name in exposed if not name.endswith("_created"))


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_every_documented_command_exists_with_its_options(example: Example) -> None:
    assert not list(unknown_words(example.line))


@pytest.mark.parametrize("line", re.findall(r"dupmae .*", model.cli.EXAMPLES))
def test_every_worked_example_of_the_help_is_a_command(line: str) -> None:
    assert not list(unknown_words(line))


def test_the_readme_shows_commands() -> None:
    assert any(example.page == "README.md" for example in EXAMPLES)


@pytest.mark.parametrize(
    "line", ["dupmae serch", "dupmae index bild", "dupmae search --limt 3", "dupmae index build --nmae=x"]
)
def test_a_misspelt_command_is_found_out(line: str) -> None:
    assert list(unknown_words(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken


def test_every_make_target_of_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name for page in PAGES for name in re.findall(r"(?:`|^ *|\d )make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert named
    assert named <= targets


def test_every_module_has_its_line_in_the_tree_of_the_readme() -> None:
    tree = (ROOT / "README.md").read_text().partition("\n## The tree\n")[2].partition("\n## ")[0]
    names = r"[a-z0-9_]+(?:/|\.py)"
    lines = re.findall(rf"^ *({names}(?:, {names})*) ", tree, re.MULTILINE)
    listed = [name for line in lines for name in line.split(", ")]
    existing = ["deploy/"]
    for package in ("model", "indexer", "service"):
        inside = (ROOT / package).iterdir()
        folders = [f"{path.name}/" for path in inside if path.is_dir() and not path.name.startswith("_")]
        modules = [path.name for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"]
        existing += [f"{package}/", *folders, *modules]
    assert sorted(listed) == sorted(existing)


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200
