"""Run the command: `python -m univg`."""

import sys

from univg.cli.main import main

sys.exit(main())
