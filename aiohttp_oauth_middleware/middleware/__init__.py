"""The front door: the objects that are attached to an aiohttp session.

:mod:`.oauth2` asks four questions of each request: may this URL have the token (:mod:`.gate`)? how is it presented
(:mod:`.placement`)? what did the server say? can it be sent again (:mod:`.resend`)? :mod:`.attach` is for sessions that exist.
"""
