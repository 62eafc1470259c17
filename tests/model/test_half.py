"""float16: near to float32, half as large, and refused where it would overflow."""

import copy
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from model.artifact import BUNDLED, GRAPH, Artifact
from model.dupmae import FusedEncoder
from model.encoder import Encoder, EncodingError
from model.export import ExportError, agreement, docstrings
from model.graph import EncoderGraph
from model.half import LIMIT, HalfProducts, Reached, widest
from model.products import FloatProducts
from model.thaw import thaw
from tests.conftest import TEXTS, export_tiny

REAL = [*TEXTS, *docstrings(40)]


def rounding(artifact: Artifact, folder: Path) -> Artifact:
    """The artifact with every input and result of a product rounded, as on a GPU: a CPU leaves the casts out.

    A maximum over one tensor changes nothing, and keeps two casts apart.
    """
    shutil.copytree(artifact.path, folder)
    model = ir.load(folder / GRAPH)
    for number, node in enumerate(list(ir.traversal.RecursiveGraphIterator(model.graph))):
        narrows = node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT16
        if narrows or node.op_type in {"MatMul", "Gemm"}:
            barrier = ir.node("Max", node.outputs)
            barrier.outputs[0].name = f"rounded_{number}"
            for user, position in list(node.outputs[0].uses()):
                if user is not barrier:
                    user.replace_input_with(position, barrier.outputs[0])
            assert node.graph is not None
            node.graph.insert_after(node, barrier)
    ir.save(model, folder / GRAPH)
    return Artifact(folder, artifact.manifest)


def test_float16_says_what_pytorch_says_but_for_rounding(
    tiny_network: FusedEncoder, tiny_artifact_fp16: Artifact
) -> None:
    found = agreement(tiny_network, Encoder(tiny_artifact_fp16, threads=1), REAL)
    assert 1e-5 < found.cls_error < 2e-3
    assert 1e-5 < found.ot_error < 2e-3
    assert found.overlap > 0.995


def test_rounded_as_on_a_gpu_it_still_says_so(
    tiny_network: FusedEncoder, tiny_artifact_fp16: Artifact, tmp_path: Path
) -> None:
    rounded = Encoder(rounding(tiny_artifact_fp16, tmp_path / "rounded"), threads=1)
    found, kind = agreement(tiny_network, rounded, REAL), agreement(tiny_network, Encoder(tiny_artifact_fp16), REAL)
    assert kind.cls_error < found.cls_error < 4e-3
    assert kind.ot_error < found.ot_error < 4e-3
    assert found.overlap > 0.99


def test_its_file_is_half_of_float32s(tmp_path: Path) -> None:
    network = thaw(Artifact.open(BUNDLED), pad_id=0)
    for products in (FloatProducts, HalfProducts):
        ir.save(EncoderGraph(network, products).build(), tmp_path / products.__name__)
    half, whole = ((tmp_path / products.__name__).stat().st_size for products in (HalfProducts, FloatProducts))
    assert 0.5 < half / whole < 0.52


def test_every_matrix_is_float16_and_nothing_else_is(tiny_artifact_fp16: Artifact) -> None:
    initializers = ir.load(tiny_artifact_fp16.path / GRAPH).graph.initializers.values()
    arrays = {value.name: value.const_value.numpy() for value in initializers if value.const_value}
    halves = {name for name, array in arrays.items() if array.dtype == np.float16}
    assert halves == {name for name, array in arrays.items() if array.ndim == 2 and name != "places"}


def test_a_network_that_is_too_wide_is_refused_by_layer_and_size(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    network = copy.deepcopy(tiny_network)
    with torch.no_grad():
        network.mlm.get_parameter("bert.encoder.layer.1.intermediate.dense.weight").mul_(1e5)
    with pytest.raises(ExportError, match=r"layer\.1\..*dense reaches \d.*float16 ends at 65,504.*--precision fp32"):
        export_tiny(network, tiny_tokenizer, tmp_path / "never", "fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_is_too_wide_counts_where_no_text_meets_it(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    network = copy.deepcopy(tiny_network)
    ids: list[int] = tiny_tokenizer("the king")["input_ids"]
    assert widest(network, [ids]).size < LIMIT
    with torch.no_grad():
        network.mlm.bert.embeddings.word_embeddings.weight[-1] = 1e5
    assert widest(network, [ids]) == Reached(1e5, "mlm.bert.embeddings.word_embeddings.weight")


def test_an_overflow_at_run_time_is_an_error_that_names_the_remedy(
    tiny_artifact_fp16: Artifact, tmp_path: Path
) -> None:
    artifact = rounding(tiny_artifact_fp16, tmp_path / "wide")
    model = ir.load(artifact.path / GRAPH)
    name = "bert.encoder.layer.0.attention.output.dense.weight"
    value = model.graph.initializers[name]
    assert value.const_value
    value.const_value = ir.tensor(np.full_like(value.const_value.numpy(), 6e4), name=name)
    ir.save(model, artifact.path / GRAPH)
    with pytest.raises(EncodingError, match=r"NaN or infinity.*too wide for float16: try `--precision fp32`"):
        Encoder(artifact, threads=1).encode_documents(TEXTS)
