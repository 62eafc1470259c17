import copy
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from model.artifact import MODEL_CARD, Artifact, ArtifactError, Precision
from model.checkpoint import Checkpoint, Facts
from model.cli import app
from model.dupmae import DupMAE, FusedEncoder
from model.export import ExportError

FACTS = {
    "name": "my model",
    "base_model": "none",
    "licence": "MIT",
    "k_query": 8,
    "max_query_tokens": 16,
    "max_document_tokens": 32,
}


@pytest.fixture
def checkpoint(tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    Checkpoint(DupMAE(copy.deepcopy(tiny_network)), tiny_tokenizer, Facts(dense_dim=16)).save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_info_shows_what_a_person_wants_to_know(tiny_artifact: Artifact) -> None:
    shown = CliRunner().invoke(app, ["info", str(tiny_artifact.path)]).output
    assert "tiny (fp32, Apache-2.0, from none)" in shown
    assert tiny_artifact.fingerprint in shown
    assert "16 kept per query, 32 per document" in shown


def test_info_as_json_is_the_manifest(tiny_artifact: Artifact) -> None:
    shown = CliRunner().invoke(app, ["info", str(tiny_artifact.path), "--json"]).output
    assert json.loads(shown) == tiny_artifact.manifest.model_dump()


def test_info_on_a_folder_that_is_no_artifact_raises(tmp_path: Path) -> None:
    assert isinstance(CliRunner().invoke(app, ["info", str(tmp_path)]).exception, ArtifactError)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_export_writes_an_artifact_with_the_given_facts_and_card(
    checkpoint: Path, tmp_path: Path, precision: str
) -> None:
    (tmp_path / "facts.json").write_text(json.dumps(FACTS))
    (tmp_path / "card.md").write_text("# Mine\n")
    (tmp_path / "texts.txt").write_text("the king of the island\nhow do i compress a file\n")
    out = tmp_path / "out"
    command = ["export", str(checkpoint), str(out), "--precision", precision]
    for option, name in (("--facts", "facts.json"), ("--card", "card.md"), ("--texts", "texts.txt")):
        command += [option, str(tmp_path / name)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.exception
    artifact = Artifact.open(out)
    assert artifact.manifest.model_dump().items() >= FACTS.items()
    assert artifact.manifest.precision == precision
    assert (out / MODEL_CARD).read_text() == "# Mine\n"
    assert artifact.fingerprint[:12] in result.output


def test_export_judges_on_the_files_it_is_given_and_says_when_there_are_none(checkpoint: Path, tmp_path: Path) -> None:
    records = [
        '{"query": "the king", "pos": ["the king of the island", "the king of the island"], "neg": ["a file"]}',
        '{"query": "compress", "pos": ["how do i compress a file"], "neg": ["the horse and the dog"]}',
    ]
    files = [tmp_path / name for name in ("one.jsonl", "two.jsonl")]
    for file, record in zip(files, records, strict=True):
        file.write_text(record + "\n")
    command = ["export", str(checkpoint), str(tmp_path / "judged"), "--precision", "fp16"]
    result = CliRunner().invoke(app, [*command, "--judge", str(files[0]), "--judge", str(files[1])])
    assert result.exit_code == 0, result.exception
    assert f"{files[0]}: left out 1 repeated texts" in result.output
    assert re.findall(r"(\w+)\.jsonl: network (?:0|1)\.\d{4}, artifact .*; 1 queries, 2 passages", result.output) == [
        "one",
        "two",
    ]
    assert "was not judged" not in result.output
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "judged")]).output
    assert "one.jsonl (export) queries 1, passages 2, network nDCG@10 " in shown
    command = ["export", str(checkpoint), str(tmp_path / "not"), "--precision", "fp16"]
    assert "was not judged: give held-out records with --judge" in CliRunner().invoke(app, command).output


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "Invalid JSON"),
        ('{"name": "x", "lisense": "MIT"}', "lisense"),
        ('{"name": "x", "max_document_tokens": 129}', "129 tokens a document, but the network has 128 positions"),
    ],
)
def test_facts_that_cannot_be_are_named(checkpoint: Path, tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "facts.json").write_text(content)
    command = ["export", str(checkpoint), str(tmp_path / "out"), "--facts", str(tmp_path / "facts.json")]
    raised = CliRunner().invoke(app, command).exception
    assert isinstance(raised, ExportError)
    assert complaint in str(raised)
