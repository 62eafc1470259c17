import copy
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from model.artifact import GRAPH, Artifact, Precision
from model.dupmae import FusedEncoder
from model.encoder import Encoder, Encoding, EncodingError, NoWords
from model.session import ProviderError, products_on
from tests.conftest import TEXTS, export_tiny

WORDLESS = ["", " \t\n", "[CLS] [SEP] [PAD]", "\x00\x07"]


@pytest.fixture
def artifacts(
    tiny_artifact: Artifact, tiny_artifact_fp16: Artifact, tiny_artifact_int8: Artifact
) -> dict[Precision, Artifact]:
    return {"fp32": tiny_artifact, "fp16": tiny_artifact_fp16, "int8": tiny_artifact_int8}


@pytest.fixture(params=get_args(Precision))
def encoder(request: pytest.FixtureRequest, artifacts: dict[Precision, Artifact]) -> Encoder:
    return Encoder(artifacts[request.param], threads=1)


def assert_same(one: Encoding, other: Encoding) -> None:
    np.testing.assert_allclose(one.vector.cls, other.vector.cls, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(one.vector.ot_indices, other.vector.ot_indices)
    np.testing.assert_allclose(one.vector.ot_values, other.vector.ot_values, rtol=0, atol=1e-5)
    assert (one.tokens, one.truncated) == (other.tokens, other.truncated)


@pytest.mark.parametrize("max_batch_tokens", [1, 40, 100_000])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_text_has_the_same_vectors_alone_and_in_any_batch(
    artifacts: dict[Precision, Artifact], threads: int, max_batch_tokens: int
) -> None:
    texts = [*TEXTS, *(" ".join([text] * times) for text in TEXTS for times in (2, 5)), "energy", "a"]
    order = np.random.default_rng(7).permutation(len(texts))
    for artifact in artifacts.values():
        encoder = Encoder(artifact, threads=threads, max_batch_tokens=max_batch_tokens)
        together = encoder.encode_documents([texts[i] for i in order])
        for position, encoding in zip(order, together, strict=True):
            assert_same(encoding, encoder.encode_documents([texts[position]])[0])


WORD = st.sampled_from("the king of water, engines quizzes 42 ! it's pressure zebra-like x".split())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(st.lists(WORD, min_size=1, max_size=40).map(" ".join), min_size=1, max_size=12))
def test_neighbours_never_change_a_vector(encoder: Encoder, batch: list[str]) -> None:
    for text, encoding in zip(batch, encoder.encode_documents(batch), strict=True):
        assert_same(encoding, encoder.encode_documents([text])[0])


def test_indices_ascend_and_values_are_above_zero(encoder: Encoder) -> None:
    for encoding in encoder.encode_documents(TEXTS):
        assert (np.diff(encoding.vector.ot_indices) > 0).all()
        assert (encoding.vector.ot_values > 0).all()
        assert encoding.vector.cls.dtype == encoding.vector.ot_values.dtype == np.float32
        assert encoding.vector.ot_indices.dtype == np.int64
        assert encoding.vector.cls.shape == (16,)


def test_k_keeps_the_strongest_terms(encoder: Encoder) -> None:
    [every] = encoder.encode_documents(TEXTS[:1], k=len(encoder.vocabulary))
    [five] = encoder.encode_documents(TEXTS[:1], k=5)
    strongest = np.sort(every.vector.ot_indices[np.argsort(-every.vector.ot_values)[:5]])
    np.testing.assert_array_equal(five.vector.ot_indices, strongest)
    np.testing.assert_array_equal(five.vector.cls, every.vector.cls)


def test_queries_and_documents_keep_what_the_manifest_says(tiny_encoder: Encoder) -> None:
    assert tiny_encoder.encode_queries(TEXTS[:1])[0].vector.ot_indices.size == 16
    assert tiny_encoder.encode_documents(TEXTS[:1])[0].vector.ot_indices.size == 32


@pytest.mark.parametrize("k", [0, -1, 10**9])
def test_a_k_outside_the_vocabulary_is_refused(tiny_encoder: Encoder, k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}; it must be between 1 and "):
        tiny_encoder.encode_queries(["energy"], k=k)


