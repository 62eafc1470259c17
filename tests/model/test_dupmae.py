"""The network against literal, slow transcriptions of the paper's equations, and of what its released code does."""

import copy
from collections.abc import Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from model.dupmae import Batch, Counts, DupMAE, FusedEncoder, Objective, TermWeights, bow_loss
from model.masking import Corruption, Masker, Unit

TEXTS = [
    "the king of the island had a horse",
    "how do i compress a file",
    "the speed of sound in air, air and air \u2603",
    "energy",
    "airplanes and engines",
]
PAPER = Objective()
RELEASED = Objective(bow=0.1, bow_target="mean", bow_pool="all", decoder_input="normed")


@pytest.fixture
def dupmae(tiny_network: FusedEncoder) -> DupMAE:
    torch.manual_seed(0)
    return DupMAE(tiny_network).eval()


@pytest.fixture
def batch(tiny_tokenizer: PreTrainedTokenizerFast) -> Batch:
    return masked(Masker(tiny_tokenizer), tiny_tokenizer)


def masked(masker: Masker, tokenizer: PreTrainedTokenizerFast, rows: slice = slice(None)) -> Batch:
    return masker.batch([tokenizer(text)["input_ids"] for text in TEXTS][rows], range(len(TEXTS))[rows])


# ---- the equations, one text, one position, one vocabulary entry at a time


def literal(dupmae: DupMAE, batch: Batch, objective: Objective) -> dict[str, Tensor]:
    """Every loss by hand on unpadded texts, with transformers' own MLM head and no mask but Python's `if`."""
    mlm, special = dupmae.encoder.mlm, set(dupmae.encoder.special_ids.tolist())
    L, hidden_at = batch.input_ids.shape[1], set(batch.masked_at.tolist())
    mlm_terms, cls_terms, bow_terms = list[Tensor](), list[Tensor](), list[Tensor]()
    for b, n in enumerate(batch.attention_mask.sum(1).tolist()):
        x = batch.input_ids[b, :n].tolist()
        ordinary = [i for i in range(n) if x[i] not in special]
        hidden = [i for i in range(n) if b * L + i in hidden_at]
        output = mlm(input_ids=batch.masked_ids[b : b + 1, :n], output_hidden_states=True)
        logits, h_cls = output.logits[0], output.hidden_states[-1][0, 0]
        # the encoder: the masked tokens
        mlm_terms += [surprise(logits[i], x[i]) for i in hidden]
        # enhanced decoding, equations 4 to 6 of RetroMAE: every token
        queries, context = streams(dupmae, h_cls, x, objective)
        for i in ordinary:
            seen = [j for j in range(n) if batch.visible[b, i, j]]
            assert 0 in seen
            assert i not in seen
            cls_terms.append(surprise(mlm.cls(decoded(dupmae, queries[i], [context[j] for j in seen])), x[i]))
        # bag of words, equations 7 and 8
        pooled = range(1, n) if objective.bow_pool == "all" else [i for i in ordinary if i not in hidden]
        scores = logits[list(pooled)]  # [PAD] scores the same everywhere: the first of equals wins, as in the network
        mu = torch.stack([max(column.unbind(), key=Tensor.item) for column in scores.t()])
        loss = torch.stack([surprise(mu, token) for token in {x[i] for i in ordinary}]).sum()
        bow_terms.append(loss / len(ordinary) if objective.bow_target == "mean" else loss)
    terms = {"mlm": mlm_terms, "cls": cls_terms, "bow": bow_terms}
    return {name: torch.stack(values).mean() for name, values in terms.items()}


def surprise(scores: Tensor, token: int) -> Tensor:
    exponentials = scores.exp()
    return -torch.log(exponentials[token] / exponentials.sum())


def streams(dupmae: DupMAE, h_cls: Tensor, x: list[int], objective: Objective) -> tuple[list[Tensor], list[Tensor]]:
    """H1 and H2, with [CLS] in the place of the first token."""
    embeddings = dupmae.encoder.mlm.bert.embeddings
    if objective.decoder_input == "normed":
        queries = list(embeddings(inputs_embeds=h_cls.expand(1, len(x), -1))[0])
        context = list(embeddings(input_ids=torch.tensor([x]))[0])
    else:
        places = embeddings.position_embeddings.weight
        queries = [h_cls + places[i] for i in range(len(x))]
        context = [embeddings.word_embeddings.weight[token] + places[i] for i, token in enumerate(x)]
    return queries, [h_cls, *context[1:]]


