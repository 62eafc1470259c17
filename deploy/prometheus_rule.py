"""The alerts for clusters that have the Prometheus operator: `python -m deploy.prometheus_rule` writes the manifest.

`deploy/prometheus/rules/` is the one source of them; a test compares the manifest with what this module makes of it.
"""

from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RULES = HERE / "prometheus" / "rules"
MANIFEST = HERE / "kubernetes" / "monitoring" / "prometheus-rule.yaml"

HEAD = """\
# Made by `python -m deploy.prometheus_rule` of deploy/prometheus/rules/: change it there.
"""


class _Dumper(yaml.SafeDumper):
    """Writes what is used twice twice: a manifest is read by people, and by tools that know no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def manifest() -> str:
    """The content of the file."""
    groups = [group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "dupmae-search"},
        "spec": {"groups": groups},
    }
    return HEAD + yaml.dump(rule, Dumper=_Dumper, sort_keys=False, width=120)


if __name__ == "__main__":
    MANIFEST.write_text(manifest())
