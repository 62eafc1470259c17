"""Adaptation on a network and a text small enough to learn in seconds: it helps, it says what it did, it goes on."""

import copy
import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from transformers import BertModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

import model.cli
from model.adapt import Adapted, Sources, adapt
from model.artifact import MODEL_CARD, Artifact
from model.card import AFTER, BEFORE
from model.checkpoint import Checkpoint, load
from model.lines import SourceError
from model.options import AdaptOptions, TrainingError
from model.warm_start import calibrate_terms, refresh_heads, spread_projection
from tests.conftest import WORDS
from tests.model.training import SENTENCES, command, log, save_bert, write_records

QUICK = {
    "pretrain_steps": 30,
    "finetune_steps": 60,
    "batch_size": 16,
    "max_tokens": 64,
    "pretrain_learning_rate": 1e-3,
    "finetune_learning_rate": 3e-4,
    "precision": "fp32",
    "device": "cpu",
    "save_every": 7,
}
BRIEF = QUICK | {"pretrain_steps": 8, "finetune_steps": 8, "save_every": 3}


@pytest.fixture
def bert(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """Without a head, and with layers that leave word embeddings nearly as they are, so that words tell texts apart."""
    network = BertModel.from_pretrained(save_bert(tiny_tokenizer, tmp_path / "plain"), add_pooling_layer=False)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.mul_(0.1 if "output.dense" in name else 0.3 if "position" in name else 1.0)
    network.save_pretrained(tmp_path / "bert")
    tiny_tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def tuned(bert: Path, tmp_path: Path) -> Path:
    """A checkpoint whose heads fit a few other texts."""
    torch.manual_seed(0)
    checkpoint = load(bert)
    spread_projection(checkpoint, SENTENCES)
    calibrate_terms(checkpoint, SENTENCES, active=20)
    checkpoint._replace(facts=checkpoint.facts.after("before")).save(tmp_path / "tuned")
    return tmp_path / "tuned"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Titles of words that their texts repeat among others; every third text has none."""
    rng, words = random.Random(0), sorted(set(WORDS.split()))
    path = tmp_path / "notes.jsonl"
    rows = []
    for number in range(200):
        subject, others = rng.sample(words, 4), rng.sample(words, 12)
        body = f"{' '.join(subject[:3])} and {' '.join(others[:5])}. The {' '.join(subject)} or {' '.join(others[5:])}."
        rows.append({"title": " ".join(subject) if number % 3 else "", "text": body})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def adapted(out: Path, sources: Sources, **options: object) -> Adapted:
    return adapt(out, sources, AdaptOptions.model_validate(QUICK | options))


def flags(options: dict[str, object]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def test_a_model_gets_better_at_the_text_and_its_artifact_says_so(tuned: Path, text: Path, tmp_path: Path) -> None:
    done = adapted(tmp_path / "out", Sources(tuned, (text,)))
    assert done.after["fused"] > done.before["fused"] + 0.05
    assert (done.counts.texts, done.counts.queries) == (180, 20)
    manifest = Artifact.open(tmp_path / "out").manifest
    assert (manifest.name, manifest.base_model, manifest.precision) == ("out", "tuned", "fp32")
    assert manifest.evaluation[BEFORE]["fused nDCG@10"] == pytest.approx(done.before["fused"], abs=1e-4)
    assert manifest.evaluation[AFTER]["cls nDCG@10"] == pytest.approx(done.after["cls"], abs=1e-4)
    runs = manifest.training["runs"]
    assert isinstance(runs, list)
    assert [str(run).split()[0] for run in runs] == ["before", "pretrain", "heads", "finetune"]
    card = (tmp_path / "out" / MODEL_CARD).read_text()
    assert "180 texts of notes.jsonl" in card
    assert f"| fused nDCG@10 | {done.before['fused']:.3f} | {done.after['fused']:.3f} |" in card


def test_a_bert_without_heads_of_its_own_gets_some(bert: Path, text: Path, tmp_path: Path) -> None:
    done = adapted(tmp_path / "out", Sources(bert, (text,)))
    assert done.after["fused"] > done.before["fused"]
    history = load(tmp_path / "out.run" / "3-fused").facts.history
    assert [run.split()[0] for run in history] == ["heads", "pretrain", "heads", "finetune"]
    assert history[0] == history[2]


def test_an_artifact_keeps_its_lengths_its_numbers_of_terms_and_its_licence(
    tiny_artifact: Artifact, text: Path, tmp_path: Path
) -> None:
    adapted(tmp_path / "out", Sources(tiny_artifact.path, (text,)), **BRIEF)
    manifest, old = Artifact.open(tmp_path / "out").manifest, tiny_artifact.manifest
    same = {
        "licence",
        "rarity_weight",
        "k_query",
        "k_document",
        "max_query_tokens",
        "max_document_tokens",
        "dense_dim",
        "activation",
    }
    assert manifest.model_dump(include=same) == old.model_dump(include=same)
    assert manifest.base_model == old.name


def test_a_stage_without_steps_is_left_out_and_records_are_trained_on(tuned: Path, text: Path, tmp_path: Path) -> None:
    records = write_records(tmp_path / "asked.jsonl")
    adapted(tmp_path / "out", Sources(tuned, (text,), (records,)), **BRIEF | {"pretrain_steps": 0, "batch_size": 8})
    run = tmp_path / "out.run"
    assert sorted(path.name for path in run.glob("[0-9]-*")) == ["3-fused", "3-fused.run"]
    assert "Records that people made: asked.jsonl." in (tmp_path / "out" / MODEL_CARD).read_text()
    adapted(tmp_path / "without", Sources(tuned, (text,)), **BRIEF | {"pretrain_steps": 0, "batch_size": 8})
    assert log(run / "3-fused.run", "total") != log(tmp_path / "without.run" / "3-fused.run", "total")


def test_a_run_that_was_killed_twice_ends_as_if_it_had_not_been(tuned: Path, text: Path, tmp_path: Path) -> None:
    words = ["adapt", str(tmp_path / "broken"), str(text), "--start", str(tuned), *flags(BRIEF)]
    for state in ("1-pretrained.run/state.pt", "3-fused.run/state.pt"):
        process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (tmp_path / "broken.run" / state).exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "broken").exists()
    adapted(tmp_path / "broken", Sources(tuned, (text,)), **BRIEF)
    adapted(tmp_path / "unbroken", Sources(tuned, (text,)), **BRIEF)
    broken, unbroken = (Artifact.open(tmp_path / name) for name in ("broken", "unbroken"))
    assert broken.fingerprint == unbroken.fingerprint
    assert broken.manifest.evaluation == unbroken.manifest.evaluation


def test_a_stage_that_is_there_is_not_run_again(tuned: Path, text: Path, tmp_path: Path) -> None:
    done = adapted(tmp_path / "out", Sources(tuned, (text,)), **BRIEF)
    shutil.rmtree(tmp_path / "out")
    stages = {path: path.stat().st_mtime_ns for path in (tmp_path / "out.run").rglob("*")}
    assert adapted(tmp_path / "out", Sources(tuned, (text,)), **BRIEF | {"precision": "int8"}) == done
    assert {path: path.stat().st_mtime_ns for path in stages} == stages
    assert Artifact.open(tmp_path / "out").manifest.precision == "int8"


def test_another_run_is_not_gone_on_from_but_can_be_forgotten(tuned: Path, text: Path, tmp_path: Path) -> None:
    sources, chosen = Sources(tuned, (text,)), AdaptOptions.model_validate(BRIEF | {"pretrain_steps": 0})
    adapt(tmp_path / "out", sources, chosen)
    with pytest.raises(TrainingError, match=r"out is there already; name another folder, or remove it"):
        adapt(tmp_path / "out", sources, chosen)
    shutil.rmtree(tmp_path / "out")
    other = chosen.model_copy(update={"seed": 1})
    with pytest.raises(TrainingError, match=r"seed was 0, is 1\. .*--restart to begin anew"):
        adapt(tmp_path / "out", sources, other)
    text.touch()
    with pytest.raises(TrainingError, match=r"texts was \[\['notes.jsonl', .*--restart"):
        adapt(tmp_path / "out", sources, chosen)
    adapt(tmp_path / "out", sources, other, restart=True)
    assert not list(tmp_path.glob("*.stale"))


def test_a_start_that_was_narrowed_since_is_another_start(tuned: Path, text: Path, tmp_path: Path) -> None:
    sources, chosen = Sources(tuned, (text,)), AdaptOptions.model_validate(BRIEF | {"pretrain_steps": 0})
    adapt(tmp_path / "out", sources, chosen)
    shutil.rmtree(tmp_path / "out")
    start = load(tuned)
    start.model.encoder.expansions = torch.arange(100)
    start._replace(facts=start.facts.model_copy(update={"expansions": 100})).save(tuned)
    with pytest.raises(TrainingError, match=r"start was .*--restart to begin anew"):
        adapt(tmp_path / "out", sources, chosen)


def test_a_folder_of_something_else_is_left_alone(tuned: Path, text: Path, tmp_path: Path) -> None:
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "thesis.txt").write_text("years of work")
    with pytest.raises(TrainingError, match=r"out\.run is there and has no made-by\.json"):
        adapt(tmp_path / "out", Sources(tuned, (text,)), AdaptOptions.model_validate(BRIEF), restart=True)
    assert (tmp_path / "out.run" / "thesis.txt").exists()


def test_what_cannot_be_adapted_to_is_refused_and_more_text_may_follow(tuned: Path, text: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(text.read_text().splitlines(keepends=True)[:50]))
    with pytest.raises(SourceError, match=r"few\.jsonl: 50 different texts; at least 100 are needed"):
        adapted(tmp_path / "out", Sources(tuned, (few,)))
    with pytest.raises(SourceError, match=r"none\.jsonl: No such file"):
        adapted(tmp_path / "out", Sources(tuned, (tmp_path / "none.jsonl",)))
    with pytest.raises(SourceError, match=r"asked\.jsonl: 8 records, fewer than batch_size=16"):
        adapted(tmp_path / "other", Sources(tuned, (text,), (write_records(tmp_path / "asked.jsonl"),)))
    with pytest.raises(TrainingError, match="max_tokens=512, but the network has 128 positions"):
        adapted(tmp_path / "out", Sources(tuned, (text,)), max_tokens=512)
    adapted(tmp_path / "out", Sources(tuned, (text,)), **BRIEF | {"pretrain_steps": 0, "finetune_steps": 1})


def test_the_command_shows_both_figures_and_says_where_it_did_not_help(tuned: Path, text: Path, tmp_path: Path) -> None:
    harmful = BRIEF | {"pretrain_steps": 0, "finetune_steps": 3, "finetune_learning_rate": 0.5}
    words = ["adapt", str(tmp_path / "out"), str(text), "--start", str(tuned), *flags(harmful)]
    result = CliRunner().invoke(model.cli.app, words)
    assert result.exit_code == 0, result.exception
    lines = result.stdout.splitlines()
    assert lines[0] == "nDCG@10 of 20 held-out queries over 200 passages"
    assert [line.split()[0] for line in lines[1:5]] == ["before", "fused", "cls", "ot"]
    assert lines[5].startswith("Fused search is NOT better than before")
    assert lines[-2] == f"Next: dupmae index build {text} --artifact {tmp_path / 'out'}"
    assert Artifact.open(tmp_path / "out").manifest.evaluation[AFTER]


def test_nothing_to_do_is_wrong_usage(tmp_path: Path) -> None:
    words = ["adapt", str(tmp_path / "out"), "text.txt", "--pretrain-steps=0", "--finetune-steps=0"]
    result = CliRunner().invoke(model.cli.app, words)
    assert result.exit_code == 2
    assert "nothing is left to do" in " ".join(result.output.replace("│", " ").split())


# ---- heads that follow their body


def moved(checkpoint: Checkpoint) -> Checkpoint:
    """The same heads on a body that has gone on."""
    changed = checkpoint._replace(model=copy.deepcopy(checkpoint.model))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in changed.model.encoder.mlm.named_parameters():
            if "layer.1" in name or "transform" in name:
                weight.add_(0.15 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator))
    return changed


def distance(one: Checkpoint, two: Checkpoint, texts: list[str]) -> tuple[float, float]:
    """Of [CLS] vectors and of whole bags, relative to their lengths."""
    inputs = one.tokenizer(texts, padding=True, return_tensors="pt").data
    with torch.no_grad():
        (cls, bag), (other_cls, other_bag) = (
            checkpoint.model.encoder(inputs["input_ids"], inputs["attention_mask"], 300) for checkpoint in (one, two)
        )
    size = one.model.encoder.vocabulary_size
    dense, other = bag.dense(size), other_bag.dense(size)
    return float((cls - other_cls).norm() / cls.norm()), float((dense - other).norm() / dense.norm())


def test_heads_that_were_refreshed_say_again_what_they_said_before_the_body_moved(tuned: Path, text: Path) -> None:
    before = load(tuned)
    texts = [json.loads(line)["text"] for line in text.read_text().splitlines()]
    after = moved(before)
    cls, ot = distance(before, after, texts[:50])
    refresh_heads(after, before.model.encoder, texts[50:])
    refreshed_cls, refreshed_ot = distance(before, after, texts[:50])
    assert refreshed_cls < 0.6 * cls
    assert refreshed_ot < 0.8 * ot


def test_heads_of_a_body_that_did_not_move_stay_what_they_are(tuned: Path) -> None:
    before, after = load(tuned), load(tuned)
    refresh_heads(after, before.model.encoder, [*SENTENCES, "\u2603"])
    for name, weight in before.model.encoder.state_dict().items():
        torch.testing.assert_close(after.model.encoder.state_dict()[name], weight, atol=1e-5, rtol=1e-5)
