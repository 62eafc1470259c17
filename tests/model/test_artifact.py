import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from model.artifact import (
    FILES,
    GRAPH,
    MANIFEST,
    MODEL_CARD,
    TOKENIZER,
    VECTOR_FIELDS,
    Artifact,
    ArtifactError,
    Manifest,
    digest,
)
from model.encoder import Encoder, EncodingError


@pytest.fixture
def folder(tiny_artifact: Artifact, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_artifact.path, tmp_path / "copy")


def change_manifest(folder: Path, **changes: Any) -> None:
    fields = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps(fields))


def seal(folder: Path) -> Artifact:
    """Make the fingerprint right again, as someone who edits an artifact by hand would."""
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    change_manifest(folder, fingerprint=digest(folder, manifest))
    return Artifact.open(folder)


def test_a_manifest_survives_its_file(tiny_artifact: Artifact) -> None:
    assert Manifest.model_validate_json(tiny_artifact.manifest.model_dump_json()) == tiny_artifact.manifest
    assert Artifact.open(tiny_artifact.path) == tiny_artifact


def test_a_copy_has_the_same_fingerprint(folder: Path, tiny_artifact: Artifact) -> None:
    assert Artifact.open(folder).fingerprint == tiny_artifact.fingerprint


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        Artifact.open(folder)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere is not an artifact"):
        Artifact.open(tmp_path / "nowhere")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER])
@pytest.mark.parametrize("damage", [truncate, flip_a_byte])
def test_a_damaged_file_is_never_a_wrong_vector(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(folder / name)
    with pytest.raises(ArtifactError, match=r"is damaged: .* export it anew"):
        Artifact.open(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"name": "another program\'s"}'])
def test_a_manifest_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=MANIFEST):
        Artifact.open(folder)


def test_another_format_version_is_told_apart_from_damage(folder: Path) -> None:
    change_manifest(folder, format_version=99)
    with pytest.raises(ArtifactError, match="format version 99, this release reads 1; export the checkpoint again"):
        Artifact.open(folder)


def test_an_unknown_field_is_refused_by_name(folder: Path) -> None:
    change_manifest(folder, temperature=0.5)
    with pytest.raises(ArtifactError, match="field temperature"):
        Artifact.open(folder)


OTHER = {
    "dense_dim": 8,
    "vocabulary_size": 7,
    "k_query": 3,
    "k_document": 3,
    "max_query_tokens": 5,
    "max_document_tokens": 5,
    "query_prompt": "x",
    "document_prompt": "x",
    "activation": "log1p",
    "rarity_weight": 0.9,
    "precision": "int8",
}


@pytest.mark.parametrize("field", [field for field in VECTOR_FIELDS if field in OTHER])
def test_a_field_that_changes_a_vector_is_in_the_fingerprint(folder: Path, field: str) -> None:
    change_manifest(folder, **{field: OTHER[field]})
    with pytest.raises(ArtifactError, match="is damaged"):
        Artifact.open(folder)


def test_every_field_either_changes_the_vectors_or_only_describes() -> None:
    describes = {"name", "base_model", "training", "evaluation", "licence", "fingerprint", "compatible_with"}
    assert set(VECTOR_FIELDS) | describes == set(Manifest.model_fields)
    assert set(OTHER) | {"format_version", "pooling"} == set(VECTOR_FIELDS)  # these two have one value so far


def test_what_only_describes_may_be_edited(folder: Path, tiny_artifact: Artifact) -> None:
    change_manifest(folder, name="another name", evaluation={"scifact": {"ndcg@10": 0.5}})
    (folder / MODEL_CARD).write_text("# Better words\n")
    assert Artifact.open(folder).fingerprint == tiny_artifact.fingerprint


def test_a_graph_with_other_names_is_refused(folder: Path) -> None:
    model = ir.load(folder / GRAPH)
    model.graph.outputs[0].name = "embedding"
    ir.save(model, folder / GRAPH)
    with pytest.raises(ArtifactError, match=r"has outputs .*embedding.*, not .*cls"):
        Encoder(seal(folder))


def test_a_graph_of_another_width_is_refused(folder: Path) -> None:
    change_manifest(folder, dense_dim=99)
    with pytest.raises(ArtifactError, match="gives 16 dense dimensions, the manifest says 99"):
        Encoder(seal(folder))


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    change_manifest(folder, vocabulary_size=30522)
    with pytest.raises(ArtifactError, match=r"tokenizer.json has \d+ entries, the manifest says 30522"):
        Encoder(seal(folder))


def test_a_graph_that_gives_nan_is_refused_by_text(folder: Path) -> None:
    model = ir.load(folder / GRAPH)
    weight = model.graph.initializers["project.weight"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(np.full_like(weight.const_value.numpy(), np.nan), name="project.weight")
    ir.save(model, folder / GRAPH)
    with pytest.raises(EncodingError, match="NaN or infinity") as refused:
        Encoder(seal(folder)).encode_queries(["the king", "water"])
    assert refused.value.positions == (0, 1)
