"""Refuse a small recipe whose fused score does not find better, on held-out queries, than either part alone."""

import json
import sys
from pathlib import Path

systems = json.loads(Path(sys.argv[1]).read_text())["systems"]
found = {name: systems[name]["nDCG@10"]["mean"] for name in ("bm25", "cls", "ot", "fused")}
print("nDCG@10 on held-out queries: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
if found["fused"] <= max(found["cls"], found["ot"]):
    sys.exit("The fused score should be above both of its parts")
