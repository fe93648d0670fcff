"""``python -m appliance`` is ``barewire``."""

import sys

try:
    from appliance.cli import main
except KeyboardInterrupt:  # within the tenths of a second that imports take
    sys.exit(130)

sys.exit(main())
