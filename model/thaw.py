"""Artifact to network: weights read back out of the graph, so that what is served can be trained on.

The inverse of `graph` and `quantize`, in float32: an int8 weight becomes what it stood for, with the smoothing of its
input undone. Three things are not in a graph. Token types were added to positions, and stay there. The [CLS] decoder
was thrown away. And of the biases of LPU and terms only `gain * LPU + term` is left. It becomes the term's, where it
does for vectors what it did (as the LPU's, divided by the gain, it costs the bundled model 3 nats a masked word). But
where every gain is 1, nobody has trained the terms, and it was the LPU's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from model.artifact import GRAPH, Artifact, ArtifactError
from model.dupmae import FusedEncoder
from model.graph import EXPANSIONS, ORDINARY
from model.products import TIED
from model.quantize import LIMIT

Arrays = Mapping[str, NDArray[Any]]


def thaw(artifact: Artifact, *, pad_id: int) -> FusedEncoder:
    """The network whose graph this is.

    Args:
        artifact: Of any precision.
        pad_id: Of the padding token, whose word embedding does not learn.

    Raises:
        ArtifactError: The graph was written by something else.
    """
    graph = ir.load(artifact.path / GRAPH).graph
    arrays = {name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value}
    try:
        return _encoder(artifact, graph, arrays, pad_id)
    except (KeyError, ValueError, RuntimeError, StopIteration) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(
            f"{artifact.path}: {GRAPH} is none that this release writes ({reason}); continue from its checkpoint"
        ) from error


def _encoder(artifact: Artifact, graph: ir.Graph, arrays: Arrays, pad_id: int) -> FusedEncoder:
    gain, shift = arrays["terms.gain"], arrays["terms.shift"]
    untrained = bool((gain == 1).all())
    nothing = np.zeros_like(shift)
    mlm = BertForMaskedLM(_config(graph, arrays, pad_id))
    bias = shift if untrained else nothing
    mlm.load_state_dict(_tensors({**_weights(arrays), **dict.fromkeys(_LPU_BIAS, bias)}))
    encoder = FusedEncoder(
        mlm,
        dense_dim=artifact.manifest.dense_dim,
        special_ids=_special_ids(graph, arrays),
        activation=artifact.manifest.activation,
        expansions=torch.tensor(arrays[EXPANSIONS]) if EXPANSIONS in arrays else None,
    )
    encoder.project.load_state_dict(_tensors({"weight": _matrix(arrays, "project")}))
    encoder.terms.load_state_dict(_tensors({"gain": gain, "bias": nothing if untrained else shift}))
    return encoder.eval()


_EMBEDDINGS = "bert.embeddings"
_LPU_BIAS = ("cls.predictions.bias", "cls.predictions.decoder.bias")  # one, under two names


def _weights(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """What the graph's arrays are called and look like in `transformers`, but for the LPU's bias."""
    d = arrays["places"].shape[1]
    tied = _tied(arrays)
    weights = {
        TIED: tied,
        "cls.predictions.decoder.weight": tied,
        f"{_EMBEDDINGS}.position_embeddings.weight": arrays["places"],
        f"{_EMBEDDINGS}.token_type_embeddings.weight": np.zeros((1, d), np.float32),
    }
    for layer in (name.removesuffix(".bias") for name in arrays if name.endswith(".bias")):
        norm = layer.endswith("LayerNorm")
        weight = arrays[f"{layer}.weight"] if norm else _matrix(arrays, layer)
        parts = ["query", "key", "value"] if layer.endswith("attention.self") else []
        names = [f"{layer}.{part}" for part in parts] or [layer]
        for name, rows, bias in zip(
            names, np.split(weight, len(names)), np.split(arrays[f"{layer}.bias"], len(names)), strict=True
        ):
            weights[f"{name}.weight"], weights[f"{name}.bias"] = rows, bias
    return weights


def _matrix(arrays: Arrays, layer: str) -> NDArray[Any]:
    """A product's weight as (N, K), which the graph holds as (K, N)."""
    weight = arrays[f"{layer}.weight"].T
    if f"{layer}.weight.scales" in arrays:
        weight = weight * arrays[f"{layer}.weight.scales"][:, None]
    return weight * arrays[f"{layer}.smoothing"] if f"{layer}.smoothing" in arrays else weight


def _tied(arrays: Arrays) -> NDArray[Any]:
    """(V, d), which older releases wrote as (d, V) in int8, told by its shape, or above zero."""
    held, scales = arrays[TIED], arrays.get("tied.scales.column")
    if scales is None:
        return held
    values = held.astype(np.int16) - LIMIT if held.dtype == np.uint8 else held
    return (values if len(values) == len(scales) else values.T) * scales


def _config(graph: ir.Graph, arrays: Arrays, pad_id: int) -> BertConfig:
    layer = f"{TIED.partition('.')[0]}.encoder.layer"
    positions, d = arrays["places"].shape
    heads = _heads(graph, arrays)
    norm = next(node for node in graph if node.op_type == "LayerNormalization")
    return BertConfig(
        vocab_size=len(arrays["terms.gain"]),
        hidden_size=d,
        num_hidden_layers=sum(name.startswith(layer) and name.endswith("intermediate.dense.bias") for name in arrays),
        num_attention_heads=heads,
        intermediate_size=len(arrays[f"{layer}.0.intermediate.dense.bias"]),
        max_position_embeddings=positions,
        type_vocab_size=1,
        layer_norm_eps=norm.attributes["epsilon"].as_float(),
        pad_token_id=pad_id,
    )


def _heads(graph: ir.Graph, arrays: Arrays) -> int:
    """Of the node that is attention, or of the Reshape where it is several."""
    for node in graph:
        if node.op_type == "MultiHeadAttention":
            return node.attributes["num_heads"].as_int()
    *_, heads, _ = next(array for array in arrays.values() if array.shape == (5,)).tolist()
    return int(heads)


def _special_ids(graph: ir.Graph, arrays: Arrays) -> list[int]:
    """What is not ordinary; older releases compared the input ids with each."""
    if ORDINARY in arrays:
        return np.flatnonzero(~arrays[ORDINARY]).tolist()
    compared = (node.inputs[1] for node in graph if node.op_type == "Equal")
    return [int(value.const_value.numpy()) for value in compared if value and value.const_value]


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.tensor(array) for name, array in arrays.items()}
