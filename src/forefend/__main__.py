"""`python -m forefend`: the command line where the package is copied rather than installed."""

import sys

from forefend.cli.main import main

sys.exit(main())
