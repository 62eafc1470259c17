"""The expansion vocabulary: of what it was given before, a text keeps these entries and the words of its own."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import model.cli
from model import expansion
from model.artifact import Precision
from model.checkpoint import HEADS, Checkpoint, Facts, load, with_heads
from model.dupmae import DupMAE, FusedEncoder
from model.encoder import Encoder, NoWords
from model.expansion import narrowed, smallest
from model.lines import SourceError
from model.options import TrainingError
from model.thaw import thaw
from tests.conftest import TEXTS, export_tiny

REPEATED = "file file files file the file " * 8
"""More rows than one pooling takes, and few words."""


@pytest.fixture
def checkpoint(tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast) -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(DupMAE(copy.deepcopy(tiny_network)), tiny_tokenizer, Facts(dense_dim=16, k_document=32))


def with_expansions(network: FusedEncoder, words: list[int]) -> FusedEncoder:
    narrow = copy.deepcopy(network)
    narrow.expansions = torch.tensor(sorted(words))
    return narrow


def bags(network: FusedEncoder, tokenizer: PreTrainedTokenizerFast, k: int) -> tuple[Tensor, Tensor]:
    """The dense bags of the texts, and their ids."""
    inputs = tokenizer([*TEXTS, "", REPEATED], padding=True, return_tensors="pt")
    with torch.no_grad():
        bag = network(inputs["input_ids"], inputs["attention_mask"], k)[1]
    return bag.dense(network.vocabulary_size), inputs["input_ids"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.sets(st.integers(0, 200), min_size=1))
def test_a_bag_is_what_it_was_without_what_may_not_be_said(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, words: set[int]
) -> None:
    V = tiny_network.vocabulary_size
    wide, ids = bags(tiny_network, tiny_tokenizer, V)
    narrow, _ = bags(with_expansions(tiny_network, list(words)), tiny_tokenizer, V)
    for before, after, own in zip(wide, narrow, ids, strict=True):
        ordinary = set(own.tolist()).difference(tiny_tokenizer.all_special_ids)
        left = before * torch.isin(torch.arange(V), torch.tensor([*words, *ordinary]))
        least = left.topk(len(words)).values[-1]  # no bag is larger than the vocabulary
        assert torch.equal(after, left * (left >= least))


def test_a_word_that_may_not_be_said_learns_nothing(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    network = with_expansions(tiny_network, [7, 9, 11])
    inputs = tiny_tokenizer(["energy"], return_tensors="pt")
    network(inputs["input_ids"], inputs["attention_mask"], network.vocabulary_size)[1].values.sum().backward()
    moved = set(network.terms.bias.grad.nonzero().flatten().tolist())  # type: ignore[union-attr]  # it has one now
    assert moved <= {7, 9, 11, *inputs["input_ids"].flatten().tolist()}
    assert moved


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("words", [[*range(150, 190)], [*range(0, 300, 2)]], ids=["few", "many"])
def test_the_graph_says_what_the_wide_one_says_of_the_words_that_are_left(
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    precision: Precision,
    words: list[int],
) -> None:
    narrow_network = with_expansions(tiny_network, words)
    wide, narrow = (
        Encoder(export_tiny(network, tiny_tokenizer, tmp_path / name, precision), threads=1)
        for name, network in (("wide", tiny_network), ("narrow", narrow_network))
    )
    V, texts = tiny_network.vocabulary_size, [*TEXTS, REPEATED]
    for text, before in zip(texts, wide.encode_documents(texts, k=V), strict=True):
        kept = np.isin(before.vector.ot_indices, [*words, *wide.token_ids(text)])
        left = dict(zip(before.vector.ot_indices[kept], before.vector.ot_values[kept], strict=True))
        (after,) = narrow.encode_documents([text], k=V)
        most = sorted(left, key=lambda word: -left[word])[: len(words)]  # no bag is larger than the vocabulary
        assert after.vector.ot_indices.tolist() == sorted(most)
        wanted = [left[word] for word in sorted(most)]
        tolerance = {"fp32": 1e-5, "fp16": 0.005, "int8": 0}[precision]
        np.testing.assert_allclose(after.vector.ot_values, wanted, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(after.vector.cls, before.vector.cls)


def test_a_text_without_words_is_told_so(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    artifact = export_tiny(
        with_expansions(tiny_network, [*range(100, 200)]), tiny_tokenizer, tmp_path / "narrow", "int8"
    )
    with pytest.raises(NoWords, match="text 1"):
        Encoder(artifact).encode_queries([TEXTS[0], ""])


def test_the_vocabulary_of_all_that_was_said_changes_no_bag(
    checkpoint: Checkpoint, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    before, _ = bags(checkpoint.model.encoder, tiny_tokenizer, 32)
    after = narrowed(checkpoint, ["", *TEXTS, "", REPEATED], share=1, max_tokens=64, k=32)
    assert torch.equal(bags(after.model.encoder, tiny_tokenizer, 32)[0], before)
    words = after.model.encoder.expansions
    assert words is not None
    assert 0 < len(words) < checkpoint.model.encoder.vocabulary_size
    assert after.facts.expansions == len(words)


def test_the_parts_in_which_texts_are_read_do_not_matter(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = narrowed(checkpoint, TEXTS, share=0.9, max_tokens=64, k=32).model.encoder.expansions
    monkeypatch.setattr(expansion, "PART", 2)
    again = narrowed(checkpoint, TEXTS, share=0.9, max_tokens=64, k=32)  # what was chosen before has no say
    assert torch.equal(again.model.encoder.expansions, at_once)  # type: ignore[arg-type]  # both are there


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    share=st.floats(0.5, 1),
)
def test_no_fewer_entries_have_the_share(counts: list[int], share: float) -> None:
    found = smallest(np.array(counts), share)
    assert sum(counts[entry] for entry in found) >= share * sum(counts) - 1e-9
    assert sum(sorted(counts, reverse=True)[: len(found) - 1]) < share * sum(counts)
    assert (np.diff(found) > 0).all()


def test_a_vocabulary_smaller_than_a_bag_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(TrainingError, match=r"\d+ words are 0.5 of .* a bag may have 64"):
        narrowed(checkpoint, TEXTS, share=0.5, max_tokens=64, k=64)


def test_texts_that_are_given_nothing_are_refused(checkpoint: Checkpoint) -> None:
    with torch.no_grad():
        checkpoint.model.encoder.terms.bias.fill_(-1e6)
    with pytest.raises(TrainingError, match="no word that they do not hold"):
        narrowed(checkpoint, TEXTS, share=0.99, max_tokens=64, k=32)


def test_it_is_saved_loaded_exported_and_read_back(
    checkpoint: Checkpoint, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    after = narrowed(checkpoint, TEXTS, share=0.9, max_tokens=64, k=32)
    words = after.model.encoder.expansions
    assert words is not None
    after.save(tmp_path / "narrow")
    loaded = load(tmp_path / "narrow")
    artifact = export_tiny(loaded.model.encoder, tiny_tokenizer, tmp_path / "artifact", "int8")
    smaller, thawed = with_heads(loaded, dense_dim=8), load(artifact.path)
    for found in (loaded, smaller, thawed):
        assert torch.equal(found.model.encoder.expansions, words)  # type: ignore[arg-type]  # there, or it fails
        assert found.facts.expansions == len(words)
    assert torch.equal(thaw(artifact, pad_id=0).expansions, words)  # type: ignore[arg-type]  # as above


def test_a_checkpoint_that_lost_it_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    narrowed(checkpoint, TEXTS, share=0.9, max_tokens=64, k=32).save(tmp_path / "narrow")
    heads = load_file(tmp_path / "narrow" / HEADS)
    save_file({name: value for name, value in heads.items() if name != "expansions"}, tmp_path / "narrow" / HEADS)
    with pytest.raises(SourceError, match=r"None expansions, dupmae.json says \d+"):
        load(tmp_path / "narrow")


def test_the_command_says_what_it_chose(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "wide")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    words = ["narrow", str(tmp_path / "wide"), str(tmp_path / "out"), str(tmp_path / "texts.txt"), "--share", "0.8"]
    done = CliRunner().invoke(model.cli.app, words)
    assert done.exit_code == 0, done.output
    chosen = load(tmp_path / "out").facts
    assert f"narrow to {chosen.expansions} of " in done.output
    assert "0.8 of" in done.output
    again = CliRunner().invoke(model.cli.app, words)
    assert "is there already" in str(again.exception)


def test_the_command_reads_as_many_texts_of_each_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "wide")
    for name, texts in (("passages.txt", TEXTS[1:3]), ("queries.txt", TEXTS[3:5])):
        (tmp_path / name).write_text("\n".join(texts))
    words = ["narrow", str(tmp_path / "wide"), str(tmp_path / "out"), "--share", "1", "--k", "4", "--sample", "2"]
    done = CliRunner().invoke(model.cli.app, [*words, str(tmp_path / "passages.txt"), str(tmp_path / "queries.txt")])
    assert done.exit_code == 0, done.output
    wanted = narrowed(checkpoint, [TEXTS[1], TEXTS[3]], share=1, max_tokens=256, k=4)
    assert load(tmp_path / "out").facts.history == wanted.facts.history
