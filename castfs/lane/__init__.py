"""The fast lane: answers most requests of a mount with slices of its index, ahead of libfuse.

`wiring` puts it between the kernel's device and libfuse, `lane` reads requests and sends replies,
`answers` says what the replies are, `files` reads blobs, `ahead` gives small ones before they are
asked for, `passthrough` leaves large ones to the kernel, `pace` says when to wait awake.
"""

from castfs.lane.lane import FastLane
from castfs.lane.passthrough import passthrough_pays
from castfs.lane.wiring import Wires, device_descriptors, intercept

__all__ = ["FastLane", "Wires", "device_descriptors", "intercept", "passthrough_pays"]
