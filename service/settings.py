"""What `dupmae` may be told from outside: `DUPMAE_*` variables and the same names in `.env`.

A misspelt setting that is silently ignored costs an afternoon, so `load` refuses names it does not know. Other keys in
`.env` are left alone: Compose and other tools read that file too.
"""

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import DotEnvSettingsSource, SettingsConfigDict

from indexer.settings import IndexSettings

PREFIX = "DUPMAE_"
ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?")


class SettingsError(Exception):
    """A setting that does not exist, or has a value that cannot be used; the message names it and the remedy."""


class Settings(IndexSettings):
    """Everything a `dupmae` command may read: what indexing needs and what the service adds."""

    model_config = SettingsConfigDict(dotenv_filtering="match_prefix", env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address the service listens on; 0.0.0.0 for every interface.")
    port: int = Field(8000, ge=0, le=65_535, description="Port the service listens on; 0 takes a free one.")
    keys: Path | None = Field(None, description="File of the keys; `keys.json` in the data folder when unset.")
    anonymous: bool = Field(
        False, description="Without keys, answer everybody who can reach an address that is not loopback."
    )
    cors_origins: str = Field(
        "", description="Origins whose pages may ask from a browser, such as https://a.example, separated by commas."
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65_535, description="Port of its own for /metrics, which is not on the other one then."
    )
    timeout_ms: int = Field(5_000, ge=1, description="Most time a request may take; beyond that the answer is 504.")
    max_batch: int = Field(32, ge=1, description="Texts the encoder takes at once; their tokens are bounded too.")
    max_queue: int = Field(
        256,
        ge=1,
        description="Texts that may wait for the encoder; one more, or one that would wait too long, is answered 429.",
    )
    store_threads: int = Field(
        0,
        ge=0,
        description="Calls that the store of one index works on at once, DUPMAE_MAX_QUEUE more may wait; 0 is 4 on a "
        "server and 2 on the embedded engine, which holds Python's lock while it searches.",
    )
    cache_mb: int = Field(
        64, ge=0, description="MiB kept of query vectors and, on the embedded engine, of answers; 0 keeps none."
    )
    max_query_chars: int = Field(4_096, ge=1, description="Characters a query may have; a longer one is answered 422.")
    max_text_chars: int = Field(
        16_384, ge=1, description="Characters a text to encode or explain may have; a longer one is answered 422."
    )
    max_limit: int = Field(1_000, ge=1, description="Results a request may ask for; more is answered 422.")
    max_depth: int = Field(
        2_000, ge=10, le=10_000, description="Candidates a request may ask each side for; more is answered 422."
    )
    max_searches: int = Field(32, ge=1, description="Searches one batch may hold; more is answered 422.")
    max_texts: int = Field(256, ge=1, description="Texts one request may have encoded; more are answered 422.")
    max_body_bytes: int = Field(262_144, ge=1_024, description="Bytes a body may have; a larger one is answered 413.")
    cursor_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="Signs the cursors of pages; replicas without a shared data folder need the same. Unset: one that "
        "is made and kept in the data folder.",
    )
    switch_s: float = Field(
        2.0, ge=0.05, le=3_600, description="Seconds between two looks for another published build to answer from."
    )
    drain_lead_s: float = Field(
        2.0,
        ge=0,
        le=300,
        description="Seconds after SIGTERM in which /readyz says 503 and requests are taken, for a balancer to notice.",
    )
    drain_s: int = Field(
        10, ge=0, le=3_600, description="Most seconds that a stop then waits for requests that are being answered."
    )
    probe_s: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="Seconds over which the queries that a build keeps are asked of it, to see whether it still finds "
        "as much; 0 asks none.",
    )
    writable: bool = Field(
        False, description="Take live writes; with the embedded engine no other process can open the index then."
    )
    tracing: bool = Field(
        False, description="Trace requests by OpenTelemetry, as OTEL_* variables say; needs the extra `tracing`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line logged.")
    log_queries: bool = Field(False, description="Write the text of each query to the request log.")

    @field_validator("cors_origins")
    @classmethod
    def _exact(cls, value: str) -> str:
        for origin in _listed(value):
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no exact origin such as https://a.example or http://localhost:3000")
        return value

    @property
    def origins(self) -> list[str]:
        """The origins whose pages may ask from a browser."""
        return _listed(self.cors_origins)

    @property
    def key_file(self) -> Path:
        """Where the keys are kept."""
        return self.keys or self.data / "keys.json"


class Row(NamedTuple):
    """One line of the settings table in the documentation."""

    name: str
    type: str
    default: str
    description: str


def load() -> Settings:
    """Read the environment and `.env`, the environment first.

    Raises:
        SettingsError: An unknown `DUPMAE_*` name, or a value that is not allowed.
    """
    _refuse_unknown({*os.environ, *DotEnvSettingsSource(Settings).env_vars})
    try:
        return Settings()
    except ValidationError as error:
        problems = (f"{_variable(each['loc'])}: {each['msg']}, not {each['input']!r}" for each in error.errors())
        raise SettingsError(f"{'; '.join(problems)}; see docs/settings.md") from error


def table() -> list[Row]:
    """Every setting in the order of the classes, for the documentation.

    >>> table()[0]._asdict()  # doctest: +NORMALIZE_WHITESPACE
    {'name': 'DUPMAE_DATA', 'type': 'path', 'default': '.dupmae',
     'description': 'Folder of indexes and models; created when missing.'}
    """
    return [
        Row(PREFIX + name.upper(), _type_name(field.annotation), _default(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _listed(value: str) -> list[str]:
    return [each.strip() for each in value.split(",") if each.strip()]


def _refuse_unknown(names: set[str]) -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    given = {name.upper() for name in names}
    for name in sorted(given.difference(known)):
        if name.startswith(PREFIX):
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise SettingsError(f"unknown setting {name}; did you mean {nearest}? All settings: docs/settings.md")


def _variable(location: tuple[int | str, ...]) -> str:
    return PREFIX + ".".join(map(str, location)).upper()


def _default(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _type_name(annotation: Any) -> str:
    return ", ".join(_type_names(annotation))


def _type_names(annotation: Any) -> Iterator[str]:
    names = {int: "integer", float: "number", bool: "boolean", str: "text", Path: "path"}
    if get_origin(annotation) is Literal:
        yield " or ".join(map(str, get_args(annotation)))
    elif arguments := get_args(annotation):
        for argument in arguments:
            yield from _type_names(argument)
    elif annotation is not type(None):
        yield names.get(annotation, "text")
