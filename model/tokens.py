"""A corpus as token ids on disk, packed into runs and memory-mapped: tokenized once, then read in any order.

Training wants another order each epoch, an exact place to resume from, and a share for each rank. On a stream of text
all three are hard; on a file of fixed runs they are one permutation. Cost: disk, two bytes a token (four where the
vocabulary is larger than 65,536), and a pass over the text before the first step, done once for all that share
text, tokenizer and length. Memory does not grow with the corpus but for eight bytes a run, a sixtieth of its text.
"""

import hashlib
import json
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import portalocker
from numpy.typing import NDArray
from portalocker import LockFlags
from transformers import PreTrainedTokenizerBase

from model.corpus import read_texts, sequences
from model.distributed import seed_of
from model.lines import SourceError

IDS, ENDS, FACTS = "ids.bin", "ends.bin", "facts.json"

LEAST_TOKENS = 8
"""A shorter run is left out: it has too little context to predict anything from."""

_TEXTS_AT_ONCE = 256

_PROBE = "The KING's na\u00efve caf\u00e9s, 12,345 re-used \ufb01les  and \u6771\u4eac"
"""Tells tokenizers of one vocabulary apart by what they do with case, accents, marks, spaces and digits."""


class TokenRuns:
    """Runs of ordinary token ids, without [CLS] and [SEP].

    Attributes:
        digest: SHA-256 of the runs.
        texts: How many texts they came from.
    """

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / FACTS).read_text())
        self.digest: str = facts["digest"]
        self.texts: int = facts["texts"]
        self._ids: NDArray[Any] = np.memmap(folder / IDS, dtype=facts["dtype"], mode="r")
        self._ends: NDArray[np.int64] = np.memmap(folder / ENDS, dtype=np.int64, mode="r")

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def tokens(self) -> int:
        """In all runs."""
        return len(self._ids)

    def __getitem__(self, run: int) -> list[int]:
        start = int(self._ends[run - 1]) if run else 0
        ids: list[int] = self._ids[start : int(self._ends[run])].tolist()
        return ids

    def batches(self, batch_size: int, seed: int, after: int = 0) -> Iterator[list[list[int]]]:
        """Endless batches, each epoch in an order of its own; `after` many are passed over without reading them.

        Raises:
            SourceError: The corpus has fewer runs than a batch.
        """
        each = len(self) // batch_size  # the rest of an epoch is dropped
        if not each:
            raise SourceError(
                f"the text gives {len(self)} runs of tokens, fewer than batch_size={batch_size}; "
                "use more text or a smaller batch"
            )
        epoch, skip = divmod(after, each)
        while True:
            order = np.random.default_rng(seed_of(seed, epoch)).permutation(len(self))
            for batch in range(skip, each):
                yield [self[run] for run in order[batch * batch_size : (batch + 1) * batch_size]]
            epoch, skip = epoch + 1, 0


def tokenized(
    paths: list[Path],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    cache: Path,
    progress: Callable[[int], None] = lambda texts: None,
) -> TokenRuns:
    """The runs of these files, from `cache` if they were made before.

    Args:
        paths: See `corpus.read_texts`.
        tokenizer: Splits paragraphs.
        max_tokens: Longest run.
        cache: Folder that keeps a folder for each combination of files (by name, size and time), tokenizer and length.
        progress: Told the number of texts read, now and then.

    Raises:
        SourceError: A file is missing, damaged or not text.
    """
    folder = cache / _key(paths, tokenizer, max_tokens)
    cache.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        portalocker.lock(lock, LockFlags.EXCLUSIVE)  # another run may be at the same text: wait for it
        if not (folder / FACTS).exists():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _write(paths, tokenizer, max_tokens, partial, progress)
            partial.rename(folder)
    return TokenRuns(folder)


def _write(
    paths: list[Path],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    folder: Path,
    progress: Callable[[int], None],
) -> None:
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
    special = frozenset(tokenizer.all_special_ids)
    digest, tokens, texts = hashlib.sha256(), 0, 0
    source = read_texts(paths)
    with (folder / IDS).open("wb") as ids, (folder / ENDS).open("wb") as ends:
        while block := list(islice(source, _TEXTS_AT_ONCE)):
            kept = array("q")
            for run in _runs(block, tokenizer, max_tokens):
                if len(run) < LEAST_TOKENS or special.issuperset(run):  # of unknown words only: no bag of words
                    continue
                packed = np.asarray(run, dtype=dtype).tobytes()
                ids.write(packed)
                digest.update(packed)
                tokens += len(run)
                kept.append(tokens)
            digest.update(kept.tobytes())
            ends.write(kept.tobytes())
            texts += len(block)
            progress(texts)
    if not tokens:
        raise SourceError(f"{', '.join(map(str, paths))}: no text of at least {LEAST_TOKENS} tokens")
    facts = {"digest": digest.hexdigest(), "dtype": dtype.name, "texts": texts}
    (folder / FACTS).write_text(json.dumps(facts))


def _runs(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Iterator[list[int]]:
    """All paragraphs of a block of texts go to the tokenizer at once, since it splits them in parallel."""
    split = [text.split("\n") for text in texts]
    paragraphs = [paragraph for text in split for paragraph in text]
    ids = iter(tokenizer(paragraphs, add_special_tokens=False, verbose=False)["input_ids"])
    for text in split:
        yield from sequences([next(ids) for _ in text], max_tokens)


def _key(paths: list[Path], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> str:
    try:
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    except OSError as error:
        raise SourceError(f"{error.filename}: {error.strerror}") from error
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    rules = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    return hashlib.sha256(repr((stats, vocabulary, rules, max_tokens)).encode()).hexdigest()[:16]
