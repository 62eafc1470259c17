"""Teachers: their scores are those of a literal computation, in any batch, and a broken run is never seen."""

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import normalize
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from typer.testing import CliRunner

import model.cli
from model.bert import quiet
from model.checkpoint import Checkpoint, Facts
from model.dupmae import DupMAE, FusedEncoder
from model.lines import SourceError
from model.options import TrainingError
from model.records import Example, Records, read_examples, to_line
from model.score import Pair, ScoreOptions, Teacher, score
from model.teacher import load_teacher
from tests.conftest import SPECIAL, TEXTS

CPU = torch.device("cpu")
LONG = " ".join(TEXTS * 9)
PAIRS = [(query, passage) for query in (*TEXTS[:4], LONG) for passage in (*TEXTS, LONG)]
EXAMPLES = [
    Example(
        TEXTS[i % 6], (TEXTS[(i + 1) % 6],), tuple(TEXTS[(i + j) % 6] for j in range(2, 2 + i % 4)), others={"id": i}
    )
    for i in range(11)
]
SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
    "initializer_range": 0.3,
}

ONE_LABEL: dict[str, Any] = {"num_labels": 1}


@pytest.fixture(scope="session")
def tokenizer(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with a frame for pairs, and with the padding and truncation that many a folder has saved."""
    backend = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    ends = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    backend.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=ends)
    backend.enable_padding(length=100)
    backend.enable_truncation(100)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


def save(network: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    with quiet():
        network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def cross_encoder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    network = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **ONE_LABEL, **SIZE))
    return save(network, tokenizer, tmp_path_factory.mktemp("teachers") / "cross")


@pytest.fixture(scope="session")
def bare(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    network = BertModel(BertConfig(vocab_size=len(tokenizer), **SIZE), add_pooling_layer=False)
    return save(network, tokenizer, tmp_path_factory.mktemp("teachers") / "bare")


Says = Callable[..., Path]


@pytest.fixture
def bi_encoder(bare: Path, tmp_path: Path) -> Says:
    """A folder in the layout of sentence-transformers that says what it is told."""

    def write(
        pooling: dict[str, Any], *modules: str, text: dict[str, Any] | None = None, said: dict[str, Any] | None = None
    ) -> Path:
        folder = Path(shutil.copytree(bare, tmp_path / "bi"))
        layers = [
            ("", "sentence_transformers.models.Transformer"),
            ("1_Pooling", "sentence_transformers.models.Pooling"),
        ]
        layers += [(f"2_{name}", f"sentence_transformers.models.{name}") for name in modules]
        (folder / "modules.json").write_text(json.dumps([{"path": path, "type": kind} for path, kind in layers]))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
        (folder / "sentence_bert_config.json").write_text(json.dumps(text or {}))
        (folder / "config_sentence_transformers.json").write_text(json.dumps(said or {}))
        return folder

    return write


def scores(folder: Path, pairs: Sequence[Pair] = PAIRS, **options: Any) -> list[float]:
    return load_teacher(folder, ScoreOptions(**options), CPU).score(pairs)


Unframed = Callable[[str, int], list[int]]


@pytest.fixture(scope="session")
def unframed(tokenizer: PreTrainedTokenizerFast) -> Unframed:
    """The first tokens of a text, without special ones."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    return lambda text, tokens: list(backend.encode(text, add_special_tokens=False).ids[:tokens])


# ---- scores are those of a literal computation


@torch.no_grad()
def test_a_cross_encoders_score_is_its_logit_for_the_pair(
    cross_encoder: Path, tokenizer: PreTrainedTokenizerFast, unframed: Unframed
) -> None:
    network = BertForSequenceClassification.from_pretrained(cross_encoder)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    wanted = []
    for query, passage in PAIRS:
        first = [cls, *unframed(query, 10), sep]
        second = [*unframed(passage, 48 - len(first) - 1), sep]
        types = [0] * len(first) + [1] * len(second)
        wanted.append(network(torch.tensor([first + second]), token_type_ids=torch.tensor([types])).logits.item())
    assert scores(cross_encoder, max_query_tokens=10, max_tokens=48) == pytest.approx(wanted, abs=1e-5)
    assert max(wanted) - min(wanted) > 0.5


@torch.no_grad()
def test_a_network_that_knows_no_types_and_counts_positions_late_is_read_to_its_last_position(
    tokenizer: PreTrainedTokenizerFast, unframed: Unframed, tmp_path: Path
) -> None:
    pad, ends = tokenizer.pad_token_id, [tokenizer.sep_token_id]
    config = RobertaConfig(vocab_size=len(tokenizer), type_vocab_size=1, pad_token_id=pad, **ONE_LABEL, **SIZE)
    network = RobertaForSequenceClassification(config).eval()
    folder = save(network, tokenizer, tmp_path / "roberta")
    positions = SIZE["max_position_embeddings"] - pad - 1
    first = [tokenizer.cls_token_id, *unframed("energy", 9), *ends]
    ids = [*first, *unframed(LONG, positions - len(first) - 1), *ends]
    assert len(ids) == positions
    wanted = network(torch.tensor([ids])).logits.item()
    assert scores(folder, [("energy", LONG), ("energy", "air")])[0] == pytest.approx(wanted, abs=1e-5)


@torch.no_grad()
def vector(folder: Path, ids: list[int], pooling: str, similarity: str) -> torch.Tensor:
    hidden = BertModel.from_pretrained(folder)(torch.tensor([ids])).last_hidden_state[0]
    pooled = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.amax(0)}[pooling]
    return normalize(pooled, dim=0) if similarity == "cosine" else pooled


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize(("similarity", "scale"), [("cosine", 20), ("dot", 1)])
def test_a_bi_encoders_score_is_the_product_of_two_vectors(
    bare: Path,
    tokenizer: PreTrainedTokenizerFast,
    unframed: Unframed,
    pooling: str,
    similarity: str,
    scale: float,
) -> None:
    def of(text: str, most: int) -> torch.Tensor:
        ids = [tokenizer.cls_token_id, *unframed(text, most - 2), tokenizer.sep_token_id]
        return vector(bare, ids, pooling, similarity)

    with quiet():
        pairs = PAIRS[:: len(TEXTS)]
        wanted = [scale * float(of(query, 12) @ of(passage, 40)) for query, passage in pairs]
    found = scores(bare, pairs, pooling=pooling, similarity=similarity, max_query_tokens=12, max_tokens=40)
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_checkpoint_of_ours_gives_the_fused_score(
    tiny_network: FusedEncoder, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    facts = Facts(dense_dim=16, k_query=8, k_document=20)
    Checkpoint(DupMAE(copy.deepcopy(tiny_network)), tokenizer, facts).save(tmp_path / "ours")

    @torch.no_grad()
    def of(text: str, k: int) -> torch.Tensor:
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=64, padding=False)
        cls, bag = tiny_network(tokens["input_ids"], tokens["attention_mask"], k)
        return torch.cat([cls, bag.dense(len(tokenizer)).clamp(min=0)], dim=1)[0]

    wanted = [float(of(query, 8) @ of(passage, 20)) for query, passage in PAIRS]
    assert scores(tmp_path / "ours", max_tokens=64) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("folder_says", "is_like"),
    [
        (({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "Normalize"), {"pooling": "mean"}),
        (({"pooling_mode": "cls"},), {"pooling": "cls"}),
        (({"pooling_mode": ["max"]},), {"pooling": "max"}),
    ],
)
def test_a_folder_of_sentence_transformers_says_how_it_pools(
    bi_encoder: Says, bare: Path, folder_says: tuple[Any, ...], is_like: dict[str, Any]
) -> None:
    assert scores(bi_encoder(*folder_says)) == pytest.approx(scores(bare, **is_like), abs=1e-5)


