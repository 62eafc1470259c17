"""What can be said of the deployment's files without running them: they are valid, and they keep what docs promise."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.prometheus_rule import MANIFEST, RULES, manifest
from service import settings
from tests.deploy.stack import compose_program

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
EMBEDDED = ROOT / "deploy" / "compose.embedded.yml"
KUBERNETES = ROOT / "deploy" / "kubernetes"
PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yml"
KUBERNETES_VERSION = "1.34"
CUSTOM = {"Kustomization", "Component", "ServiceMonitor", "PodMonitor", "PrometheusRule"}
"""Kinds that Kubernetes itself does not define, so that it has no schema of them."""


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environment or None, capture_output=True, text=True, check=False)


def beside_python(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def configured(*files: Path) -> dict[str, Any]:
    """The services as Compose reads them after a fresh clone: nothing set, every profile on."""
    options = [word for file in files for word in ("--file", file)]
    done = run(compose_program(), *options, "--profile", "*", "config", PATH="", HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return services


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return configured(COMPOSE)


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        yield from ((path.name, each) for each in yaml.safe_load_all(path.read_text()))


def identity(found: dict[str, Any]) -> str:
    return f"{found['kind']} {found['metadata']['name']}"


def labels_of(found: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Its own, and those of the pods that it makes."""
    yield found.get("metadata", {}).get("labels", {})
    spec = found.get("spec", {})
    yield spec.get("jobTemplate", {}).get("spec", spec).get("template", {}).get("metadata", {}).get("labels", {})


