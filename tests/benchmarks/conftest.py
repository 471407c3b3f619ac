"""benchmarks/ is a folder beside tests/, not an installed package."""

import sys
from pathlib import Path

# At the end: the repository's platform/ must never come before the standard library's.
sys.path.append(str(Path(__file__).parents[2]))
