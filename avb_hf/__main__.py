"""`python -m avb_hf` is `avb`."""

import sys

from avb_hf.cli import main

sys.exit(main())
