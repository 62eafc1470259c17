"""Who asks, and what they may do: the scopes of a key, and what confines it.

A route declares the scope it needs (`service.routes.state.may`). A *confined* caller may use some indexes only, or only
the documents of one tenant; it reaches a route that says it keeps to that (`may_confined`) and no other, so that a
route which forgets the tenant refuses tenants instead of showing them everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from indexer.filters import joined
from indexer.store import Build, Filter

Scope = Literal["search", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


class Forbidden(Exception):
    """The key is good, and does not allow this; the message names what is missing."""


class Tenant(BaseModel):
    """Whose documents a key is confined to: those that hold `value` in the field.

    Attributes:
        field: A declared keyword field of the metadata.
        value: What the tenant's documents hold there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str = Field(pattern=r"^metadata(\.[A-Za-z0-9_-]+)+$")
    value: str = Field(min_length=1, max_length=256)

    def confine(self, filter: Filter | None) -> Filter:
        """A filter that finds what `filter` finds among the tenant's documents.

        The condition joins those of the outermost `must`, all of which hold whatever else the filter says.

        >>> Tenant(field="metadata.team", value="red").confine({"should": []})
        {'should': [], 'must': [{'key': 'metadata.team', 'match': {'value': 'red'}}]}
        """
        return joined(filter, "must", {"key": self.field, "match": {"value": self.value}})

    def sees(self, metadata: Mapping[str, JsonValue]) -> bool:
        """Whether a search of the tenant could find a document: several tenants may stand in a list.

        >>> Tenant(field="metadata.team", value="red").sees({"team": ["blue", "red"]})
        True
        """
        held = self._held(metadata)
        return held == self.value or (isinstance(held, list) and self.value in held)

    def owns(self, metadata: Mapping[str, JsonValue]) -> bool:
        """Whether a document is the tenant's alone, to replace and to delete.

        >>> Tenant(field="metadata.team", value="red").owns({"team": ["blue", "red"]})
        False
        """
        return self._held(metadata) in (self.value, [self.value])

    def stamp(self, metadata: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """The metadata with the tenant's value in its field.

        Raises:
            ValueError: Something else is there.

        >>> Tenant(field="metadata.of.team", value="red").stamp({"year": 1990})
        {'year': 1990, 'of': {'team': 'red'}}
        """
        return _with(metadata, self._path, self.value)

    @property
    def _path(self) -> list[str]:
        return self.field.split(".")[1:]

    def _held(self, metadata: Mapping[str, JsonValue]) -> JsonValue:
        held: JsonValue = dict(metadata)
        for name in self._path:
            held = held.get(name) if isinstance(held, dict) else None
        return held


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        name: The key's; None where no key is asked for.
        scopes: What it may do; `admin` includes all.
        indexes: The only ones it may use; None for all.
        tenant: Whose documents alone it may see; None for everybody's.
    """

    name: str | None
    scopes: frozenset[Scope]
    indexes: frozenset[str] | None = None
    tenant: Tenant | None = None

    @property
    def confined(self) -> bool:
        """Whether it may not see all that the service holds."""
        return self.indexes is not None or self.tenant is not None

    @property
    def sees_all(self) -> bool:
        """Whether it may read messages that name indexes, builds and paths."""
        return bool(self.scopes) and not self.confined

    def check(self, scope: Scope) -> None:
        """Raise Forbidden unless the caller has this scope.

        >>> Caller("crawler", frozenset({"write"})).check("search")
        Traceback (most recent call last):
        service.caller.Forbidden: key 'crawler' lacks the scope `search`; it has `write`
        """
        if not self.scopes & {scope, "admin"}:
            has = ", ".join(f"`{each}`" for each in sorted(self.scopes))
            raise Forbidden(f"key {self.name!r} lacks the scope `{scope}`; it has {has}")

    def may_use(self, index: str) -> bool:
        """Whether it may use an index of this name."""
        return self.indexes is None or index in self.indexes

    def index(self, name: str) -> str:
        """The name of an index that it may use; Forbidden for another, whether it exists or not."""
        if not self.may_use(name):
            allowed = ", ".join(sorted(self.indexes or ()))
            raise Forbidden(f"key {self.name!r} may not use index {name!r}, only {allowed}")
        return name

    def filter(self, filter: Filter | None, build: Build) -> Filter | None:
        """What a search in a build is filtered by, when the caller asks for `filter`; every search goes through this.

        Raises:
            Forbidden: The build could not tell the tenant's documents from others.
        """
        if self.tenant is None:
            return filter
        self.check_build(build)
        return self.tenant.confine(filter)

    def sees(self, metadata: Mapping[str, JsonValue]) -> bool:
        """Whether a document with this metadata may be shown; every one that no search brought goes through this."""
        return self.tenant is None or self.tenant.sees(metadata)

    def owns(self, metadata: Mapping[str, JsonValue]) -> bool:
        """Whether a document with this metadata may be replaced and deleted."""
        return self.tenant is None or self.tenant.owns(metadata)

    def check_build(self, build: Build) -> None:
        """Raise Forbidden unless the build declares the tenant's field, so that engines filter on it."""
        if self.tenant and build.fields.get(self.tenant.field) != "keyword":
            field = self.tenant.field
            raise Forbidden(
                f"key {self.name!r} is confined by {field}, which index {build.index!r} does not declare as keyword; "
                f"build it again with `--field {field}=keyword`"
            )


ANYBODY = Caller(None, frozenset(SCOPES))
"""Every caller of a service without keys."""

NOBODY = Caller(None, frozenset())
"""Who reads what is open, where there are keys."""


def _with(held: Mapping[str, JsonValue], path: list[str], value: str) -> dict[str, JsonValue]:
    name, *rest = path
    there = held.get(name)
    if rest:
        if not isinstance(there, dict | None):
            raise ValueError(f"{name!r} is not an object")
        return {**held, name: _with(there or {}, rest, value)}
    if there not in (None, value):
        raise ValueError(f"{name!r} is another than {value!r}, for which this key writes; leave it out")
    return {**held, name: value}
