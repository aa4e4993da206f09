"""Where tokens are kept: opaque records under a key, with compare-and-swap on a version, and a lock for each key.

:mod:`.store` says what a store is, and :mod:`.memory` is the one that every process has.
"""
