"""What the bytes mean and what to do about them.

Pure: clocks, transports and files are handed in (see `dpdk_bindings` for packets and `appliance`
for the service that is deployed).
"""

from barewire.errors import BarewireError, ConfigError
from barewire.keccak import keccak256, keccak256_many

__all__ = ["BarewireError", "ConfigError", "keccak256", "keccak256_many"]
