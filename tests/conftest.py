"""Makes the helper modules of the test folders importable."""

import sys
from pathlib import Path

for folder in (".", "engine"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
