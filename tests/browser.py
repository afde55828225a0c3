"""The browser that the pages are tried in: the machine's own, since a download of one has no place in a test."""

import os
import shutil

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IS_LEFT_OUT = CHROMIUM is None and not os.environ.get("CI")
"""Where a person tests without one, the pages are left out, aloud; CI fails instead."""
