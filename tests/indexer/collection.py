"""Documents of common words, and builds of them, for tests that search, verify and publish."""

from collections.abc import Sequence
from random import Random

from indexer.build import BuildOptions, build_index
from indexer.documents import Document
from indexer.store import Build, Engine
from model.encoder import Encoder
from tests.conftest import WORDS

INDEX = "test-birds"


def random_documents(count: int, seed: int = 0) -> list[Document]:
    """Each has a title of three words and two sentences of twelve."""
    random, words = Random(seed), WORDS.split()

    def sentence(length: int) -> str:
        return " ".join(random.sample(words, length)) + "."

    return [Document(f"d{n}", sentence(3), f"{sentence(12)} {sentence(12)}") for n in range(count)]


def built(engine: Engine, encoder: Encoder, documents: Sequence[Document], index: str = INDEX) -> Build:
    return build_index(engine, encoder, documents, BuildOptions(index=index, fields={"metadata.lang": "keyword"}))
