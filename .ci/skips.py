"""Refuse a run in which tests were skipped that this machine should have run.

`conftest.py` puts the group first in the reason of each skip. Only groups that a CI machine may lack are let through,
`ray` and `frameworks`, which `.ci/run` installs and runs by itself, `compose`, which is a target of make, and
`prometheus` and `alertmanager`, which apt-get installs.
"""

import os
import sys
from collections import Counter
from xml.etree import ElementTree

ALLOWED = {"gpu", "server", "data", "ray", "frameworks", "compose", "prometheus", "alertmanager"} | (
    set() if os.environ.get("CI") == "true" else {"browser"}
)

cases = list(ElementTree.parse(sys.argv[1]).iter("testcase"))
reasons = Counter(skip.get("message", "") for case in cases for skip in case.iter("skipped"))
for reason, count in sorted(reasons.items()):
    print(f"{count:5} skipped: {reason}")
refused = [reason for reason in reasons if reason.partition(":")[0] not in ALLOWED]
if refused or len(cases) == reasons.total():
    sys.exit(f"These should have run here: {refused or 'all tests'}")
print(f"{len(cases) - reasons.total()} passed, 0 failed, {reasons.total()} skipped")
