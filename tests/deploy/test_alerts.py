"""Alerts fire when they should, ask only for metrics that exist, and say what to do."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from indexer.filling import Tally
from indexer.job_metrics import JobMetrics
from service.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
CASES = ROOT / "tests" / "deploy" / "rules" / "alerts.yml"


def rules() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def exposed() -> set[str]:
    """Every name that a service or a build exposes, or a rule records."""
    job = JobMetrics("notes")
    job.observe(Tally())
    names = {sample.name for family in job.registry.collect() for sample in family.samples}
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)", Metrics().text().decode(), re.MULTILINE):
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names | {rule["record"] for rule in rules() if "record" in rule}


def asked(query: str) -> set[str]:
    """The metrics of ours that a query names.

    >>> sorted(asked('rate(dupmae_a_total{index="dupmae_b"}[5m]) / job:dupmae_c:ratio'))
    ['dupmae_a_total', 'job:dupmae_c:ratio']
    """
    return set(re.findall(r"\b(?:job:)?dupmae_[\w:]+", re.sub(r'"[^"]*"', "", query)))


@pytest.mark.prometheus
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_rules_are_valid(path: Path) -> None:
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_the_configuration_is_valid_and_finds_the_rules() -> None:
    path = ROOT / "deploy" / "prometheus" / "prometheus.yml"
    command = ["promtool", "check", "config", "--syntax-only", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [found for each in yaml.safe_load(path.read_text())["rule_files"] for found in path.parent.glob(each)]


@pytest.mark.alertmanager
@pytest.mark.parametrize(("severity", "receiver"), [("page", "page"), ("ticket", "ticket")])
def test_alertmanager_sends_each_severity_to_its_receiver(severity: str, receiver: str) -> None:
    command = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"severity={severity}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, receiver), done.stderr


def test_an_alert_that_silences_another_exists_as_does_the_other() -> None:
    matchers = re.findall(r"alertname = (\w+)", ALERTMANAGER.read_text())
    assert matchers
    assert set(matchers) <= set(ALERTS)


@pytest.mark.prometheus
def test_in_each_case_the_alerts_that_fire_are_those_expected_and_no_others() -> None:
    done = subprocess.run(["promtool", "test", "rules", CASES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_case_in_which_each_alert_fires_at_each_of_its_severities() -> None:
    labels = re.findall(r'alertname="(\w+)", severity="(\w+)"', CASES.read_text())
    assert set(labels) == {(rule["alert"], rule["labels"]["severity"]) for rule in rules() if "alert" in rule}


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_metrics_that_exist(rule: dict[str, Any]) -> None:
    assert asked(rule["expr"]) <= exposed()


@pytest.mark.parametrize("name", list(ALERTS))
def test_an_alert_leads_to_its_paragraph(name: str) -> None:
    page, _, anchor = ALERTS[name]["annotations"]["runbook"].partition("#")
    assert anchor == name.lower()
    _, _, text = (ROOT / page).read_text().partition(f"\n#### {name}\n")
    assert text.strip(), f"no paragraph headed '#### {name}' in {page}"
    assert ALERTS[name]["annotations"]["summary"]


def test_no_paragraph_is_of_an_alert_that_is_gone() -> None:
    told = re.findall(r"^#### (Dupmae\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(ALERTS)
