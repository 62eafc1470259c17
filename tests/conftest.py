"""A whole artifact of a network small enough to make on the spot; untrained, so its vectors mean nothing, but real."""

import copy
import string
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from model.artifact import Artifact, Precision
from model.dupmae import FusedEncoder
from model.encoder import Encoder
from model.export import Facts, export

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

WORDS = """
the of and a to in is was for on as by with at from it an be are this that which or his had not but have has were their
its one all been first also two new more who when there time other after will would some only than into year over such
how do i you we what where why can file files read write open close list sort string number day night water fire earth
air city town house home man woman child people work play run every five seconds function module class object return
compress search index word text page book author letter language english german french science history music art
engine wing flow heat speed sound light energy plane aircraft pressure surface body motion theory law force paper
random table chair food bread wine tree river sea island mountain north south east west king queen war peace law
state country government money market price buy sell trade company car road train ship horse dog cat bird fish
red green blue black white long short high low old young good bad big small fast slow hot cold true false
python java code data byte bytes memory disk network server client time date error test value key
"""

ENDINGS = ["s", "es", "ed", "ing", "er", "ly", "ion", "al", "ity", "ness"]

TEXTS = [
    "How do I compress a file?",
    "the speed of sound in air",
    "A random list of words, sorted by the first letter of each word.",
    "the king and the queen of the island had a horse, two dogs and a cat",
    "energy",
    "unknown-ish zebra quizzes 123",
]


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A real WordPiece tokenizer of about 400 entries: letters, endings and common words."""
    alphabet = [*string.ascii_lowercase, *string.digits, *".,?!-'"]
    entries = [*SPECIAL.values(), *alphabet, *(f"##{end}" for end in [*alphabet, *ENDINGS]), *WORDS.split()]
    vocabulary = {entry: position for position, entry in enumerate(dict.fromkeys(entries))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


@pytest.fixture(scope="session")
def tiny_network(tiny_tokenizer: PreTrainedTokenizerFast) -> FusedEncoder:
    """Two layers, d = 32, d' = 16; weights large enough that texts differ, a bias that leaves some terms out."""
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20240229)
        encoder = FusedEncoder(BertForMaskedLM(config), dense_dim=16, special_ids=tiny_tokenizer.all_special_ids)
        torch.nn.init.normal_(encoder.mlm.cls.predictions.bias)
        torch.nn.init.normal_(encoder.terms.bias, mean=-2.0)
    return encoder.eval()


def export_tiny(
    network: FusedEncoder, tokenizer: PreTrainedTokenizerFast, folder: Path, precision: Precision
) -> Artifact:
    facts = Facts(
        name="tiny",
        base_model="none",
        licence="Apache-2.0",
        k_query=16,
        k_document=32,
        max_query_tokens=32,
        max_document_tokens=64,
        rarity_weight=0.2,
    )
    return export(network, tokenizer, folder, precision=precision, facts=facts, card="# Tiny\n", texts=TEXTS)


@pytest.fixture(scope="session")
def tiny_artifact(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    folder = tmp_path_factory.mktemp("artifacts") / "tiny"
    return export_tiny(tiny_network, tiny_tokenizer, folder, "fp32")


@pytest.fixture(scope="session")
def tiny_artifact_fp16(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    folder = tmp_path_factory.mktemp("artifacts") / "tiny-fp16"
    return export_tiny(tiny_network, tiny_tokenizer, folder, "fp16")


@pytest.fixture(scope="session")
def tiny_artifact_int8(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    folder = tmp_path_factory.mktemp("artifacts") / "tiny-int8"
    return export_tiny(tiny_network, tiny_tokenizer, folder, "int8")


@pytest.fixture(scope="session")
def reading_artifact(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    """The untrained network with its layers turned down: each token then says itself, which finds texts by words."""
    network = copy.deepcopy(tiny_network)
    with torch.no_grad():
        for name, weight in network.mlm.bert.encoder.named_parameters():
            if name.endswith("output.dense.weight"):
                weight.mul_(0.05)
        network.mlm.bert.embeddings.position_embeddings.weight.mul_(0.1)
        network.mlm.cls.predictions.transform.dense.weight.copy_(torch.eye(32))
        network.project.weight.mul_(0.1)
    return export_tiny(network, tiny_tokenizer, tmp_path_factory.mktemp("artifacts") / "reading", "fp32")


@pytest.fixture(scope="session")
def tiny_encoder(tiny_artifact: Artifact) -> Encoder:
    return Encoder(tiny_artifact, threads=1)
