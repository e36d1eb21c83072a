"""`python -m tlcompile` is the command `tlcompile`."""

import sys

from tlcompile.run.cli import main

sys.exit(main())
