"""``./run demo``: the whole path on one machine, over two network namespaces.

What comes in: nothing. What goes out: a picture of wire-to-wire latency. What it never does: touch
any interface but the veth pair that it makes, in namespaces that it makes and removes.
"""
