"""``python -m appliance`` is ``barewire``."""

import sys

from appliance.cli import main

sys.exit(main())