def test_a_long_text_is_cut_and_says_so(tiny_encoder: Encoder) -> None:
    text = "water " * 5000
    [query], [document] = tiny_encoder.encode_queries([text]), tiny_encoder.encode_documents([text])
    assert (query.tokens, query.truncated) == (5000, True)
    assert_same(query, Encoding(tiny_encoder.encode_queries(["water " * 30], k=16)[0].vector, 5000, True))
    assert_same(document, Encoding(tiny_encoder.encode_documents(["water " * 62])[0].vector, 5000, True))


def test_a_text_that_just_fits_is_not_called_truncated(tiny_encoder: Encoder) -> None:
    [fits], [longer] = tiny_encoder.encode_queries(["water " * 30]), tiny_encoder.encode_queries(["water " * 31])
    assert (fits.tokens, fits.truncated) == (30, False)
    assert (longer.tokens, longer.truncated) == (31, True)


@pytest.mark.parametrize("text", WORDLESS)
def test_a_text_without_a_word_is_refused_by_position(encoder: Encoder, text: str) -> None:
    with pytest.raises(EncodingError, match=r"\(text 1, 3, counted from 0\)") as refused:
        encoder.encode_documents(["energy", text, "the king", text])
    assert refused.value.positions == (1, 3)


@pytest.mark.parametrize("max_batch_tokens", [1, 512])
def test_a_refused_text_has_its_position_in_the_call_and_not_in_its_batch(
    tiny_artifact: Artifact, max_batch_tokens: int
) -> None:
    encoder = Encoder(tiny_artifact, threads=3, max_batch_tokens=max_batch_tokens)
    texts = ["water " * length for length in range(1, 60)] + [""] + ["the king"] * 9 + [""]
    with pytest.raises(EncodingError) as refused:
        encoder.encode_documents(texts)
    assert refused.value.positions == (59, 69)


@pytest.mark.parametrize("text", ["!?", "\u00e9\u0301 caf\u00e9", "water\x00\x1bfire", "\u202eking\u200b"])
def test_odd_text_has_finite_vectors(encoder: Encoder, text: str) -> None:
    [encoding] = encoder.encode_documents([text])
    assert np.isfinite(encoding.vector.cls).all()
    assert np.isfinite(encoding.vector.ot_values).all()


@pytest.mark.parametrize("text", ["\U0001f600 \U0001f680", "a" * 10_000])
def test_unknown_characters_carry_no_word(encoder: Encoder, text: str) -> None:
    with pytest.raises(EncodingError, match="no word in it"):
        encoder.encode_queries([text])


def test_no_texts_give_no_encodings(tiny_encoder: Encoder) -> None:
    assert tiny_encoder.encode_documents([]) == []


def test_token_ids_are_the_ordinary_tokens_uncut(tiny_encoder: Encoder) -> None:
    ids = tiny_encoder.token_ids("the kings [SEP] \U0001f600 " + "water " * 100)
    words = [tiny_encoder.vocabulary[i] for i in ids]
    assert words == ["the", "king", "##s"] + ["water"] * 100


def test_prompts_are_put_before_texts(tiny_artifact: Artifact, tiny_encoder: Encoder) -> None:
    prompts = {"query_prompt": "search : ", "document_prompt": "text : "}
    prompted = Artifact(tiny_artifact.path, tiny_artifact.manifest.model_copy(update=prompts))
    encoder = Encoder(prompted, threads=1)
    assert_same(encoder.encode_queries(["water"])[0], tiny_encoder.encode_queries(["search : water"])[0])
    assert_same(encoder.encode_documents(["water"])[0], tiny_encoder.encode_documents(["text : water"])[0])


def test_cuda_that_is_not_there_is_an_error_and_not_the_cpu(tiny_artifact: Artifact) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(ProviderError, match=r"has no CUDA .*pip install \"dupmae-search\[gpu\]\""):
        Encoder(tiny_artifact, provider="cuda")


