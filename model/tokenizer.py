"""The tokenizer of a folder, as its `tokenizer.json` says.

Not by `AutoTokenizer`, which rebuilds a BERT's tokenizer from the vocabulary and what `tokenizer_config.json` says of
it: where that file is missing, a cased `tokenizer.json` would lower-case its text without a word.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from model.lines import SourceError

FILE = "tokenizer.json"

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
    "unk_token": ("[UNK]", "<unk>"),
}
"""What the tokens with a role are called where the folder does not say; the first that is in the vocabulary."""


def load_tokenizer(folder: Path, *, special_ids: Iterable[int] = ()) -> PreTrainedTokenizerBase:
    """Read a tokenizer that can frame, pad and mask texts.

    Args:
        folder: With `tokenizer.json`, or `vocab.txt` of a BERT.
        special_ids: Of tokens that are special besides those with a role.

    Raises:
        SourceError: None there, a damaged one, one without a role, or one that does not put [CLS] and [SEP] around.
    """
    if (folder / FILE).is_file():
        tokenizer = _from_json(folder, special_ids)
    elif (folder / "vocab.txt").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="right")
    else:
        raise SourceError(f"{folder}: no {FILE}; save the tokenizer there with save_pretrained")
    wanted = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    if (found := tokenizer("")["input_ids"]) != wanted:
        raise SourceError(
            f"{folder / FILE} frames an empty text as {found}, not as [CLS] and [SEP], {wanted}; "
            "set its post-processor (tokenizers.processors.TemplateProcessing)"
        )
    return tokenizer


def _from_json(folder: Path, special_ids: Iterable[int]) -> PreTrainedTokenizerBase:
    try:
        json.loads((folder / FILE).read_bytes())
    except ValueError as error:
        raise SourceError(f"{folder / FILE} is damaged ({error}); copy it again") from error
    said = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    vocabulary = said.get_vocab()
    roles = {role: getattr(said, role) or _usual(role, vocabulary, folder) for role in USUAL_NAMES}
    others = set(special_ids).difference(said.all_special_ids, (vocabulary[name] for name in roles.values()))
    more = {"extra_special_tokens": said.convert_ids_to_tokens(sorted(others))} if others else {}
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
        folder, local_files_only=True, padding_side="right", **{**roles, **more}
    )
    return tokenizer


def _usual(role: str, vocabulary: Mapping[str, int], folder: Path) -> str:
    for name in USUAL_NAMES[role]:
        if name in vocabulary:
            return name
    raise SourceError(
        f"{folder / FILE} has no {' or '.join(USUAL_NAMES[role])}; add such a token, or name one as {role} "
        "in tokenizer_config.json"
    )
