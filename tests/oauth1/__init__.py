"""OAuth 1 on the wire."""
