"""``python -m podium.cli``: the command, where it is not on the path."""

import sys

from podium.cli import main

sys.exit(main())
