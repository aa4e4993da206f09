"""The demonstration: an authorization server and its APIs on loopback, and what one object on a session does with them.

Each point has its tick only if the servers' own counters say so; what the client believes doesn't count.
"""

from .run import CLAIMS, demo

__all__ = ("CLAIMS", "demo")
