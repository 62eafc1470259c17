"""Which values of a field can be counted, and by which points: each document has one first passage."""

from collections.abc import Mapping

from indexer.filters import Clauses, Match, parse_filter
from indexer.store import Build, FieldType, Filter, InvalidFacet

COUNTED: frozenset[FieldType] = frozenset({"keyword", "integer", "bool"})
"""Types of which a payload index knows every value; of the others it knows ranges or words."""

FIRST_PASSAGE = Match("chunk", "value", (0,))


def facet_fields(fields: Mapping[str, FieldType]) -> list[str]:
    """The declared fields whose values can be counted, sorted.

    >>> facet_fields({"metadata.year": "integer", "metadata.note": "text"})
    ['metadata.year']
    """
    return sorted(field for field, type in fields.items() if type in COUNTED)


def facet_clauses(build: Build, field: str, filter: Filter | None) -> Clauses:
    """The points by which the values of a field are counted.

    Raises:
        InvalidFacet: The field cannot be counted.
        InvalidFilter: As `parse_filter`.
    """
    if field not in facet_fields(build.fields):
        declared = build.fields.get(field)
        what = f"is declared as {declared}" if declared else "is not declared in this index"
        names = ", ".join(facet_fields(build.fields)) or "none"
        raise InvalidFacet(
            f"{field[:100]!r} {what}; values are counted of fields declared as {', '.join(sorted(COUNTED))}, which "
            f"here are: {names}."
        )
    clauses = parse_filter(filter, build.indexed_fields) if filter else Clauses()
    return Clauses(must=(FIRST_PASSAGE, clauses) if clauses != Clauses() else (FIRST_PASSAGE,))