def test_where_a_session_multiplies_is_seen(tiny_artifact: Artifact) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(tiny_artifact.path / GRAPH, options, providers=["CPUExecutionProvider"])
    graph = ir.load(tiny_artifact.path / GRAPH).graph
    assert len(products_on(session, "CPUExecutionProvider")) == sum(node.op_type == "MatMul" for node in graph)
    assert not products_on(session, "CUDAExecutionProvider")


def test_an_int8_artifact_is_refused_on_cuda(tiny_artifact_int8: Artifact) -> None:
    with pytest.raises(ProviderError, match=r"is an int8 artifact.*`dupmae model export .* --precision fp16`"):
        Encoder(tiny_artifact_int8, provider="cuda")


def test_many_threads_share_one_encoder(tiny_encoder: Encoder) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def encode(text: str) -> Encoding:
        return tiny_encoder.encode_queries([text])[0]

    texts = TEXTS * 10
    with ThreadPoolExecutor(8) as pool:
        for text, encoding in zip(texts, pool.map(encode, texts), strict=True):
            assert_same(encoding, encode(text))


def test_encoding_imports_neither_torch_nor_transformers(tiny_artifact: Artifact) -> None:
    script = (
        "import sys; from pathlib import Path; from model.artifact import Artifact; from model.encoder import Encoder\n"
        "Encoder(Artifact.open(Path(sys.argv[1]))).encode_queries(['the king'])\n"
        "print(sorted({'torch', 'transformers', 'onnx', 'onnx_ir', 'pandas'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, tiny_artifact.path], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_a_missing_onnx_runtime_names_the_extra(tiny_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match=r"pip install \"dupmae-search\[cpu\]\""):
        Encoder(tiny_artifact)


def test_vectors_do_not_depend_on_whether_memory_is_kept(tiny_artifact: Artifact) -> None:
    with_arena, without = (Encoder(tiny_artifact, threads=1, arena=arena) for arena in (True, False))
    texts = ["the speed of sound in air", "energy", "a random list of words"]
    for kept, fresh in zip(with_arena.encode_queries(texts), without.encode_queries(texts), strict=True):
        np.testing.assert_array_equal(kept.vector.cls, fresh.vector.cls)
        np.testing.assert_array_equal(kept.vector.ot_values, fresh.vector.ot_values)


def test_an_onnx_runtime_that_multiplies_int8_wrongly_is_refused(
    tiny_artifact: Artifact, tiny_artifact_int8: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.__version__", "1.24.4")
    with pytest.raises(ProviderError, match=r"1\.24\.4 multiplies int8 wrongly.*pip install 'onnxruntime>=1\.26'"):
        Encoder(tiny_artifact_int8)
    Encoder(tiny_artifact, threads=1)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 1e-2)])
def test_a_gpu_gives_the_vectors_of_a_cpu_and_a_text_its_own_whatever_stands_beside_it(
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    precision: Precision,
    tolerance: float,
) -> None:
    network = copy.deepcopy(tiny_network)
    network.expansions = torch.arange(0, network.vocabulary_size, 2)
    artifact = export_tiny(network, tiny_tokenizer, tmp_path / precision, precision)
    on_cpu, on_gpu = Encoder(artifact, threads=1), Encoder(artifact, provider="cuda")
    wanted, together = (encoder.encode_documents(TEXTS, k=network.vocabulary_size) for encoder in (on_cpu, on_gpu))
    alone = [on_gpu.encode_documents([text], k=network.vocabulary_size)[0] for text in TEXTS]
    for others in (wanted, alone):
        for one, other in zip(together, others, strict=True):
            np.testing.assert_allclose(one.vector.cls, other.vector.cls, rtol=0, atol=tolerance)
            words, same = (
                dict(zip(some.vector.ot_indices, some.vector.ot_values, strict=True)) for some in (one, other)
            )
            for word in words.keys() | same.keys():
                assert words.get(word, 0) == pytest.approx(same.get(word, 0), abs=tolerance)
    with pytest.raises(NoWords, match="text 1"):
        on_gpu.encode_queries([TEXTS[0], ""])
