"""OAuth 1.0a (:rfc:`5849`), the other front door: the client of the three legs, its tokens, and the middleware that signs.

:mod:`.signature` is pure: what is signed and how; :mod:`.signer` adds who signs. :mod:`.client` has the three legs, with
:mod:`.credentials`, :mod:`.responses` and :mod:`.callback` for what is sent and what comes back. :mod:`.tokens` keeps tokens,
and :mod:`.auth` signs the requests of an aiohttp session: origins and bodies are judged as for OAuth 2, by the same code.
"""