def test_a_folder_of_sentence_transformers_says_similarity_prompts_and_case_and_options_win(
    bi_encoder: Says, bare: Path
) -> None:
    said: dict[str, Any] = {
        "similarity_fn_name": "dot",
        "prompts": {"query": "find: ", "passage": "text: ", "other": "no "},
    }
    folder = bi_encoder({"pooling_mode": "mean"}, text={"max_seq_length": 30, "do_lower_case": True}, said=said)
    like: dict[str, Any] = {"pooling": "mean", "similarity": "dot", "max_tokens": 30, "max_query_tokens": 30}
    prompted = [(f"find: {query}", f"text: {passage}") for query, passage in PAIRS]
    assert scores(folder, max_query_tokens=30) == pytest.approx(scores(bare, prompted, **like), abs=1e-5)
    other: dict[str, Any] = {"max_query_tokens": 30, "similarity": "cosine", "scale": 3}
    found = scores(folder, query_prompt="", document_prompt="", **other)
    assert found == pytest.approx(scores(bare, **like | other), abs=1e-5)


@pytest.mark.parametrize("kind", ["cross", "bi"])
def test_a_score_is_the_same_alone_and_among_others(cross_encoder: Path, bare: Path, kind: str) -> None:
    folder, options = (cross_encoder, {}) if kind == "cross" else (bare, {"pooling": "mean"})
    teacher = load_teacher(folder, ScoreOptions.model_validate(options), CPU)
    many = PAIRS * 9
    alone = [teacher.score([pair])[0] for pair in PAIRS]
    assert teacher.score(many) == pytest.approx(alone * 9, abs=1e-4)


