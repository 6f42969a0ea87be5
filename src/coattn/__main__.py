"""`python -m coattn` is the command `coattn`; `torchrun -m coattn extract ...` starts it in several processes."""

from __future__ import annotations

import sys

from coattn.cli import main

sys.exit(main())
