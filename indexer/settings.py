"""Settings that every command shares: where the data lies, which engine, how the encoder runs.

One class per package, each adding to the one on its left (`service.settings.Settings`), so that a command is given one
object with everything it may read and the whole environment is checked once.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from indexer.store import DEFAULT_DEPTH, INDEX_NAME


class IndexSettings(BaseSettings):
    """`DUPMAE_*` variables that indexing and searching read."""

    model_config = SettingsConfigDict(env_prefix="DUPMAE_", env_file=".env", extra="forbid", frozen=True)

    data: Path = Field(Path(".dupmae"), description="Folder of indexes and models; created when missing.")
    qdrant_url: str | None = Field(
        None, description="Qdrant server, such as http://localhost:6333; the embedded engine when unset."
    )
    qdrant_api_key: SecretStr | None = Field(None, description="API key of that server.")
    index: str = Field(
        "default",
        pattern=f"^{INDEX_NAME.pattern}$",
        description="Index that is meant when a command or request names none.",
    )
    artifact: Path | None = Field(None, description="Artifact folder for new builds; the bundled model when unset.")
    provider: Literal["cpu", "cuda"] = Field("cpu", description="Where the encoder runs; never changed silently.")
    threads: int = Field(
        0, ge=0, description="Batches encoded at the same time; 0 is one for every core this process may use."
    )
    arena: bool = Field(
        True, description="ONNX Runtime's memory arena for the encoder; docs/operations.md has figures."
    )
    max_batch_tokens: int = Field(
        2048, ge=512, description="Padded tokens per encoder batch, on a CPU at most 512 of them; bounds its memory."
    )
    depth: int = Field(DEFAULT_DEPTH, ge=10, le=10_000, description="Candidates each side of a fused query brings.")
