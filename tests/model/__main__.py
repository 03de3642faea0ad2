"""``python -m tests.model [--slow]``: visit every mix, take out every rule, print the tables."""

import sys

from tests.model.explore import explore
from tests.model.report import chosen, removals, table

if __name__ == "__main__":
    results = [explore(mix) for mix in chosen("--slow" in sys.argv)]
    sys.stdout.write(table(results) + "\n\n" + removals() + "\n")
    sys.stdout.writelines(found.text() + "\n" for found in results if found.hole)
