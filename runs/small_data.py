"""Data for the recipe in small, from the documentation of the Python that runs it; nothing is fetched.

    python runs/small_data.py OUT

OUT gets raw text, a judged collection in BEIR layout (the summary of an entry asks for the rest of it; a tenth of the
queries are the split `dev`), and a folder to start from: a WordPiece vocabulary of that text and a small BERT's shape.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer
from transformers import BertConfig, PreTrainedTokenizerFast

from indexer.documents import Document
from indexer.stdlib import read_stdlib

VOCABULARY = 8192
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


class Pair(NamedTuple):
    """A query and the passage that answers it; `id` is the passage's."""

    id: str
    query: str
    passage: str


def main(out: Path) -> None:
    """Write everything."""
    documents = [document for document in read_stdlib() if isinstance(document, Document)]
    pairs = list(_pairs(documents))
    texts = [f"{document.title}\n{document.text}" for document in documents]
    beir = out / "beir"
    (beir / "qrels").mkdir(parents=True, exist_ok=True)
    _write(out / "text.jsonl", ({"text": text} for text in texts))
    _write(beir / "corpus.jsonl", ({"_id": pair.id, "title": "", "text": pair.passage} for pair in pairs))
    _write(beir / "queries.jsonl", ({"_id": f"q-{pair.id}", "text": pair.query} for pair in pairs))
    for split, wanted in (("train", False), ("dev", True)):
        rows = [f"q-{pair.id}\t{pair.id}\t1" for pair in pairs if _is_dev(pair.id) == wanted]
        (beir / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows, ""]))
    tokenizer = _tokenizer(texts)
    tokenizer.save_pretrained(out / "bert")
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
        initializer_range=0.05,
    )
    shape.save_pretrained(out / "bert")
    print(f"{out}: {len(texts)} texts, {len(pairs)} queries")


def _pairs(documents: list[Document]) -> Iterator[Pair]:
    """The first sentence of an entry, and what follows it; entries with fewer than a dozen words left are left out."""
    for document in documents:
        summary, _, rest = " ".join(document.text.split()).partition(". ")
        if len(summary.split()) >= 4 and len(rest.split()) >= 12:
            yield Pair(re.sub(r"\s", "-", document.id), summary, rest)


def _is_dev(id: str) -> bool:
    return hashlib.sha256(id.encode()).digest()[0] < 26  # a tenth


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    trainer = WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=[*SPECIAL.values()], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


def _write(path: Path, rows: Iterator[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False), file=lines)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
