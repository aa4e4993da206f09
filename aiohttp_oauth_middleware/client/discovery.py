"""From an issuer to its metadata; :rfc:`8414#section-3`, OpenID Connect Discovery 1.0 section 4."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from yarl import URL

from ..errors import DiscoveryError, OAuthError, TokenResponseError, TokenUnavailable
from ..protocol.endpoint import EndpointRequest, EndpointResponse
from ..protocol.metadata import ServerMetadata, parse_metadata, well_known_urls
from ..protocol.token_response import parse_object, retry_after
from ..urls import require_tls

__all__ = ("discover",)


async def discover(
    issuer: str,
    fetch: Callable[[EndpointRequest, str], Awaitable[EndpointResponse]],
    *,
    expected_issuer: str,
    insecure_http: bool,
    now: float,
) -> ServerMetadata:
    """The metadata of *issuer*, from the first well-known place that has it for *expected_issuer*.

    :raises DiscoveryError: no place has it, or what is there names another issuer or can't be used.
    :raises TokenUnavailable: no place has it, and one could not answer now.
    """
    problem: OAuthError | None = None
    for url in well_known_urls(issuer):
        request = EndpointRequest(url, headers={"Accept": "application/json", "Accept-Encoding": "identity"})
        request.method = "GET"
        try:
            response = await fetch(request, f"the metadata at {url}")
        except TokenUnavailable as error:
            error.maybe_spent = False  # nothing but a GET was sent
            problem = problem or error
            continue
        except TokenResponseError as error:
            problem = problem or DiscoveryError(str(error), rule="RFC 8414 section 3.2")
            continue
        if response.status != 200:
            if response.status >= 500 or response.status == 429:
                wait = retry_after(response.headers.get("retry-after"), now)
                problem = problem or TokenUnavailable(f"the metadata at {url} answered {response.status}", retry_after=wait)
            continue
        data = parse_object(response)
        if data is None:
            problem = problem or DiscoveryError(f"what lies at {url} is not a JSON object", rule="RFC 8414 section 3.2")
            continue
        try:
            metadata = parse_metadata(data, expected_issuer)
        except DiscoveryError as error:
            # That another issuer answers there outweighs what the other places say.
            problem = error if not isinstance(problem, DiscoveryError) or not problem.rule.endswith("3.3") else problem
            continue
        for name in ServerMetadata._fields:
            if name.endswith("_endpoint") and (endpoint := getattr(metadata, name)) is not None:
                require_tls(f"the {name} of {issuer}", URL(endpoint, encoded=True), insecure_http)
        return metadata
    raise problem or DiscoveryError(
        f"{issuer} publishes no metadata at its well-known URLs; give Client a ServerMetadata(…) instead of the issuer",
        rule="RFC 8414 section 3",
    )
