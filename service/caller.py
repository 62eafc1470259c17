"""Who asks, and what they may do: the scopes of a key, and what confines it.

A route declares the scope it needs (`service.routes.state.may`). A *confined* caller may use some indexes only, or only
the documents of one tenant; it reaches a route that says it keeps to that (`may_confined`) and no other, so that a
route which forgets the tenant refuses tenants instead of showing them everything.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal["search", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


class Forbidden(Exception):
    """The key is good, and does not allow this; the message names what is missing."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        name: The key's; None where no key is asked for.
        scopes: What it may do; `admin` includes all.
        indexes: The only ones it may use; None for all.
    """

    name: str | None
    scopes: frozenset[Scope]
    indexes: frozenset[str] | None = None

    @property
    def confined(self) -> bool:
        """Whether it may not see all that the service holds."""
        return self.indexes is not None

    def check(self, scope: Scope) -> None:
        """Raise Forbidden unless the caller has this scope.

        >>> Caller("crawler", frozenset({"write"})).check("search")
        Traceback (most recent call last):
        service.caller.Forbidden: key 'crawler' lacks the scope `search`; it has `write`
        """
        if not self.scopes & {scope, "admin"}:
            has = ", ".join(f"`{each}`" for each in sorted(self.scopes))
            raise Forbidden(f"key {self.name!r} lacks the scope `{scope}`; it has {has}")

    def index(self, name: str) -> str:
        """The name of an index that it may use; Forbidden for another, whether it exists or not."""
        if self.indexes is not None and name not in self.indexes:
            allowed = ", ".join(sorted(self.indexes))
            raise Forbidden(f"key {self.name!r} may not use index {name!r}, only {allowed}")
        return name


ANYBODY = Caller(None, frozenset(SCOPES))
"""Every caller of a service without keys."""
