"""The three examples in one component: a plugin may be of several kinds, and one build is faster than three."""

from approve_inventory import Hook
from discovery_cloud import Source
from gpu_driver import Check

__all__ = ["Check", "Hook", "Source"]
