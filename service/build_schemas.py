"""What goes over the wire of indexes and builds."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from indexer.gate import Limits
from indexer.store import Build, FieldType, State

LIMITS = Limits()


class EstimateOut(BaseModel):
    """A figure with its 95 % interval."""

    mean: float
    low: float
    high: float


class BuildOut(BaseModel):
    """One build: what it is, how far it is, and whether anybody is answered from it."""

    id: str
    index: str
    state: State
    published: Annotated[bool, Field(description="Its index answers from it, or will within moments.")]
    served: Annotated[bool, Field(description="This service answers from it now.")]
    running: Annotated[bool, Field(description="A process on this machine is making it.")]
    created: datetime
    went_live: Annotated[datetime | None, Field(description="Absent for one that never did.")] = None
    fingerprint: str
    documents: int
    passages: int
    truncated: int
    unchanged: int
    dead: Annotated[int, Field(description="Records that became no document.")]
    read: Annotated[int, Field(description="Records read so far.")]
    total: Annotated[int | None, Field(description="Records there are, where that is known.")] = None
    rate: Annotated[float, Field(description="Records read per second.")]
    seconds_left: Annotated[float | None, Field(description="Of reading and encoding, at that rate.")] = None
    journal: Annotated[int, Field(description="Live writes up to here are in it.")]
    fields: dict[str, FieldType]
    judged: Annotated[dict[str, EstimateOut], Field(description="Measured before it was published.")]
    reason: Annotated[str, Field(description="Why it failed, or failed its verification.")]

    @classmethod
    def of(cls, build: Build, *, published: bool, served: bool, running: bool) -> "BuildOut":
        """The facts of a build on the wire; its sources, which may be paths, stay here."""
        facts = {name: getattr(build, name) for name in cls.model_fields.keys() & Build.model_fields.keys()}
        judged = {
            metric: EstimateOut(mean=mean, low=low, high=high) for metric, (mean, low, high) in build.judged.items()
        }
        state = {"published": published, "served": served, "running": running, "seconds_left": build.seconds_left}
        return cls(**(facts | state | {"judged": judged, "fields": build.indexed_fields}))


class BuildsOut(BaseModel):
    """The builds of an index, newest first."""

    builds: list[BuildOut]


class PublishRequest(BaseModel):
    """What the gate puts up with, as of `dupmae index publish`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gate: Annotated[bool, Field(description="Verify the build and judge it against what is published, first.")] = True
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False, description="Loss of nDCG@10 that is allowed.")] = (
        LIMITS.tolerance
    )
    max_shrink: Annotated[float, Field(ge=0, le=1, description="Share of the documents that may be missing.")] = (
        LIMITS.max_shrink
    )
    max_bad: Annotated[int, Field(ge=0, description="Records that may have become no document.")] = LIMITS.max_bad


class RollbackRequest(BaseModel):
    """Nothing is asked; the body is an empty object."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ReleaseOut(BaseModel):
    """The build that answers from now on, and why it was not judged if it was not."""

    build: BuildOut
    note: str = ""
