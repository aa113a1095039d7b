"""`python -m dimse_trio.cli`, the same as `dimse-trio`."""

import sys

from . import main

sys.exit(main())
