"""The fault bench: an authorization server, and clients that are killed, stopped and forked, in processes of their own.

:mod:`.server` is the one process whose counters are the truth, :mod:`.worker` what a client does until it dies, :mod:`.stores`
where the tokens are kept. ``python -m tests.soak`` makes the long runs, and notes their results in ``docs/longruns.rst``.
"""
