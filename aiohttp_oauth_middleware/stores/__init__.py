"""Where tokens are kept: opaque records under a key, with compare-and-swap on a version, and a lock for each key.

:mod:`.store` says what a store is, and :mod:`.memory` is the one that every process has. :mod:`.file`, :mod:`.sqlite` and
:mod:`.keyring` are shared by the processes of one machine: :mod:`.folder` sees to it that nobody else can read what is on disk,
:mod:`.kernel_lock` excludes, :mod:`.worker` is the thread that may block, and :mod:`.codec` is how a record looks as text.
:mod:`.redis` is shared by many machines, and excludes by a lease. :mod:`.sealed` encrypts what any other keeps, and
:mod:`.callback` is two functions of the user's.
"""
