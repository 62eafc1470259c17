"""How an engine lays out a build's points: copies, shards, what lies in RAM, how many bits, how dense the graph.

None of it changes a score: float32 vectors are stored beside any quantized ones, and what those find is scored again.
What an engine cannot do is refused by name rather than ignored, since a build that is thought to have two copies and
has one would be found out on the worst day.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Preset = Literal["laptop", "int8", "disk", "cluster"]


class CollectionOptions(BaseModel):
    """What a collection is created with; the defaults are Qdrant's own.

    Attributes:
        shard_number: Parts that nodes of a cluster share among them. None: one a node. Servers only.
        replication_factor: Copies of each shard. Servers only.
        write_consistency_factor: Copies that must have a write before it is acknowledged. Servers only.
        on_disk: Vectors of both sides and their indexes are paged in from disk when needed, not held in RAM.
        on_disk_payload: The same for texts and metadata.
        quantization: `int8` searches the dense side in a quarter of the bytes, held in RAM; what it finds is scored
            again with the stored float32.
        hnsw_m: Links of each point in the graph of the dense side: more find more, and take RAM.
        hnsw_ef_construct: Neighbours looked at when the graph is made: more find more, and take time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard_number: int | None = Field(None, ge=1)
    replication_factor: int | None = Field(None, ge=1)
    write_consistency_factor: int | None = Field(None, ge=1)
    on_disk: bool = False
    on_disk_payload: bool = True
    quantization: Literal["none", "int8"] = "none"
    hnsw_m: int = Field(16, ge=4, le=256)
    hnsw_ef_construct: int = Field(100, ge=4, le=10_000)

    @property
    def server_only(self) -> dict[str, int]:
        """What was asked for that one machine cannot do.

        >>> CollectionOptions(replication_factor=2).server_only
        {'replication_factor': 2}
        """
        return self.model_dump(
            include={"shard_number", "replication_factor", "write_consistency_factor"}, exclude_none=True
        )


PRESETS: dict[Preset, CollectionOptions] = {
    "laptop": CollectionOptions(),
    "int8": CollectionOptions(quantization="int8"),
    "disk": CollectionOptions(on_disk=True, quantization="int8"),
    "cluster": CollectionOptions(shard_number=6, replication_factor=2, write_consistency_factor=2),
}
"""`cluster`: six shards spread evenly over 1, 2, 3 or 6 nodes; a write is acknowledged when both copies have it."""


def parse_options(preset: Preset, pairs: Iterable[str]) -> CollectionOptions:
    """A preset with `KEY=VALUE` put over it.

    Raises:
        ValueError: No such option, or not a value of it; the message names those there are.

    >>> parse_options("disk", ["hnsw_m=32"]).model_dump(exclude_defaults=True)
    {'on_disk': True, 'quantization': 'int8', 'hnsw_m': 32}
    """
    fields = PRESETS[preset].model_dump()
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in fields:
            raise ValueError(f"{pair!r} is not KEY=VALUE with a known key: {', '.join(fields)}")
        try:
            CollectionOptions.model_validate({name: value})
        except ValidationError as error:
            raise ValueError(f"{pair!r}: {error.errors()[0]['msg'].lower()}") from error
        fields[name] = value
    return CollectionOptions.model_validate(fields)
