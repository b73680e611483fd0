"""Makes the helper modules of the test folders importable, and keeps the clock out of property tests."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

for folder in (".", "engine"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

collect_ignore = ["example_app"]  # a project of its own, which tests/dev runs

# A busy machine is no defect of the code under test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
