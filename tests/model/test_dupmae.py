"""The network against literal, slow transcriptions of the paper's equations."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from model.dupmae import Batch, DupMAE, FusedEncoder, TermWeights, Weights, bow_loss
from model.masking import Masker

TEXTS = ["the king of the island had a horse", "how do i compress a file", "the speed of sound in air, air and air"]


@pytest.fixture
def batch(tiny_tokenizer: PreTrainedTokenizerFast) -> Batch:
    return Masker(tiny_tokenizer).batch(
        [tiny_tokenizer(text)["input_ids"] for text in TEXTS], torch.Generator().manual_seed(0)
    )


@pytest.fixture
def dupmae(tiny_network: FusedEncoder) -> DupMAE:
    torch.manual_seed(0)
    return DupMAE(tiny_network).eval()


def test_bag_of_words_loss_is_the_equation_token_by_token() -> None:
    mu = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 4, 4, 2], [1, 7, 2, 0]])
    ordinary = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]]).bool()
    by_hand = 0.0
    for row, tokens in enumerate(({4}, {7})):  # the set: 4 counts once
        exponentials = [torch.exp(value) for value in mu[row]]
        by_hand -= sum(torch.log(exponentials[token] / sum(exponentials)).item() for token in tokens)
    assert bow_loss(mu, ids, ordinary).item() == pytest.approx(by_hand / 2, abs=1e-5)


def test_cls_decoder_is_attention_row_by_row_over_what_the_row_sees(dupmae: DupMAE, batch: Batch) -> None:
    decoder, (B, L) = dupmae.decoder, batch.input_ids.shape
    embeddings = dupmae.encoder.mlm.bert.embeddings.word_embeddings(batch.input_ids)
    positions = dupmae.encoder.mlm.bert.embeddings.position_embeddings.weight[:L]
    h_cls = torch.randn(B, 32, generator=torch.Generator().manual_seed(1))
    ours = decoder(h_cls, embeddings, positions, batch.visible)
    for b in range(B):
        for i in range(L):
            torch.testing.assert_close(
                ours[b, i],
                _decode_one(dupmae, h_cls[b], embeddings[b], positions, batch.visible[b, i], i),
                atol=1e-5,
                rtol=1e-4,
            )


def _decode_one(dupmae: DupMAE, h_cls: Tensor, embeddings: Tensor, positions: Tensor, sees: Tensor, i: int) -> Tensor:
    decoder, width = dupmae.decoder, 8
    query = h_cls + positions[i]
    context = [h_cls if j == 0 else embeddings[j] + positions[j] for j in range(len(sees)) if sees[j]]
    heads = []
    for head in range(decoder.heads):
        part = slice(head * width, (head + 1) * width)
        q = decoder.query(query)[part]
        scores = torch.stack([q @ decoder.key(c)[part] / width**0.5 for c in context])
        heads.append(sum(w * decoder.value(c)[part] for w, c in zip(scores.softmax(0), context, strict=True)))
    attended = decoder.attention_norm(query + decoder.out(torch.cat(heads)))
    result: Tensor = decoder.output_norm(attended + decoder.outer(F.gelu(decoder.inner(attended))))
    return result


def test_a_token_does_not_reach_its_own_reconstruction(dupmae: DupMAE, batch: Batch) -> None:
    L = batch.input_ids.shape[1]
    embeddings = dupmae.encoder.mlm.bert.embeddings.word_embeddings(batch.input_ids).detach().requires_grad_()
    positions = dupmae.encoder.mlm.bert.embeddings.position_embeddings.weight[:L].detach()
    rebuilt = dupmae.decoder(torch.zeros(3, 32), embeddings, positions, batch.visible)
    (gradient,) = torch.autograd.grad(rebuilt[0, 4].square() @ torch.arange(32.0), embeddings)
    reached = gradient[0].abs().sum(-1) > 0
    assert not reached[4]
    assert torch.equal(reached[1:], batch.visible[0, 4, 1:])


def test_the_total_is_the_weighted_sum_and_a_term_of_weight_zero_is_not_computed(dupmae: DupMAE, batch: Batch) -> None:
    losses = dupmae(batch, Weights(1.0, 0.5, 0.1))
    assert losses.total.item() == pytest.approx(losses.mlm.item() + 0.5 * losses.cls.item() + 0.1 * losses.bow.item())
    only = dupmae(batch, Weights(1.0, 0.0, 0.0))
    assert (only.cls.item(), only.bow.item()) == (0.0, 0.0)
    assert only.total.item() == pytest.approx(losses.mlm.item())


def test_masked_and_special_positions_stay_out_of_the_pool(tiny_network: FusedEncoder, batch: Batch) -> None:
    keep = tiny_network.ordinary(batch.masked_ids, batch.attention_mask)
    assert not keep[torch.isin(batch.masked_ids, tiny_network.special_ids)].any()
    assert keep.sum() == (~torch.isin(batch.masked_ids, tiny_network.special_ids)).sum()


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
