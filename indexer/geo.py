"""Places on the globe in filters: within a distance, a box or a polygon, in Qdrant's grammar.

A field declared as `geo` holds `{"lon": 13.4, "lat": 52.5}`, or a list of those.
"""

import reprlib
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from indexer.store import InvalidFilter


class Place(NamedTuple):
    """A point of the globe, in degrees."""

    lon: float
    lat: float


@dataclass(frozen=True, slots=True)
class GeoRadius:
    """The field holds a place at most so many metres from the centre."""

    key: str
    center: Place
    radius: float


@dataclass(frozen=True, slots=True)
class GeoBox:
    """The field holds a place between two corners; a box may cross the date line."""

    key: str
    top_left: Place
    bottom_right: Place


@dataclass(frozen=True, slots=True)
class GeoPolygon:
    """The field holds a place inside the first ring and inside none of the others; rings end where they begin."""

    key: str
    exterior: tuple[Place, ...]
    interiors: tuple[tuple[Place, ...], ...]


Geo = GeoRadius | GeoBox | GeoPolygon
GEO_CONDITIONS = ("geo_radius", "geo_bounding_box", "geo_polygon")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Place(_Strict):
    lon: float = Field(ge=-180, le=180)
    lat: float = Field(ge=-90, le=90)

    @property
    def place(self) -> Place:
        return Place(self.lon, self.lat)


class _Radius(_Strict):
    center: _Place
    radius: float = Field(gt=0, allow_inf_nan=False)


class _Box(_Strict):
    top_left: _Place
    bottom_right: _Place

    @model_validator(mode="after")
    def _is_one(self) -> "_Box":
        if self.top_left.lat < self.bottom_right.lat:
            raise ValueError("top_left lies south of bottom_right")
        return self


class _Ring(_Strict):
    points: list[_Place] = Field(min_length=4)

    @model_validator(mode="after")
    def _is_closed(self) -> "_Ring":
        if self.points[0] != self.points[-1]:
            raise ValueError("the last point is not the first")
        return self

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(point.place for point in self.points)


class _Polygon(_Strict):
    exterior: _Ring
    interiors: list[_Ring] = []


def parse_geo(key: str, condition: str, raw: JsonValue, at: str) -> Geo:
    """One of `GEO_CONDITIONS` on a field.

    Raises:
        InvalidFilter: Naming the place in the filter.

    >>> parse_geo("at", "geo_radius", {"center": {"lon": 13.4, "lat": 52.5}, "radius": 1000}, "filter")
    GeoRadius(key='at', center=Place(lon=13.4, lat=52.5), radius=1000.0)
    """
    try:
        match condition:
            case "geo_radius":
                circle = _Radius.model_validate(raw)
                return GeoRadius(key, circle.center.place, circle.radius)
            case "geo_bounding_box":
                box = _Box.model_validate(raw)
                return GeoBox(key, box.top_left.place, box.bottom_right.place)
            case _:
                polygon = _Polygon.model_validate(raw)
                return GeoPolygon(key, polygon.exterior.places, tuple(ring.places for ring in polygon.interiors))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (at, *first["loc"])))
        raise InvalidFilter(f"{place}: {first['msg']}; got {reprlib.repr(first['input'])}.") from error
