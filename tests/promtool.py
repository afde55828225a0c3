"""Prometheus's own programs: without them the rules and the dashboards aren't tried."""

import os
import shutil

PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
IS_LEFT_OUT = None in (PROMTOOL, PROMETHEUS) and not os.environ.get("CI")
"""Where a person tests without them, they are left out, aloud; CI fails instead."""
