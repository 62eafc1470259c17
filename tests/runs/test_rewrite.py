"""A graph written anew gives the bits of the one before, or is not kept."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from model.artifact import Artifact
from model.encoder import Encoder
from runs import rewrite
from tests.conftest import TEXTS


@pytest.fixture
def out(tiny_artifact_int8: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command writes that is given the tiny artifact and a file of texts."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    monkeypatch.setattr(sys, "argv", ["rewrite", str(tiny_artifact_int8.path), str(tmp_path / "out"), str(texts)])
    return tmp_path / "out"


def test_what_is_written_gives_the_same_vectors_and_names_what_it_may_serve(
    out: Path, tiny_artifact_int8: Artifact
) -> None:
    rewrite.main()
    new = Artifact.open(out)
    assert new.manifest.compatible_with == {tiny_artifact_int8.manifest.fingerprint: 1.0}
    for one, two in zip(
        Encoder(tiny_artifact_int8).encode_documents(TEXTS), Encoder(new).encode_documents(TEXTS), strict=True
    ):
        assert rewrite.same(one, two)


def test_where_a_vector_changes_nothing_is_written(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bent(artifact: Artifact, rewritten=rewrite.rewritten) -> ir.Model:  # type: ignore[no-untyped-def]
        model: ir.Model = rewritten(artifact)
        gain = model.graph.initializers["terms.gain"]
        assert gain.const_value is not None
        gain.const_value = ir.tensor(gain.const_value.numpy() * np.float32(1.0001), name="terms.gain")
        return model

    monkeypatch.setattr(rewrite, "rewritten", bent)
    with pytest.raises(SystemExit, match="changed; nothing was written"):
        rewrite.main()
    assert [path.name for path in out.parent.iterdir()] == ["texts.jsonl"]


def test_a_folder_that_exists_is_refused_before_anything_is_encoded(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out.mkdir()
    with pytest.raises(SystemExit, match="2"):
        rewrite.main()
    assert "exists; choose another folder" in capsys.readouterr().err
    assert not list(out.iterdir())
