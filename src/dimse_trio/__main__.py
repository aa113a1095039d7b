"""`python -m dimse_trio`, the same as `dimse-trio`."""

import sys

from .cli import main

sys.exit(main())
