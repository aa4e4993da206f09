"""OAuth 1.0a (:rfc:`5849`), the other front door: the client of the three legs, its tokens, and the middleware that signs.

:mod:`.signature` is pure: what is signed and how. :mod:`.signer` adds who signs, :mod:`.client` gets tokens, :mod:`.tokens`
keeps them, :mod:`.auth` signs requests on an aiohttp session. Origins and bodies are judged as for OAuth 2, by the same code.
"""
