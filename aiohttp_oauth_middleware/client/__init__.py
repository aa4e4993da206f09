"""The authorization server's endpoints, and all network I/O of ours.

:mod:`.client` knows the endpoints, :mod:`.discovery` finds them, and :mod:`.transport` carries bytes there and back on a loop
of its own, where no caller's cancellation, closed session or ending loop can cut an answer off.
"""
