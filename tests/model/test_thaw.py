"""From an artifact back to a network that says the same."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from model.artifact import BUNDLED, GRAPH, Artifact, ArtifactError
from model.dupmae import Activation, FusedEncoder
from model.encoder import Encoder
from model.export import BUDGETS, agreement, docstrings
from model.products import TIED
from model.quantize import LIMIT
from model.thaw import _special_ids, thaw
from model.writer import Writer
from tests.conftest import TEXTS, export_tiny


def test_float32_comes_back_as_it_was(tiny_network: FusedEncoder, tiny_artifact: Artifact) -> None:
    found = thaw(tiny_artifact, pad_id=0)
    assert found.mlm.config.num_attention_heads == tiny_network.mlm.config.num_attention_heads
    assert found.mlm.config.layer_norm_eps == pytest.approx(tiny_network.mlm.config.layer_norm_eps)
    wanted = tiny_network.mlm.state_dict()
    embeddings = {name for name in wanted if "position" in name or "token_type" in name}
    biases = {"cls.predictions.bias", "cls.predictions.decoder.bias"}
    for name, value in found.mlm.state_dict().items():
        if name not in embeddings | biases:
            assert torch.equal(value, wanted[name]), name
    assert found.special_ids.tolist() == sorted(tiny_network.special_ids.tolist())
    assert found.mlm.cls.predictions.decoder.weight is found.mlm.bert.embeddings.word_embeddings.weight


def test_float32_gives_the_same_vectors(tiny_artifact: Artifact, tiny_encoder: Encoder) -> None:
    found = agreement(thaw(tiny_artifact, pad_id=0), tiny_encoder, [*TEXTS, *docstrings(10)])
    assert found.cls_error < 1e-5
    assert found.ot_error < 1e-5
    assert found.overlap == 1


def test_float16_gives_the_vectors_of_its_artifact(tiny_artifact_fp16: Artifact) -> None:
    found = agreement(thaw(tiny_artifact_fp16, pad_id=0), Encoder(tiny_artifact_fp16, threads=1), TEXTS)
    assert found.cls_error < 1e-5
    assert found.ot_error < 1e-5
    assert found.overlap == 1


def test_int8_gives_the_vectors_of_its_artifact_within_the_budget(tiny_artifact_int8: Artifact) -> None:
    found = agreement(thaw(tiny_artifact_int8, pad_id=0), Encoder(tiny_artifact_int8, threads=1), TEXTS)
    assert found.cls_error <= BUDGETS["int8"].cls_error
    assert found.ot_error <= BUDGETS["int8"].ot_error
    assert found.overlap >= BUDGETS["int8"].overlap


def test_int8_weights_are_near_what_they_were(tiny_network: FusedEncoder, tiny_artifact_int8: Artifact) -> None:
    wanted = tiny_network.mlm.state_dict()
    for name, value in thaw(tiny_artifact_int8, pad_id=0).mlm.state_dict().items():
        if name.endswith((".dense.weight", "query.weight", "word_embeddings.weight")):
            error = (value - wanted[name]).norm() / wanted[name].norm()
            assert error < (0.02 if "embeddings" in name else 0.04), name  # the others are rounded for their products


@pytest.mark.parametrize(
    "older",
    [lambda signed: signed.T.copy(), lambda signed: (signed.astype(np.int16) + LIMIT).astype(np.uint8)],
    ids=["(d, V)", "above zero"],
)
def test_int8_of_an_older_release_comes_back_as_the_same_network(
    tiny_network: FusedEncoder,
    tiny_artifact_int8: Artifact,
    tmp_path: Path,
    older: Callable[[NDArray[np.int8]], NDArray[Any]],
) -> None:
    """It held the tied matrix in another way, and attention as several nodes."""
    model = ir.load(tiny_artifact_int8.path / GRAPH)
    held = model.graph.initializers.pop(TIED).const_value
    assert held is not None
    heads = tiny_network.mlm.config.num_attention_heads
    for name, array in {
        TIED: older(held.numpy()),
        "split": np.array([0, 0, 3, heads, tiny_network.mlm.config.hidden_size // heads]),
    }.items():
        model.graph.initializers[name] = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    for node in model.graph:
        if node.op_type == "MultiHeadAttention":
            node.op_type = "Identity"
    ir.save(model, tmp_path / GRAPH)
    old = thaw(Artifact(tmp_path, tiny_artifact_int8.manifest), pad_id=0)
    new = thaw(tiny_artifact_int8, pad_id=0)
    assert old.mlm.config.num_attention_heads == new.mlm.config.num_attention_heads == heads
    for name, value in new.mlm.state_dict().items():
        assert torch.equal(old.mlm.state_dict()[name], value), name


@pytest.mark.parametrize("activation", ["raw", "relu", "log1p"])
def test_trained_terms_take_the_bias_of_both(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, activation: Activation
) -> None:
    network = copy.deepcopy(tiny_network)
    network.terms.activation = activation
    with torch.no_grad():
        network.terms.gain.uniform_(0.5, 2.0)
    artifact = export_tiny(network, tiny_tokenizer, tmp_path / "one", "fp32")
    found = thaw(artifact, pad_id=0)
    assert found.terms.activation == activation
    assert torch.equal(found.terms.gain, network.terms.gain)
    assert not found.mlm.cls.predictions.bias.any()
    assert agreement(found, Encoder(artifact, threads=1), TEXTS).overlap == 1


def test_terms_that_nobody_trained_leave_the_bias_to_the_lpu(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    network = copy.deepcopy(tiny_network)
    torch.nn.init.zeros_(network.terms.bias)
    found = thaw(export_tiny(network, tiny_tokenizer, tmp_path / "one", "fp32"), pad_id=0)
    assert torch.equal(found.mlm.cls.predictions.bias, network.mlm.cls.predictions.bias)
    assert torch.equal(found.terms.bias, network.terms.bias)


def test_a_thawed_network_freezes_to_the_same_graph(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tiny_artifact: Artifact, tmp_path: Path
) -> None:
    again = export_tiny(thaw(tiny_artifact, pad_id=0), tiny_tokenizer, tmp_path / "again", "fp32")
    assert again.fingerprint == tiny_artifact.fingerprint


def test_the_bundled_model_can_be_trained_on() -> None:
    artifact = Artifact.open(BUNDLED)
    encoder = thaw(artifact, pad_id=0)
    found = agreement(encoder, Encoder(artifact, threads=1), docstrings(8))
    assert found.cls_error < 0.1
    assert found.overlap > 0.95
    assert all(parameter.requires_grad and parameter.isfinite().all() for parameter in encoder.parameters())


@pytest.mark.parametrize("missing", ["terms.gain", "places", "bert.encoder.layer.1.output.dense.weight"])
def test_a_graph_that_something_else_wrote_is_refused(tiny_artifact: Artifact, tmp_path: Path, missing: str) -> None:
    model = ir.load(tiny_artifact.path / GRAPH)
    model.graph.initializers[missing].name = "renamed"
    ir.save(model, tmp_path / GRAPH)
    with pytest.raises(
        ArtifactError, match=f"is none that this release writes .*{missing}.*continue from its checkpoint"
    ):
        thaw(Artifact(tmp_path, tiny_artifact.manifest), pad_id=0)


def test_the_padding_token_has_an_embedding_that_does_not_learn(tiny_artifact: Artifact) -> None:
    assert thaw(tiny_artifact, pad_id=3).mlm.bert.embeddings.word_embeddings.padding_idx == 3


def test_special_tokens_of_older_graphs_are_those_that_ids_are_compared_with() -> None:
    writer = Writer()
    ids = ir.Value(name="input_ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["B", "L"]))
    outputs = [writer.op("Equal", ids, writer.constant(special)) for special in (3, 1)]
    writer.op("Equal", ids, ids)
    assert _special_ids(writer.model([ids], outputs).graph, {}) == [3, 1]
