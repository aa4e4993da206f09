"""What a URL must be before anything secret is sent to it."""

from __future__ import annotations

import ipaddress

from yarl import URL

from .errors import ConfigurationError, InsecureTransport

__all__ = ("absolute_url", "is_loopback", "require_tls")


def absolute_url(name: str, value: object) -> URL:
    """*value* as a URL. Raises ConfigurationError naming the argument where it isn't an absolute http(s) URL."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigurationError(f"{name} must be an absolute https URL, in ASCII, without spaces")
    try:
        url = URL(value, encoded=True)
        port, host = url.port, url.raw_host
    except ValueError:
        raise ConfigurationError(f"{name} must be an absolute https URL") from None
    if url.scheme not in ("https", "http") or not host or not port:
        raise ConfigurationError(f"{name} must be an absolute https URL")
    if url.raw_user is not None or url.raw_password is not None:
        raise ConfigurationError(f"{name} must not carry a user name or password")
    if "#" in value:
        raise ConfigurationError(f"{name} must not have a fragment (RFC 6749 section 3.1)")
    return url


def require_tls(name: str, url: URL, insecure_http: bool) -> None:
    """Raise InsecureTransport unless *url* is https, or http to this machine, or *insecure_http* allows it.

    RFC 6749 section 3.2: "the authorization server MUST require the use of TLS [...] when sending requests to the token
    endpoint".
    """
    if url.scheme not in ("https", "wss") and not insecure_http and not is_loopback(url.raw_host):
        raise InsecureTransport(
            f"{name} is plain http to a host that is not this machine: use https, or say insecure_http=True in a closed network"
        )


def is_loopback(host: str | None) -> bool:
    """Whether *host* (a URL's ``raw_host``) is this machine: ``127.0.0.0/8``, ``::1`` or ``localhost``, spelt just so.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.0.0.1.evil.test", "0x7f.1", "localhost.")]
    [True, True, True, False, False, False]
    """
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # An IPv4-mapped ::ffff:127.0.0.1 is not on the list: what it reaches depends on the system.
    return address == ipaddress.IPv6Address("::1") or (address.version == 4 and address.is_loopback)
