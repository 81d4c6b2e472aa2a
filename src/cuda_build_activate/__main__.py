"""``python -m cuda_build_activate``: what is activated in this environment, and what is wrong with it."""

import os
import sys

from cuda_build_activate._activate import decide
from cuda_build_activate._doctor import findings


def main() -> int:
    """Print the decision and the findings; return 1 if one of them is an error."""
    found = findings()
    print(decide(os.environ, sys.path).reason)
    for finding in found:
        print(f"{finding.severity}: {finding.seen}\n  {finding.remedy}")
    return int(any(finding.severity == "error" for finding in found))


if __name__ == "__main__":
    sys.exit(main())
