"""The artifact: one folder with everything that a consumer of the model needs, and the digest that proves it is whole.

    model.onnx       the graph, from token ids to both vectors
    tokenizer.json   text to token ids
    manifest.json    what the vectors are and how to ask for them
    MODEL_CARD.md    data, limits and figures, for people

The fingerprint is a SHA-256 over weights, tokenizer and every manifest field that changes a vector. An index stores
it, so vectors of two models can never meet in one score. Opening reads each byte once (about 50 ms for 30 MB) and never
touches the network.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

FORMAT_VERSION = 1

GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
MANIFEST = "manifest.json"
MODEL_CARD = "MODEL_CARD.md"

FILES = (MANIFEST, GRAPH, TOKENIZER, MODEL_CARD)

BUNDLED = Path(__file__).parent / "pretrained"
"""The artifact that is shipped with the package."""


Precision = Literal["fp32", "fp16", "int8"]
"""fp32 runs anywhere, fp16 is for GPUs, int8 for CPUs."""


class ArtifactError(Exception):
    """The folder is no artifact, is damaged, or is of another format; the message names the file and the remedy."""


class Manifest(BaseModel):
    """What `manifest.json` holds.

    Attributes:
        format_version: Of this layout.
        name: What people call the model.
        base_model: The weights that training started from.
        dense_dim: d', the width of the reduced [CLS] vector.
        vocabulary_size: V, the entries an OT index may name.
        k_query: OT entries that a query keeps.
        k_document: OT entries that a document keeps.
        max_query_tokens: Positions a query may take, [CLS] and [SEP] included; what is longer is cut.
        max_document_tokens: The same for a document.
        query_prompt: Put before each query, usually empty.
        document_prompt: Put before each document, usually empty.
        activation: What the graph does to pooled values.
        pooling: Where the dense vector comes from.
        rarity_weight: What a nat of a word's rarity in the searched collection is worth, by which an index multiplies
            the words of queries; None leaves them as the graph gives them. See `model.rarity`.
        precision: Of the weights and of the products with them.
        training: A summary of data, steps and losses.
        evaluation: Collection -> metric -> value; of a file that the export judged, also what the export changed.
        licence: SPDX expression.
        fingerprint: Of weights, tokenizer and the fields in `VECTOR_FIELDS`.
        compatible_with: Fingerprints whose indexes this artifact may search, each with the measured top-10 overlap.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int
    name: str
    base_model: str
    dense_dim: int = Field(gt=0)
    vocabulary_size: int = Field(gt=0)
    k_query: int = Field(gt=0)
    k_document: int = Field(gt=0)
    max_query_tokens: int = Field(gt=2)
    max_document_tokens: int = Field(gt=2)
    query_prompt: str = ""
    document_prompt: str = ""
    activation: Literal["raw", "relu", "log1p"]
    pooling: Literal["cls"] = "cls"
    rarity_weight: float | None = Field(None, gt=0)
    precision: Precision
    training: dict[str, JsonValue] = {}
    evaluation: dict[str, dict[str, float]] = {}
    licence: str
    fingerprint: str
    compatible_with: dict[str, float] = {}


VECTOR_FIELDS = (
    "format_version",
    "dense_dim",
    "vocabulary_size",
    "k_query",
    "k_document",
    "max_query_tokens",
    "max_document_tokens",
    "query_prompt",
    "document_prompt",
    "activation",
    "pooling",
    "rarity_weight",
    "precision",
)
"""Manifest fields that change a vector or what it scores, and so are part of the fingerprint where they are set."""


@dataclass(frozen=True)
class Artifact:
    """An opened artifact: its folder, whose digest was right when it was opened, and its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> "Artifact":
        """Read the manifest and verify the digest of everything it speaks for.

        Raises:
            ArtifactError: A file is missing, damaged, of another format version, or not what was fingerprinted.
        """
        for name in FILES:
            if not (path / name).is_file():
                raise ArtifactError(
                    f"{path} is not an artifact: {name} is missing; export one with `dupmae model export`"
                )
        manifest = _read_manifest(path / MANIFEST)
        found = digest(path, manifest)
        if found != manifest.fingerprint:
            raise ArtifactError(
                f"{path} is damaged: its files give fingerprint {found[:12]}, {MANIFEST} says "
                f"{manifest.fingerprint[:12]}; copy the folder again or export it anew"
            )
        return cls(path, manifest)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that changes a vector, 64 hex digits."""
        return self.manifest.fingerprint

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum((self.path / name).stat().st_size for name in FILES)


def digest(path: Path, manifest: Manifest) -> str:
    """The fingerprint that the files under `path` and the vector fields of `manifest` give, 64 hex digits."""
    sha = hashlib.sha256()
    for name in (GRAPH, TOKENIZER):
        with (path / name).open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    sha.update(json.dumps(manifest.model_dump(include=set(VECTOR_FIELDS), exclude_none=True), sort_keys=True).encode())
    return sha.hexdigest()


def _read_manifest(file: Path) -> Manifest:
    try:
        fields = json.loads(file.read_bytes())
    except ValueError as error:
        raise ArtifactError(f"{file} is not JSON ({error}); copy the artifact again or export it anew") from error
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{file} has format version {version}, this release reads {FORMAT_VERSION}; "
            "export the checkpoint again with this release"
        )
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{file}, field {where}: {first['msg']}; export the checkpoint again") from error
