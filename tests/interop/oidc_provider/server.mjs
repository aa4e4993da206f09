// panva's oidc-provider on a loopback port of the system's choice, with its in-memory adapter.
//
//   node server.mjs [--access-token-ttl=SECONDS]
//
// POST /testing/destroy with an access token as the body drops that one token, and nothing else that came of its login.
// (The revocation endpoint drops it all, as RFC 7009 section 2.1 allows.)
//
// Prints one line of JSON once it listens, {"issuer": "http://127.0.0.1:PORT"}, and ends when its standard input does, so
// that it never outlives the tests. A person is not needed: whoever comes to the interaction is "alice" and consents.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

// The library tells of its defaults on the console; standard output is ours alone.
console.info = console.warn = (...words) => console.error(...words);

const { default: Provider } = await import('oidc-provider');

const { values } = parseArgs({ options: { 'access-token-ttl': { type: 'string', default: '3600' } } });
const accessTokenTTL = Number(values['access-token-ttl']);
if (!Number.isInteger(accessTokenTTL) || accessTokenTTL < 1) {
  throw new Error('--access-token-ttl is a whole number of seconds, 1 or more');
}

const callback = 'http://127.0.0.1/callback';
const awkward = 's3cr:t +%&=/~"'; // RFC 6749 section 2.3.1: form-encoded before it goes into Basic
const machine = { grant_types: ['client_credentials'], response_types: [], redirect_uris: [] };
const web = {
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  redirect_uris: [callback],
};

const configuration = {
  clients: [
    { client_id: 'machine-basic', client_secret: 'a-client-secret', token_endpoint_auth_method: 'client_secret_basic', ...machine },
    { client_id: 'machine-post', client_secret: 'a-client-secret', token_endpoint_auth_method: 'client_secret_post', ...machine },
    { client_id: 'machine:awkward', client_secret: awkward, token_endpoint_auth_method: 'client_secret_basic', ...machine },
    { client_id: 'web-basic', client_secret: 'a-client-secret', token_endpoint_auth_method: 'client_secret_basic', ...web },
    { client_id: 'web-post', client_secret: 'a-client-secret', token_endpoint_auth_method: 'client_secret_post', ...web },
    { client_id: 'public', token_endpoint_auth_method: 'none', application_type: 'native', ...web },
  ],
  scopes: ['openid', 'offline_access', 'reports:read', 'reports:write'],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  ttl: {
    AccessToken: accessTokenTTL,
    ClientCredentials: accessTokenTTL,
    AuthorizationCode: 60,
    Grant: 3600,
    IdToken: 3600,
    Interaction: 600,
    RefreshToken: 3600,
    Session: 3600,
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
    userinfo: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => false,
      getResourceServerInfo: (ctx, resource) => ({
        audience: resource,
        scope: 'reports:read reports:write',
        accessTokenTTL,
        accessTokenFormat: 'opaque',
      }),
    },
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: [randomBytes(16).toString('hex')] },
  jwks: {
    keys: [
      {
        ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
        kid: 'only',
        alg: 'RS256',
        use: 'sig',
      },
    ],
  },
};

async function destroy(provider, request, response) {
  const parts = [];
  for await (const part of request) {
    parts.push(part);
  }
  const value = Buffer.concat(parts).toString();
  const token = (await provider.AccessToken.find(value)) ?? (await provider.ClientCredentials.find(value));
  await token.destroy();
  response.writeHead(204).end();
}

async function interact(provider, request, response) {
  const { params, session } = await provider.interactionDetails(request, response);
  const accountId = session?.accountId ?? 'alice';
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope ?? 'openid');
  for (const resource of [params.resource ?? []].flat()) {
    grant.addResourceScope(resource, params.scope);
  }
  const result = { login: { accountId }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

// The issuer holds the port, so the port comes first.
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  provider.on('server_error', (ctx, error) => console.error(error));
  const answer = provider.callback();
  server.on('request', (request, response) => {
    const own = request.url === '/testing/destroy' ? destroy : request.url.startsWith('/interaction/') ? interact : undefined;
    if (own === undefined) {
      answer(request, response);
      return;
    }
    own(provider, request, response).catch((error) => {
      console.error(error);
      response.writeHead(500).end();
    });
  });
  process.stdout.write(`${JSON.stringify({ issuer })}\n`);
});

process.stdin.on('end', () => process.exit(0)).resume();
