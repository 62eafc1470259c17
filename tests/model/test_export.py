import copy
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from model.artifact import GRAPH, Artifact
from model.dupmae import Activation, FusedEncoder
from model.encoder import Encoder
from model.export import Agreement, ExportError, agreement, default_facts, docstrings, export
from model.products import TIED
from model.quantize import LIMIT, quantize
from tests.conftest import TEXTS, export_tiny


def initializers(artifact: Artifact) -> dict[str, np.ndarray]:
    graph = ir.load(artifact.path / GRAPH).graph
    return {name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value}


def test_float32_says_what_pytorch_says(tiny_network: FusedEncoder, tiny_encoder: Encoder) -> None:
    found = agreement(tiny_network, tiny_encoder, [*TEXTS, *docstrings(10)])
    assert found.cls_error < 1e-5
    assert found.ot_error < 1e-5
    assert found.overlap == 1


def test_a_prompt_is_put_before_what_both_are_asked(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    facts = default_facts("prompted", tiny_network).model_copy(update={"document_prompt": "text : "})
    export(tiny_network, tiny_tokenizer, tmp_path / "a", precision="fp32", facts=facts, card="", texts=TEXTS)


@pytest.mark.parametrize("activation", ["raw", "relu", "log1p"])
def test_every_activation_is_in_the_graph(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, activation: Activation
) -> None:
    network = copy.deepcopy(tiny_network)
    network.terms.activation = activation
    with torch.no_grad():
        network.terms.gain.uniform_(0.5, 2.0)
    artifact = export_tiny(network, tiny_tokenizer, tmp_path / activation, "fp32")  # verifies itself
    assert artifact.manifest.activation == activation


def test_exporting_twice_gives_the_same_bytes(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tiny_artifact: Artifact, tmp_path: Path
) -> None:
    again = export_tiny(tiny_network, tiny_tokenizer, tmp_path / "again", "fp32")
    assert (again.path / GRAPH).read_bytes() == (tiny_artifact.path / GRAPH).read_bytes()
    assert again.fingerprint == tiny_artifact.fingerprint


def test_the_precisions_have_fingerprints_of_their_own(
    tiny_artifact: Artifact, tiny_artifact_fp16: Artifact, tiny_artifact_int8: Artifact
) -> None:
    assert len({tiny_artifact.fingerprint, tiny_artifact_fp16.fingerprint, tiny_artifact_int8.fingerprint}) == 3


def test_the_tied_matrix_is_in_the_file_once(
    tiny_network: FusedEncoder, tiny_artifact: Artifact, tiny_artifact_fp16: Artifact, tiny_artifact_int8: Artifact
) -> None:
    tied = tiny_network.mlm.bert.embeddings.word_embeddings.weight.numel()
    for artifact in (tiny_artifact, tiny_artifact_fp16, tiny_artifact_int8):
        assert [name for name, array in initializers(artifact).items() if array.size == tied] == [
            "bert.embeddings.word_embeddings.weight"
        ]


def test_int8_weights_stay_where_no_kernel_saturates(tiny_artifact_int8: Artifact) -> None:
    arrays = initializers(tiny_artifact_int8)
    weights = {name: array for name, array in arrays.items() if array.dtype == np.int8 and array.ndim == 2}
    layers = {name.removesuffix(".scales") for name in arrays if name.endswith(".weight.scales")}
    assert weights.keys() == layers | {TIED}
    for weight in weights.values():
        assert 2 * 255 * np.abs(weight.astype(np.int64)).max() < 2**15


def test_quantization_errs_by_half_a_step_at_most() -> None:
    weight = np.random.default_rng(3).normal(size=(50, 40)).astype(np.float32)
    weight[7] = 0
    values, scales = quantize(weight)
    assert np.abs(values).max() == LIMIT
    assert (np.abs(values.T * scales[:, None] - weight) <= scales[:, None] * 0.5001).all()


def test_an_artifact_over_its_budget_is_not_left_behind(
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("model.export.BUDGETS", {"fp32": Agreement(0.0, 0.0, 1.0)})
    with pytest.raises(ExportError, match=r"strays from PyTorch: Agreement.*nothing was written"):
        export_tiny(tiny_network, tiny_tokenizer, tmp_path / "never", "fp32")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_not_overwritten(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="exists; choose another folder"):
        export_tiny(tiny_network, tiny_tokenizer, tmp_path, "fp32")


def test_without_a_text_there_is_no_proof_and_so_no_artifact(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    facts = default_facts("tiny", tiny_network)
    with pytest.raises(ExportError, match="no text to compare"):
        export(tiny_network, tiny_tokenizer, tmp_path / "never", precision="int8", facts=facts, card="", texts=[])
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_another_tokenizer_is_refused(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    network = copy.deepcopy(tiny_network)
    network.special_ids = torch.tensor([1, 2])
    with pytest.raises(ExportError, match=r"special ids \[1, 2\] are not the tokenizer's"):
        export_tiny(network, tiny_tokenizer, tmp_path / "never", "fp32")


def test_an_activation_that_the_graph_does_not_know_is_refused(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    network = copy.deepcopy(tiny_network)
    network.mlm.config.hidden_act = "relu"
    with pytest.raises(ExportError, match="only BERT with gelu can be exported, not bert with relu"):
        export_tiny(network, tiny_tokenizer, tmp_path / "never", "fp32")


def test_docstrings_are_real_text() -> None:
    texts = docstrings(20)
    assert len(set(texts)) == 20
    assert all(len(text) > 100 for text in texts)