def test_a_text_that_several_pairs_share_is_encoded_once(bare: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    teacher = load_teacher(bare, ScoreOptions(pooling="mean"), CPU)
    rows: list[int] = []

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == len(tokenizer):
            rows.append(len(inputs[0]))

    with register_module_forward_pre_hook(count):
        teacher.score([(query, passage) for query in TEXTS[:2] for passage in TEXTS])
    assert sum(rows) == 2 + len(TEXTS)


@pytest.mark.gpu
def test_scores_of_a_gpu_are_those_of_a_cpu_as_nearly_as_bf16_can(cross_encoder: Path, bare: Path) -> None:
    for folder, options in ((cross_encoder, ScoreOptions()), (bare, ScoreOptions(pooling="mean"))):
        on_gpu = load_teacher(folder, options, torch.device("cuda", 0)).score(PAIRS)
        assert on_gpu == pytest.approx(load_teacher(folder, options, CPU).score(PAIRS), abs=0.5)


# ---- what cannot be a teacher


def broken(folder: Path, to: Path, *, without: str = "", **config: Any) -> Path:
    """A copy of a folder without a file, or with another configuration."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(without))
    said = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(said | config))
    return to


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"without": "tokenizer.json"}, "no tokenizer.json; save the tokenizer there"),
        ({"without": "model.safetensors"}, "weights cannot be read .*copy the folder again"),
        (
            {"architectures": ["BertModel"]},
            "neither a cross-encoder, .* a checkpoint of ours; .* its --pooling",
        ),
        (
            {"model_type": "made-up", "auto_map": {"AutoConfig": "theirs.Config"}},
            "code that comes with a model",
        ),
        ({"vocab_size": 100}, "weights cannot be read"),
        ({"pad_token_id": None}, "names no pad_token_id"),
        ({"num_hidden_layers": 3}, r"the weights lack bert\.encoder\.layer\.2\..*"),
    ],
)
def test_a_folder_that_lacks_something_is_refused_by_name(
    cross_encoder: Path, tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    folder = broken(cross_encoder, tmp_path / "broken", **said)
    with pytest.raises(SourceError, match=f"broken.*{message}"):
        load_teacher(folder, ScoreOptions(), CPU)


def test_a_classifier_of_two_labels_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    network = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **SIZE))
    folder = save(network, tokenizer, tmp_path / "classifier")
    with pytest.raises(SourceError, match="classifier has 2 labels; a cross-encoder that scores has one"):
        load_teacher(folder, ScoreOptions(), CPU)


def test_the_tokenizer_of_another_model_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    network = BertForSequenceClassification(BertConfig(vocab_size=100, **ONE_LABEL, **SIZE))
    folder = save(network, tokenizer, tmp_path / "foreign")
    with pytest.raises(SourceError, match=r"\d+ entries in the tokenizer and 100 in config\.json are not of one model"):
        load_teacher(folder, ScoreOptions(), CPU)


@pytest.mark.parametrize("damage", [lambda content: content[:999], lambda content: b"not weights"])
def test_damaged_weights_are_refused(cross_encoder: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = broken(cross_encoder, tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(SourceError, match="broken: its weights cannot be read"):
        load_teacher(folder, ScoreOptions(), CPU)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no config\.json and no modules\.json"):
        load_teacher(tmp_path, ScoreOptions(), CPU)


@pytest.mark.parametrize(
    ("folder_says", "message"),
    [
        (({"pooling_mode_lasttoken": True},), r"pools by \['lasttoken'\]; known are mean, cls, max"),
        (({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},), r"pools by \['cls', 'mean'\]"),
        (({"pooling_mode": "mean", "include_prompt": False},), "known are mean, cls, max, each with the prompt"),
        (({"pooling_mode": "mean"}, "Dense"), "made of Transformer, Pooling, Dense; only Transformer, Pooling, Normal"),
    ],
)
def test_modules_that_we_have_not_are_refused(bi_encoder: Says, folder_says: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_teacher(bi_encoder(*folder_says), ScoreOptions(), CPU)


def test_a_damaged_configuration_is_refused(bi_encoder: Says) -> None:
    folder = bi_encoder({"pooling_mode": "mean"})
    (folder / "modules.json").write_text("[")
    with pytest.raises(SourceError, match=r"modules\.json is damaged"):
        load_teacher(folder, ScoreOptions(), CPU)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 131}, "--max-tokens 131, but .* reads at most 130"),
        ({"max_tokens": 40}, "--max-query-tokens 64, but .* reads at most 40"),
        ({"max_tokens": 100}, "--max-query-tokens 64 is more than half of a pair of 100"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(cross_encoder: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_teacher(cross_encoder, ScoreOptions.model_validate(options), CPU)


def test_a_score_that_is_no_number_ends_the_run(cross_encoder: Path, tokenizer: Any, tmp_path: Path) -> None:
    network = BertForSequenceClassification.from_pretrained(cross_encoder)
    torch.nn.init.constant_(network.classifier.bias, float("nan"))
    teacher = load_teacher(save(network, tokenizer, tmp_path / "nan"), ScoreOptions(), CPU)
    with pytest.raises(TrainingError, match=r"scores nan for \('How do I"):
        teacher.score(PAIRS)


# ---- files of records


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(to_line(example) + "\n" for example in EXAMPLES))
    return path


def test_every_text_gets_its_score_and_nothing_else_changes(cross_encoder: Path, source: Path, tmp_path: Path) -> None:
    options, out = ScoreOptions(batch=4, scale=2), tmp_path / "scored.jsonl"
    with Records(source) as records:
        score(load_teacher(cross_encoder, options, CPU), records, out, options)
    found = list(read_examples(out))
    assert [(e.query, e.positives, e.negatives, e.others) for e in found] == [
        (e.query, e.positives, e.negatives, e.others) for e in EXAMPLES
    ]
    for example in found:
        pairs = [(example.query, text) for text in (*example.positives, *example.negatives)]
        wanted = [2 * value for value in scores(cross_encoder, pairs)]
        assert [*example.positive_scores, *example.negative_scores] == pytest.approx(wanted, abs=1e-4)


def test_a_run_that_broke_goes_on_to_the_same_bytes(cross_encoder: Path, source: Path, tmp_path: Path) -> None:
    options = ScoreOptions(batch=2)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "scored.jsonl"
    teacher = load_teacher(cross_encoder, options, CPU)
    left = 3

    def breaking(pairs: Sequence[Pair]) -> list[float]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return teacher.score(pairs)

    with Records(source) as records:
        score(teacher, records, whole, options)
        with pytest.raises(KeyboardInterrupt):
            score(Teacher(teacher.what, teacher.digest, teacher.device, breaking), records, out, options)
        assert score(teacher, records, out, options) == (11, 6)
    assert out.read_bytes() == whole.read_bytes()


def test_a_broken_run_is_not_gone_on_with_by_another_teacher(
    cross_encoder: Path, bare: Path, source: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "scored.jsonl", ScoreOptions(batch=2)
    first = load_teacher(cross_encoder, options, CPU)

    def breaking(pairs: Sequence[Pair]) -> list[float]:
        raise KeyboardInterrupt

    other = ScoreOptions(batch=2, pooling="mean")
    with Records(source) as records:
        with pytest.raises(KeyboardInterrupt):
            score(Teacher(first.what, first.digest, first.device, breaking), records, out, options)
        with pytest.raises(FileExistsError, match=r"teacher was '.*pooling was None, is 'mean'\. .*--restart"):
            score(load_teacher(bare, other, CPU), records, out, other)
        assert score(load_teacher(bare, other, CPU), records, out, other, restart=True) == (11, 0)


# ---- the command


def dupmae(*arguments: str | Path) -> Any:
    return CliRunner().invoke(model.cli.app, ["score", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_command_says_what_it_did(cross_encoder: Path, source: Path, tmp_path: Path) -> None:
    source.write_text(source.read_text() + '{"query": "", "pos": ["a"]}\n')
    out = tmp_path / "scored.jsonl"
    done = dupmae(cross_encoder, source, out, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "scored.jsonl: 11 records" in done.stdout
    assert "left out 1 records without a query; cross-encoder, scores times 1" in done.stdout
    assert "of 15 pairs" in done.stdout
    again = dupmae(cross_encoder, source, out, "--device", "cpu")
    assert isinstance(again.exception, FileExistsError)
    assert dupmae(cross_encoder, source, out, "--device", "cpu", "--restart").exit_code == 0


def test_options_that_do_not_fit_are_wrong_usage(cross_encoder: Path, source: Path, tmp_path: Path) -> None:
    done = dupmae(cross_encoder, source, tmp_path / "out.jsonl", "--max-tokens", "1000")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--max-tokens 1000, but" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(cross_encoder: Path, source: Path, tmp_path: Path) -> None:
    done = dupmae(cross_encoder, source, tmp_path / "out.jsonl", "--device", "cuda")
    assert isinstance(done.exception, TrainingError)
    assert "no CUDA device" in str(done.exception)


def test_a_teacher_or_records_that_are_not_there_are_errors(source: Path, tmp_path: Path) -> None:
    for arguments in ((tmp_path / "none", source), (tmp_path, tmp_path / "none.jsonl")):
        done = dupmae(*arguments, tmp_path / "out.jsonl")
        assert isinstance(done.exception, SourceError)
        assert "none" in str(done.exception)
