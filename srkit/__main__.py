"""`python -m srkit` is `srkit`."""

import sys

from srkit.cli import main

sys.exit(main())
