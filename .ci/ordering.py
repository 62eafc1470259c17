"""Refuse a small recipe whose fused score does not hold both parts together on held-out queries.

In minutes from random weights the [CLS] side is weak, and 243 queries are good to about .02: so the fused score must be
above [CLS] only, and not below the words only by more than that.
"""

import json
import sys
from pathlib import Path

NOISE = 0.02

systems = json.loads(Path(sys.argv[1]).read_text())["systems"]
found = {name: systems[name]["nDCG@10"]["mean"] for name in ("bm25", "cls", "ot", "fused")}
print("nDCG@10 on held-out queries: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
if found["fused"] <= found["cls"] or found["fused"] < found["ot"] - NOISE:
    sys.exit("The fused score should be above both of its parts")
