from contextlib import closing
from pathlib import Path

import pytest

from indexer.catalog import open_engine
from indexer.store import Build
from model.artifact import Artifact
from service import demo
from service.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, tiny_artifact: Artifact) -> Settings:
    return Settings(data=tmp_path / "data", artifact=tiny_artifact.path, threads=1)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "zipper.py").write_text('"""Open and close a file."""\n')
    return tmp_path / "lib"


def published(settings: Settings) -> Build:
    with closing(open_engine(settings)) as engine:
        return engine.published(demo.INDEX)


def test_a_second_start_serves_the_same_build(settings: Settings, sources: Path) -> None:
    demo.prepare(settings, sources)
    first = published(settings)
    demo.prepare(settings, sources)
    assert published(settings) == first
    assert first.documents == 1


def test_other_documentation_makes_another_build(settings: Settings, sources: Path) -> None:
    demo.prepare(settings, sources)
    (sources / "sorter.py").write_text('"""Sort a list of words."""\n')
    demo.prepare(settings, sources)
    assert published(settings).documents == 2


def test_the_greeting_has_links_to_try(settings: Settings, sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.prepare(settings, sources)
    capsys.readouterr()
    demo.greet("http://localhost:8000", published(settings))
    said = capsys.readouterr().out
    assert said.count("http://localhost:8000/?q=") == 3
