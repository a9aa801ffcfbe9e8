"""Fine-tune, score and predict: `python run_avb.py [recipe] --flags`; `--help` lists them."""

import sys

from avb_hf.cli import run

if __name__ == "__main__":
    sys.exit(run("train", sys.argv[1:]))
