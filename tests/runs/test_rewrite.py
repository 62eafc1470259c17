"""A graph written anew gives the bits of the one before, or is not kept."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from torch import Tensor

from model.artifact import BUNDLED, GRAPH, Artifact
from model.checkpoint import Checkpoint, Facts, load
from model.encoder import Encoder
from model.expansion import narrowed
from runs import rewrite
from tests.conftest import TEXTS


@pytest.fixture
def out(tiny_artifact_int8: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command writes that is given the tiny artifact and a collection."""
    (tmp_path / "beir" / "qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        lines = (json.dumps({"_id": f"{number}", "text": text}) for number, text in enumerate(TEXTS))
        (tmp_path / "beir" / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "beir" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n0\t0\t1\n3\t3\t1\n")
    words = ["rewrite", str(tiny_artifact_int8.path), str(tmp_path / "out"), str(tmp_path / "beir")]
    monkeypatch.setattr(sys, "argv", words)
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


def test_the_bundled_graph_is_the_one_that_this_release_writes() -> None:
    written = rewrite.rewritten(Artifact.open(BUNDLED), None)
    assert ir.to_proto(written).SerializeToString() == (BUNDLED / GRAPH).read_bytes()


@pytest.fixture
def narrow(out: Path, tiny_artifact_int8: Artifact) -> Checkpoint:
    """The network of the tiny artifact, narrowed and saved beside where the command writes."""
    checkpoint = narrowed(load(tiny_artifact_int8.path), TEXTS, share=0.9, max_tokens=64, k=32)
    checkpoint.save(out.parent / "narrow")
    return checkpoint


def test_with_the_expansions_of_a_checkpoint_it_says_these_and_a_texts_own_words(
    out: Path, narrow: Checkpoint, tiny_artifact_int8: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = list(sys.argv)
    monkeypatch.setattr(sys, "argv", [*words, "--expansions", str(out.parent / "narrow")])
    rewrite.main()
    new = Artifact.open(out)
    assert new.manifest.training == {"runs": list(narrow.facts.history)}
    share = new.manifest.compatible_with[tiny_artifact_int8.fingerprint]
    assert 0 < share <= 1
    encoder, allowed = Encoder(new), narrow.model.encoder.expansions
    assert allowed is not None
    for text, found in zip(TEXTS, encoder.encode_documents(TEXTS), strict=True):
        assert set(found.vector.ot_indices.tolist()) <= {*allowed.tolist(), *encoder.token_ids(text)}
    assert not set(encoder.token_ids(TEXTS[0])) <= set(allowed.tolist())

    monkeypatch.setattr(sys, "argv", ["rewrite", str(out), str(out.parent / "again"), words[-1]])
    rewrite.main()  # what was narrowed stays so
    again = Artifact.open(out.parent / "again")
    pairs = zip(encoder.encode_queries(TEXTS), Encoder(again).encode_queries(TEXTS), strict=True)
    assert all(rewrite.same(one, two) for one, two in pairs)
    assert again.manifest.compatible_with == {tiny_artifact_int8.fingerprint: share, new.fingerprint: 1.0}


def test_expansions_of_another_model_or_none_are_refused(
    out: Path, narrow: Checkpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--expansions", str(out.parent / "narrow")])
    narrow._replace(facts=Facts(dense_dim=16, expansions=narrow.facts.expansions)).save(out.parent / "narrow")
    with pytest.raises(SystemExit, match="2"):
        rewrite.main()
    narrow.model.encoder.expansions = None
    narrow._replace(facts=Facts(dense_dim=16)).save(out.parent / "narrow")
    with pytest.raises(SystemExit, match="2"):
        rewrite.main()
    shown = capsys.readouterr().err
    assert "was not made from" in shown
    assert "may say any word" in shown
    assert not out.exists()


def test_where_a_vector_changes_nothing_is_written(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bent(artifact: Artifact, expansions: Tensor | None, rewritten=rewrite.rewritten) -> ir.Model:  # type: ignore[no-untyped-def]
        model: ir.Model = rewritten(artifact, expansions)
        gain = model.graph.initializers["terms.gain"]
        assert gain.const_value is not None
        gain.const_value = ir.tensor(gain.const_value.numpy() * np.float32(1.0001), name="terms.gain")
        return model

    monkeypatch.setattr(rewrite, "rewritten", bent)
    with pytest.raises(SystemExit, match="changed; nothing was written"):
        rewrite.main()
    assert [path.name for path in out.parent.iterdir()] == ["beir"]


def test_a_folder_that_exists_is_refused_before_anything_is_encoded(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out.mkdir()
    with pytest.raises(SystemExit, match="2"):
        rewrite.main()
    assert "exists; choose another folder" in capsys.readouterr().err
    assert not list(out.iterdir())
