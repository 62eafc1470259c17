"""What a folder of `sentence-transformers` says about a bi-encoder: how hidden states become one vector of a text.

Read without that library, since only this much is needed: a transformer, a pooling, perhaps a normalization. A folder
that asks for anything else is refused, because leaving a module out would give other vectors.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn.functional import normalize

from model.lines import SourceError
from model.reader import read_json
from model.score import Pooling, ScoreOptions, Similarity

MODULES = "modules.json"

_KNOWN: tuple[Pooling, ...] = ("mean", "cls", "max")

_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Layout:
    """A bi-encoder.

    Attributes:
        body: Folder of the transformer and its tokenizer.
        pooling: Of hidden states.
        similarity: `cosine` normalizes the vectors.
        max_tokens: Longest text, if it says so.
        lower: Whether texts become lower case first.
        query_prompt: Put before queries.
        document_prompt: Put before passages.
    """

    body: Path
    pooling: Pooling
    similarity: Similarity = "cosine"
    max_tokens: int | None = None
    lower: bool = False
    query_prompt: str = ""
    document_prompt: str = ""

    def vectors(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, L, d) hidden states, (B, L) mask -> (B, d) float32."""
        pooled = pool(hidden.float(), mask, self.pooling)
        return normalize(pooled, dim=1) if self.similarity == "cosine" else pooled


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """(B, L, d), (B, L) -> (B, d): one vector of a text, without its padding."""
    kept = mask.bool().unsqueeze(2)  # (B, L, 1)
    match pooling:
        case "cls":
            return hidden[:, 0]
        case "mean":
            return (hidden * kept).sum(1) / kept.sum(1)
        case "max":
            return hidden.masked_fill(~kept, float("-inf")).amax(1)


def read_layout(folder: Path, options: ScoreOptions) -> Layout:
    """What the folder says, with the options that say otherwise.

    Raises:
        SourceError: It has modules or a pooling that we have not, or is damaged.
        ValueError: An option says otherwise.
    """
    modules = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in read_json(folder / MODULES)}
    if not {"Transformer", "Pooling"} <= modules.keys() <= {"Transformer", "Pooling", "Normalize"}:
        raise SourceError(f"{folder} is made of {', '.join(modules)}; only Transformer, Pooling, Normalize are known")
    body = folder / modules["Transformer"]
    pooling = _pooling(folder / modules["Pooling"] / "config.json")
    if options.pooling not in (None, pooling):
        raise ValueError(f"{folder} says that it pools by {pooling}, not by {options.pooling}; leave --pooling out")
    text, said = read_json(body / "sentence_bert_config.json"), read_json(folder / "config_sentence_transformers.json")
    dot = said.get("similarity_fn_name") == "dot" and "Normalize" not in modules
    prompts = said.get("prompts") or {}
    document = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), "")
    return Layout(
        body,
        pooling,
        options.similarity or ("dot" if dot else "cosine"),
        text.get("max_seq_length"),
        bool(text.get("do_lower_case")),
        prompts.get("query") or "",
        document or "",
    )


def _pooling(config: Path) -> Pooling:
    said = read_json(config)
    modes = said.get("pooling_mode") or [mode for key, mode in _MODES.items() if said.get(key)]
    for pooling in _KNOWN:
        if modes in (pooling, [pooling]) and said.get("include_prompt") is not False:
            return pooling
    raise SourceError(f"{config} pools by {modes}; known are {', '.join(_KNOWN)}, each with the prompt included")
