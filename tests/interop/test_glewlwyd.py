"""glewlwyd: an issuer with a path, ``bearer`` in lower case, refusals without a body."""

from __future__ import annotations

import pytest

from aiohttp_oauth_middleware import ClientCredentials, ErrorResponse, OAuthError
from tests.interop.servers import Server


async def test_an_issuer_with_a_path_is_discovered(glewlwyd_server: Server) -> None:
    assert glewlwyd_server.issuer.endswith("/api/oidc")
    metadata = await glewlwyd_server.client("public").metadata()
    assert metadata.token_endpoint == f"{glewlwyd_server.issuer}/token"


async def test_a_refusal_of_the_client_without_a_body_is_an_error_of_ours(glewlwyd_server: Server) -> None:
    # It answers 403, and nothing else.
    with pytest.raises(OAuthError) as caught:
        await glewlwyd_server.client("machine-basic", "another-secret").fetch_token(ClientCredentials("reports:read"))
    assert not caught.value.retryable


async def test_an_error_code_of_its_own_is_passed_on(glewlwyd_server: Server) -> None:
    with pytest.raises(ErrorResponse) as caught:
        await glewlwyd_server.client("machine-basic").fetch_token(ClientCredentials("no-such-scope"))
    assert (caught.value.error, caught.value.status) == ("scope_invalid", 400)
