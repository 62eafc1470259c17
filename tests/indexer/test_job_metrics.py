"""A build can be watched from outside: by Prometheus on a port, or through a file."""

import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from indexer.filling import Tally
from indexer.job_metrics import exposed


def figures(text: str) -> dict[tuple[str, ...], float]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


def test_the_port_shows_the_build_while_it_runs_and_the_file_how_it_ended(tmp_path: Path) -> None:
    seen: list[Tally] = []
    file = tmp_path / "build.prom"
    tally = Tally(stage="encoding", total=10, read=4, documents=3, encoded=2, unchanged=1, passages=5, bad=1)
    shown: dict[tuple[str, ...], float] = {}

    def build() -> None:
        with exposed("notes", seen.append, port=0, file=file) as (told, port):
            told(tally)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                shown.update(figures(answer.read().decode()))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        build()
    assert seen == [tally]
    assert shown["dupmae_build_documents", "encoded", "notes"] == 2
    assert shown["dupmae_build_documents", "notes", "unchanged"] == 1
    assert shown["dupmae_build_records_read", "notes"] == 4
    assert shown["dupmae_build_records", "notes"] == 10
    assert shown["dupmae_build_dead_letters", "notes"] == 1
    assert shown["dupmae_build_stage", "encoding", "notes"] == 1
    left = figures(file.read_text())
    assert (left["dupmae_build_stage", "encoding", "notes"], left["dupmae_build_stage", "failed", "notes"]) == (0, 1)


def test_nothing_is_exposed_unless_asked_for() -> None:
    seen: list[Tally] = []
    with exposed("notes", seen.append, port=None, file=None) as (told, port):
        told(Tally())
    assert (len(seen), port) == (1, None)
