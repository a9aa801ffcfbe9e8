"""Check that a wheel holds what the installed package needs beside its modules."""

import sys
import zipfile

NEEDED = [
    "avb_hf/py.typed",
    "avb_hf/recipes/quickstart.yaml",
    "avb_hf/recipes/emogator.yaml",
    "avb_hf/recipes/paper.yaml",
    "avb_hf/recipes/released.yaml",
    "avb_hf/recipes/recommended.yaml",
    "avb_hf/evaluation/model_card.md.jinja",
    "avb_hf/experiments/published.csv",
    "avb_hf/evaluation/ccc/ccc.py",
    "avb_hf/evaluation/uar/uar.py",
]

names = set(zipfile.ZipFile(sys.argv[1]).namelist())
missing = [name for name in NEEDED if name not in names]
foreign = sorted({name.split("/")[0] for name in names if not name.startswith("avb_hf")})
if missing or foreign:
    sys.exit(f"{sys.argv[1]}: missing {missing}, not ours {foreign}")
