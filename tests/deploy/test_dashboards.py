"""Dashboards are what their code makes, and every query on them can be asked."""

import doctest
import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from deploy.grafana import pictures
from deploy.grafana.draw import DASHBOARDS, FOLDER, QDRANT, dashboards
from tests.deploy.test_alerts import asked, exposed

MADE = dashboards()

DOCUMENTED = {
    "collection_points",
    "collection_running_optimizations",
    "collection_dead_replicas",
    "rest_responses_total",
    "rest_responses_duration_seconds_bucket",
    "memory_resident_bytes",
}
"""Of the metrics that Qdrant 1.16 and later expose, by https://qdrant.tech/documentation/guides/monitoring/."""


def panels(content: str) -> Iterator[dict[str, Any]]:
    yield from json.loads(content)["panels"]


def queries() -> list[str]:
    return [
        target["expr"] for content in MADE.values() for panel in panels(content) for target in panel.get("targets", [])
    ]


def test_the_files_are_what_the_code_makes() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == MADE, "run python -m deploy.grafana.draw"


@pytest.mark.parametrize("query", queries())
def test_a_query_is_one_and_asks_for_metrics_that_exist(query: str) -> None:
    promql_parser.parse(query.replace("$__rate_interval", "5m"))
    if QDRANT in query:
        (metric,) = re.findall(rf"(\w+){re.escape(QDRANT)}", query)
        assert metric in DOCUMENTED
    else:
        assert asked(query)
        assert asked(query) <= exposed()


def test_what_is_asked_of_qdrant_is_asked_of_the_job_that_scrapes_it() -> None:
    scraped = yaml.safe_load((FOLDER.parents[1] / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert QDRANT in {f'{{job="{each["job_name"]}"}}' for each in scraped}


def test_a_query_that_is_none_is_found_out() -> None:
    with pytest.raises(ValueError):
        promql_parser.parse("sum by (status) (rate(dupmae_queue_depth))")


@pytest.mark.parametrize("name", list(MADE))
def test_no_two_panels_of_a_dashboard_have_one_number_or_one_title(name: str) -> None:
    for key in ("id", "title"):
        found = [panel[key] for panel in panels(MADE[name]) if key == "id" or panel["type"] != "row"]
        assert len(found) == len(set(found))


def test_docs_show_each_dashboard_in_a_picture_that_is_small() -> None:
    found = {path.stem: path.stat().st_size for path in pictures.FOLDER.glob("*.png")}
    assert found.keys() == DASHBOARDS.keys(), "run python -m deploy.grafana.pictures"
    assert max(found.values()) < 60_000
    shown = set(re.findall(r"\]\(dashboards/(\w+)\.png\)", (pictures.FOLDER.parent / "operations.md").read_text()))
    assert shown == DASHBOARDS.keys()


def test_the_examples_in_the_code_that_draws_pictures_hold() -> None:
    assert doctest.testmod(pictures).failed == 0
    assert doctest.testmod(pictures).attempted


def test_the_data_source_is_the_one_that_is_provisioned() -> None:
    provisioned = yaml.safe_load((FOLDER.parent / "provisioning" / "datasources" / "prometheus.yml").read_text())
    assert {each["uid"] for each in provisioned["datasources"]} == {
        panel["datasource"]["uid"] for content in MADE.values() for panel in panels(content) if "targets" in panel
    }