def pod(kind: str) -> dict[str, Any]:
    [found] = [each for _, each in objects() if each["kind"] == kind]
    spec = found["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else found["spec"]
    inside: dict[str, Any] = spec["template"]["spec"]
    return inside


@pytest.mark.parametrize("dockerfile", ["deploy/Dockerfile", "tests/deploy/Dockerfile.monitoring"])
def test_dockerfiles_are_clean(dockerfile: str) -> None:
    done = run(beside_python("hadolint"), "--ignore", "DL3006", dockerfile)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.compose-spec", "docker-compose.yml"),
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
    ],
)
def test_files_that_others_read_have_their_schema(schema: str, file: str) -> None:
    done = run(beside_python("check-jsonschema"), "--builtin-schema", schema, file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_needs_nothing_set_after_a_clone(services: dict[str, Any]) -> None:
    assert {"qdrant", "service", "prometheus", "alertmanager", "grafana", "seed"} <= services.keys()
    assert services["service"]["depends_on"]["seed"]["condition"] == "service_completed_successfully"


def test_no_container_has_rights_it_does_not_need(services: dict[str, Any]) -> None:
    for name, each in services.items():
        assert each["read_only"], name
        assert each["cap_drop"] == ["ALL"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        limits = each["deploy"]["resources"]["limits"]
        assert {"memory", "pids"} <= limits.keys(), name
        assert each["image"].endswith("-unprivileged") or each["user"].split(":")[0] not in ("0", "root"), name


def test_images_of_others_are_pinned(services: dict[str, Any]) -> None:
    images = {each["image"] for each in services.values() if "build" not in each}
    loose = [image for image in images if not re.search(r"@sha256:[0-9a-f]{64}$", image)]
    assert loose == ["docker.io/qdrant/qdrant:v1.19.1-unprivileged"]


def test_nothing_is_published_beyond_loopback(services: dict[str, Any]) -> None:
    ports = [port for each in services.values() for port in each.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_qdrant_is_reached_from_the_inner_network_only(services: dict[str, Any]) -> None:
    nodes = [each for name, each in services.items() if name.startswith("qdrant")]
    assert len(nodes) == 3
    assert all(list(each["networks"]) == ["backend"] and "ports" not in each for each in nodes)
    assert yaml.safe_load(COMPOSE.read_text())["networks"]["backend"] == {"internal": True}


def test_what_waits_for_a_healthy_container_waits_for_one_that_has_a_check(services: dict[str, Any]) -> None:
    for name, each in services.items():
        for other, how in each.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or services[other]["healthcheck"]["test"], (name, other)


def test_without_qdrant_nothing_waits_for_it() -> None:
    services = configured(COMPOSE, EMBEDDED)
    for name in ("seed", "service", "indexer"):
        assert services[name]["environment"]["DUPMAE_QDRANT_URL"] == ""
        assert "qdrant" not in services[name].get("depends_on", {}), name


def test_the_example_settings_are_the_defaults_and_all_of_them() -> None:
    example = (ROOT / ".env.example").read_text()
    told = dict(re.findall(r"^#?([A-Z_]+)=(\S*)", example, re.MULTILINE))
    used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", COMPOSE.read_text()))
    assert used.keys() - {"IMAGE", "GPU_SERVICE_MEMORY", "DUPMAE_QDRANT_URL"} <= told.keys()
    assert {name: told[name] for name in used.keys() & told.keys() - {"QDRANT_CLUSTER"}} == {
        name: used[name] for name in used.keys() & told.keys() - {"QDRANT_CLUSTER"}
    }


@pytest.mark.parametrize(
    "file", [COMPOSE, ROOT / ".env.example", KUBERNETES / "config.yaml", KUBERNETES / "service.yaml"]
)
def test_every_setting_named_in_a_deployment_exists(file: Path) -> None:
    named = set(re.findall(r"\bDUPMAE_[A-Z_]+", file.read_text()))
    assert named
    assert named <= {row.name for row in settings.table()}


@pytest.mark.parametrize("found", [each for _, each in objects() if each["kind"] not in CUSTOM], ids=identity)
def test_manifests_have_the_schema_of_kubernetes(found: dict[str, Any]) -> None:
    kubernetes_validate.validate(found, KUBERNETES_VERSION, strict=True)


def test_the_kustomization_names_every_manifest() -> None:
    folder = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]) == folder


def test_the_component_for_monitoring_names_every_manifest() -> None:
    folder = {path.name for path in (KUBERNETES / "monitoring").glob("*.yaml")} - {"kustomization.yaml"}
    component = yaml.safe_load((KUBERNETES / "monitoring" / "kustomization.yaml").read_text())
    assert set(component["resources"]) == folder


def test_the_alerts_of_kubernetes_are_those_of_prometheus() -> None:
    assert MANIFEST.read_text() == manifest(), "run python -m deploy.prometheus_rule"
    [rule] = [each for _, each in objects() if each["kind"] == "PrometheusRule"]
    files = [yaml.safe_load(path.read_text())["groups"] for path in sorted(RULES.glob("*.yml"))]
    assert rule["spec"]["groups"] == [group for groups in files for group in groups]


@pytest.mark.prometheus
def test_prometheus_takes_the_alerts_of_kubernetes(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(yaml.safe_load(MANIFEST.read_text())["spec"]))
    done = run("promtool", "check", "rules", tmp_path / "rules.yml", PATH=os.environ["PATH"])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "endpoints", "pods", "job"),
    [
        ("ServiceMonitor", "endpoints", "Deployment", "dupmae"),
        ("PodMonitor", "podMetricsEndpoints", "CronJob", "dupmae-build"),
    ],
)
def test_what_is_monitored_exists_and_is_called_as_the_rules_call_it(
    kind: str, endpoints: str, pods: str, job: str
) -> None:
    [monitor] = [each for _, each in objects() if each["kind"] == kind]
    [endpoint] = monitor["spec"][endpoints]
    selected = monitor["spec"]["selector"]["matchLabels"]
    [container] = pod(pods)["containers"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": job}]
    assert job in {each["job_name"] for each in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    assert selected in [labels for _, each in objects() for labels in labels_of(each)]


@pytest.mark.parametrize("kind", ["Deployment", "CronJob"])
def test_pods_are_admitted_where_only_restricted_ones_are(kind: str) -> None:
    inside = pod(kind)
    assert inside["securityContext"]["runAsNonRoot"]
    assert inside["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [container] = inside["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]


def test_a_pod_that_waits_for_its_first_build_is_not_killed() -> None:
    [container] = pod("Deployment")["containers"]
    assert [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")] == ["/livez"] * 2
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_rebuilds_never_run_beside_each_other() -> None:
    [job] = [each for _, each in objects() if each["kind"] == "CronJob"]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_a_container_is_healthy_when_its_service_can_answer(status: int, code: int) -> None:
    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.handle_request).start()
        done = run(sys.executable, "-S", "deploy/healthcheck.py", DUPMAE_PORT=str(server.server_port))
    assert done.returncode == code


def test_a_container_that_does_not_listen_is_not_healthy() -> None:
    done = run(sys.executable, "-S", "deploy/healthcheck.py", DUPMAE_PORT="1")
    assert (done.returncode, done.stderr) == (1, "no answer: [Errno 111] Connection refused\n")
