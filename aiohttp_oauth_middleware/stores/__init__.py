"""Where tokens are kept: opaque records under a key, with compare-and-swap on a version, and a lock for each key.

:mod:`.store` says what a store is, and :mod:`.memory` is the one that every process has. :mod:`.file` and :mod:`.sqlite` keep
them on disk, for the processes of one machine: :mod:`.folder` sees to it that nobody else can read them, :mod:`.kernel_lock`
excludes, :mod:`.worker` is the thread that may block, and :mod:`.codec` is how a record looks as text.
"""