def decoded(dupmae: DupMAE, query: Tensor, context: Sequence[Tensor]) -> Tensor:
    decoder, heads = dupmae.decoder, []
    width = len(query) // decoder.heads
    for head in range(decoder.heads):
        part = slice(head * width, (head + 1) * width)
        q = decoder.query(query)[part]
        weights = torch.stack([q @ decoder.key(c)[part] / width**0.5 for c in context]).softmax(0)
        heads.append(torch.stack([w * decoder.value(c)[part] for w, c in zip(weights, context, strict=True)]).sum(0))
    attended = decoder.attention_norm(query + decoder.out(torch.cat(heads)))
    output: Tensor = decoder.output_norm(attended + decoder.outer(F.gelu(decoder.inner(attended))))
    return output


def gradients(dupmae: DupMAE, total: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*dupmae.named_parameters(), strict=True)
    found = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def assert_close(ours: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert ours.keys() == wanted.keys()
    for name, value in wanted.items():
        complaint = partial("{}: {}".format, name)
        torch.testing.assert_close(ours[name], value, atol=2e-5, rtol=2e-4, msg=complaint)


@pytest.mark.parametrize(
    ("objective", "corruption", "unit"),
    [
        pytest.param(PAPER, "mask", "token", id="paper"),
        pytest.param(PAPER, "bert", "token", id="corruption=bert"),
        pytest.param(PAPER, "mask", "word", id="decoder_unit=word"),
        pytest.param(Objective(decoder_input="normed"), "mask", "token", id="decoder_input=normed"),
        pytest.param(Objective(bow_target="mean"), "mask", "token", id="bow_target=mean"),
        pytest.param(Objective(bow_pool="all"), "mask", "token", id="bow_pool=all"),
        pytest.param(Objective(0.5, 2.0, 0.1), "mask", "token", id="weights"),
        pytest.param(RELEASED, "bert", "word", id="released code"),
    ],
)
def test_losses_and_their_gradients_are_the_equations_token_by_token(
    objective: Objective,
    corruption: Corruption,
    unit: Unit,
    dupmae: DupMAE,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    batch = masked(Masker(tiny_tokenizer, corruption=corruption, unit=unit), tiny_tokenizer)
    ours, terms = dupmae(batch, objective, Counts.of(batch)), literal(dupmae, batch, objective)
    total = objective.mlm * terms["mlm"] + objective.cls * terms["cls"] + objective.bow * terms["bow"]
    assert_close(ours, {"total": total, **terms})
    assert_close(gradients(dupmae, ours["total"]), gradients(dupmae, total))


def test_the_choices_are_different_losses(dupmae: DupMAE, batch: Batch) -> None:
    counts = Counts.of(batch)
    paper, released = dupmae(batch, PAPER, counts), dupmae(batch, RELEASED, counts)
    pooled_alike = dupmae(batch, Objective(bow_pool="all"), counts)
    assert paper["mlm"] == released["mlm"]
    assert abs(paper["cls"] - released["cls"]) > 1e-3
    assert abs(paper["bow"] - pooled_alike["bow"]) > 1e-3


@pytest.mark.parametrize("ends", [(2, 3), (1, 2, 3, 4)])
def test_the_losses_of_parts_add_up_to_those_of_the_whole(
    ends: tuple[int, ...], dupmae: DupMAE, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    masker = Masker(tiny_tokenizer)
    whole = masked(masker, tiny_tokenizer)
    parts = [masked(masker, tiny_tokenizer, slice(*se)) for se in zip((0, *ends), (*ends, len(TEXTS)), strict=True)]
    assert len({part.input_ids.shape[1] for part in parts}) > 1, "they are padded differently"
    counts = Counts.of(*parts)
    assert [count.item() for count in counts] == [count.item() for count in Counts.of(whole)]
    each = [dupmae(part, PAPER, counts) for part in parts]
    summed = {name: torch.stack([losses[name] for losses in each]).sum() for name in each[0]}
    wanted = dupmae(whole, PAPER, counts)
    assert_close(summed, wanted)
    assert_close(gradients(dupmae, summed["total"]), gradients(dupmae, wanted["total"]))


@pytest.mark.parametrize("left", ["mlm", "cls", "bow"])
def test_a_term_of_weight_zero_is_not_computed(left: str, dupmae: DupMAE, batch: Batch) -> None:
    mlm, cls, bow = (0.5 if left == name else 0.0 for name in ("mlm", "cls", "bow"))
    losses = dupmae(batch, Objective(mlm, cls, bow), Counts.of(batch))
    assert losses.keys() == {"total", left}
    assert losses["total"].item() == pytest.approx(0.5 * losses[left].item())


def test_a_batch_without_a_masked_word_has_no_loss_for_it(
    dupmae: DupMAE, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    batch = masked(Masker(tiny_tokenizer), tiny_tokenizer, slice(3, 4))  # one word, which stays in sight
    losses = dupmae(batch, PAPER, Counts.of(batch))
    assert losses["mlm"].item() == 0
    assert all(value.isfinite().all() for value in gradients(dupmae, losses["total"]).values())


def test_a_repeated_word_counts_once_in_the_bag() -> None:
    mu = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 4, 4, 2], [1, 7, 2, 0]])
    ordinary = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]]).bool()
    by_hand = surprise(mu[0], 4), surprise(mu[1], 7)
    torch.testing.assert_close(bow_loss(mu, ids, ordinary), by_hand[0] + by_hand[1])
    torch.testing.assert_close(bow_loss(mu, ids, ordinary, mean=True), by_hand[0] / 2 + by_hand[1])


