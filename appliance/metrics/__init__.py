"""What the appliance writes down about itself, and how it is read.

A hot loop writes its numbers into a file in shared memory (``dpdk_bindings.metrics``); everything
else here runs in other processes and only reads: ``barewire metrics`` for people and programs, and
an exporter for Prometheus. Names, places and help texts come from ``schema.toml`` alone.
"""
