"""The proxy that the service is deployed behind: the machine's own."""

import os
import shutil

NGINX = shutil.which("nginx")
IS_LEFT_OUT = NGINX is None and not os.environ.get("CI")
"""Where a person tests without one, the roll-out is left out, aloud; CI fails instead."""
