"""The OAuth 1.0a side of the test server: requests as the wire had them, what was issued, authlib's rules, and the knobs.

It shares nothing with the client of this package but the errors, so that what it accepts is a second opinion.
"""
