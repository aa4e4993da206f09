"""The middleware on real sockets: what leaves, where it goes, what is sent again, and what is left behind."""
