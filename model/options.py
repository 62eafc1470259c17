"""What training may be told: one frozen model a loop, whose fields are the options of its command.

Free of torch, so that `--help` is quick. Defaults are the paper's (arXiv 2305.02564), but for steps and batch sizes,
which are one machine's. Where the paper and the code that its authors released differ, the field says so.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.artifact import Precision


class TrainingError(Exception):
    """Training cannot start, go on or resume; the message names the cause and the remedy."""


class Interrupted(TrainingError):
    """A signal ended the run after a step; its state is saved."""


class LoopOptions(BaseModel):
    """What both loops share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(1000, ge=1, description="Optimizer steps.")
    batch_size: int = Field(32, ge=2, description="Texts (queries, in fine-tuning) a step, over all ranks.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak for the body.")
    head_learning_rate: float = Field(1e-4, gt=0, description="Peak for the heads.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which learning rates rise.")
    weight_decay: float = Field(0.01, ge=0, description="Of matrices; biases and norms have none.")
    clip: float = Field(1.0, gt=0, description="Longest gradient.")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Of every layer; START's own when not given. 0 is quicker on a CPU."
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Of products; weights and losses stay float32.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one.")
    save_every: int = Field(200, ge=1, description="Steps between states that a killed run goes on from.")
    seed: int = Field(0, ge=0, description="Of order, masks, dropout and new weights.")


class PretrainOptions(LoopOptions):
    """Options of `pretrain`."""

    accumulate: int = Field(
        1, ge=1, description="Parts that a rank makes of its share of a batch, one after the other."
    )
    max_tokens: int = Field(128, ge=8, description="Tokens a text, [CLS] and [SEP] included.")
    encoder_mask: float = Field(0.3, gt=0, lt=1, description="Share of tokens the encoder does not see, whole words.")
    corruption: Literal["mask", "bert"] = Field(
        "mask", description="What stands there: [MASK], or 80 % [MASK], 10 % random, 10 % unchanged (released code)."
    )
    decoder_mask: float = Field(0.5, gt=0, lt=1, description="Share of the context a row of the [CLS] decoder misses.")
    decoder_unit: Literal["token", "word"] = Field(
        "token", description="What a row misses: single tokens, or whole words (released code)."
    )
    decoder_input: Literal["sum", "normed"] = Field(
        "sum", description="Its input: embedding + position, or these through the encoder's norm (released code)."
    )
    mlm_weight: float = Field(1.0, ge=0, description="Factor of the masked-word loss of the encoder.")
    cls_weight: float = Field(1.0, ge=0, description="Factor of the [CLS] decoder's loss; 0 leaves it out.")
    bow_weight: float = Field(
        1.0, ge=0, description="Factor of the bag-of-words loss (released code: 0.1); 0 leaves it out: RetroMAE."
    )
    bow_target: Literal["set", "mean"] = Field(
        "set", description="Each word of a text weighs 1, or 1 / its number of tokens (released code)."
    )
    bow_pool: Literal["unmasked", "all"] = Field(
        "unmasked", description="Positions in the maximum: words in sight, or all but the first (released code)."
    )
    freeze_body: bool = Field(False, description="Train the heads only: for a body that has none yet.")

    @model_validator(mode="after")
    def _has_a_loss(self) -> "PretrainOptions":
        if not self.mlm_weight + self.cls_weight + self.bow_weight:
            raise ValueError("mlm_weight, cls_weight and bow_weight are all 0: nothing is left to learn")
        return self


class FinetuneOptions(LoopOptions):
    """Options of `finetune`."""

    learning_rate: float = Field(2e-5, gt=0, description="Peak for the body.")
    head_learning_rate: float = Field(2e-4, gt=0, description="Peak for W_cls and the LPU.")
    term_learning_rate: float = Field(5e-3, gt=0, description="Peak for gains and biases of terms.")
    negatives: int = Field(1, ge=0, description="Hard negatives a query, drawn from its record.")
    query_tokens: int = Field(48, ge=4, description="Longest query.")
    document_tokens: int = Field(144, ge=8, description="Longest passage.")
    k_query: int = Field(128, ge=1, description="Terms a query keeps.")
    k_document: int = Field(384, ge=1, description="Terms a passage keeps.")
    contrast_weight: float = Field(1.0, ge=0, description="Factor of the contrastive loss.")
    part_weight: float = Field(0.3, ge=0, description="The same loss of the CLS and of the OT score alone, times this.")
    distill_weight: float = Field(0.0, ge=0, description="Factor of the KL divergence to the scores of a teacher.")
    temperature: float = Field(1.0, gt=0, description="Divides the teacher's scores.")
    teach_weight: float = Field(
        0.0, ge=0, description="Factor of the KL divergence to what `teach` wrote, over all passages of the batch."
    )
    align_weight: float = Field(
        0.0, ge=0, description="Factor of the distance of [CLS] vectors to the vectors that `teach` wrote."
    )
    words_weight: float = Field(
        0.0, ge=0, description="Factor of the distance of bags of words to those of BM25, text by text."
    )
    words_scale: float = Field(
        12.0, ge=0, description="What BM25 gives a passage that holds all words asked, where a cosine of 1 gives 20."
    )
    query_sparsity: float = Field(0.03, ge=0, description="Factor of FLOPS regularization of queries.")
    document_sparsity: float = Field(0.01, ge=0, description="The same for passages.")
    sparsity_warmup: float = Field(0.3, ge=0, lt=1, description="Share of the steps in which both factors rise.")
    chunk: int = Field(0, ge=0, description="Texts encoded at once, the rest recomputed: less memory. 0: all.")
    dev_every: int = Field(100, ge=1, description="Steps between measurements on the dev file, if there is one.")

    @model_validator(mode="after")
    def _has_a_loss(self) -> "FinetuneOptions":
        if not self.contrast_weight + self.distill_weight + self.teach_weight:
            raise ValueError("contrast_weight, distill_weight and teach_weight are all 0: nothing is left to learn")
        return self


class AdaptOptions(BaseModel):
    """Options of `adapt`: those of both loops that are worth a thought, with rates that change a good model little."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrain_steps: int = Field(200, ge=0, description="Steps on raw text; 0 leaves that stage out.")
    finetune_steps: int = Field(200, ge=0, description="Steps on pairs; 0 leaves that stage out.")
    batch_size: int = Field(32, ge=2, description="Texts, then queries, a step.")
    max_tokens: int = Field(128, ge=16, description="Tokens a text in training; the artifact keeps START's lengths.")
    pretrain_learning_rate: float = Field(2e-5, gt=0, description="Peak for the body on raw text.")
    finetune_learning_rate: float = Field(1e-5, gt=0, description="Peak for the body on pairs.")
    bow_weight: float = Field(0.02, ge=0, description="Factor of the bag-of-words loss on raw text.")
    training_precision: Literal["fp32", "bf16"] = Field("fp32", description="Of products in training.")
    precision: Precision = Field("int8", description="Of the artifact: int8 for CPUs, fp16 for GPUs, fp32 for both.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one.")
    save_every: int = Field(50, ge=1, description="Steps between states that a killed run goes on from.")
    seed: int = Field(0, ge=0, description="Of sentences, order, masks, dropout and new weights.")

    @model_validator(mode="after")
    def _trains(self) -> "AdaptOptions":
        if not self.pretrain_steps + self.finetune_steps:
            raise ValueError("pretrain_steps and finetune_steps are both 0: nothing is left to do")
        return self