@pytest.mark.parametrize("norm", [None, torch.nn.LayerNorm(32)])
def test_a_token_does_not_reach_its_own_reconstruction(
    norm: torch.nn.Module | None, dupmae: DupMAE, batch: Batch
) -> None:
    B, L = batch.input_ids.shape
    embeddings = dupmae.encoder.mlm.bert.embeddings.word_embeddings(batch.input_ids).detach().requires_grad_()
    positions = dupmae.encoder.mlm.bert.embeddings.position_embeddings.weight[:L].detach()
    rebuilt = dupmae.decoder(torch.zeros(B, 32), embeddings, positions, batch.visible, norm=norm)
    (gradient,) = torch.autograd.grad(rebuilt[0, 4].square() @ torch.arange(32.0), embeddings)
    reached = gradient.abs().sum(-1) > 0
    assert not reached[0, 4]
    assert torch.equal(reached[0, 1:], batch.visible[0, 4, 1:])
    assert not reached[1:].any(), "another text"


def test_the_bag_equals_pooling_everything_and_then_keeping_the_top(tiny_network: FusedEncoder, batch: Batch) -> None:
    cls, bag = tiny_network(batch.input_ids, batch.attention_mask, 20)
    hidden = tiny_network.hidden(batch.input_ids, batch.attention_mask)
    logits = tiny_network.mlm.cls(hidden)  # transformers' own head
    keep = tiny_network.ordinary(batch.input_ids, batch.attention_mask)
    mu = logits.masked_fill(~keep[..., None], float("-inf")).amax(1)
    wanted = tiny_network.terms(mu).topk(20, dim=1)
    torch.testing.assert_close(bag.values, wanted.values, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(cls, hidden[:, 0] @ tiny_network.project.weight.t())
    assert bag.dense(mu.shape[1]).sum().item() == pytest.approx(bag.values.sum().item(), rel=1e-5)


def test_a_text_of_unknown_words_only_has_an_empty_bag(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    inputs = tiny_tokenizer(["\u2603 \u2603", "the king"], padding=True, return_tensors="pt")
    _, bag = tiny_network(inputs["input_ids"], inputs["attention_mask"], 20)
    assert not bag.values[0].any()
    assert bag.values[1].any()


@pytest.mark.parametrize(
    ("activation", "wanted"), [("raw", [-3.0, 5.0]), ("relu", [0.0, 5.0]), ("log1p", [0.0, 1.7917595])]
)
def test_term_weights_scale_shift_and_then_activate(activation: str, wanted: list[float]) -> None:
    terms = TermWeights(4, activation)  # type: ignore[arg-type]  # parametrized over the literal's values
    with torch.no_grad():
        terms.gain.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        terms.bias.fill_(-1.0)
    value = terms(torch.tensor([[-1.0, 2.0]]), torch.tensor([[1, 2]]))
    torch.testing.assert_close(value[0], torch.tensor(wanted))


def test_what_fell_below_zero_may_rise_and_does_not_sink() -> None:
    mu = torch.tensor([[2.0, -1.0, -1.0, 0.0, 3.0]], requires_grad=True)
    wished = torch.tensor([[1.0, 1.0, -1.0, -1.0, -1.0]])  # a loss falls where this is below 0 and the value grows
    TermWeights(5)(mu).backward(wished)
    assert mu.grad is not None
    assert mu.grad.tolist() == [[1.0, 0.0, -1.0, -1.0, -1.0]]


def test_the_nearest_words_below_zero_fill_the_bag(tiny_network: FusedEncoder, batch: Batch) -> None:
    """Or those that could rise would be any."""
    encoder = copy.deepcopy(tiny_network)
    with torch.no_grad():
        encoder.terms.bias.fill_(-1000.0)
        _, bag = encoder(batch.input_ids, batch.attention_mask, 20)
        mu = encoder.mlm.cls(encoder.hidden(batch.input_ids, batch.attention_mask))
    keep = encoder.ordinary(batch.input_ids, batch.attention_mask)
    line = encoder.terms.line(mu.masked_fill(~keep[..., None], float("-inf")).amax(1))
    assert not bag.values.any()
    assert torch.equal(line.gather(1, bag.indices), line.topk(20, dim=1).values)
