"""Where a token comes from.

:mod:`.source` is the one method on which the middleware depends. :mod:`.tokens` is the everyday source: memory, then a single
flight, then the store, then :mod:`.refresh`, the state machine that spends a refresh token at most once, then the grant.
:mod:`.keyed` does that for one key, with what :mod:`.held` says of its token in memory and :mod:`.slot` of its record;
:mod:`.asking` asks a person where nothing else earns one, and :mod:`.records` goes through the records of all keys.
:mod:`.static` is a token that never changes.
"""
