// A certified OpenID provider for the tests: oidc-provider with one confidential client, three people without
// passwords, and pages of our own, because those it brings along load a font from elsewhere.
//
// Usage: node server.mjs PORT REDIRECT_URI [ALG]   with the client's secret in CLIENT_SECRET.
// PORT 0 takes any. Prints `ready ISSUER` and stops when its standard input closes, so that no test leaves it behind.

import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const [port, redirectUri, alg = 'RS256'] = process.argv.slice(2);
const secret = process.env.CLIENT_SECRET;
if (!port || !redirectUri || !secret) {
  console.error('usage: CLIENT_SECRET=… node server.mjs PORT REDIRECT_URI [ALG]');
  process.exit(2);
}

const people = {
  alice: { name: 'Alice Archer', nickname: 'alice', email: 'alice@example.com', groups: ['engineering'] },
  bob: { name: 'Bob Baker', nickname: 'bob', email: 'bob@example.com', groups: ['contractors'] },
  admin: { name: 'Ada Minster', nickname: 'admin', email: 'admin@example.com', groups: ['security'] },
};

const keys = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  ES384: ['ec', { namedCurve: 'P-384' }],
  EdDSA: ['ed25519', {}],
};

function newKey() {
  const { privateKey } = generateKeyPairSync(...keys[alg]);
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg };
}

const configuration = {
  clients: [{
    client_id: 'gatescribe',
    client_secret: secret,
    redirect_uris: [redirectUri],
    response_types: ['code'],
    grant_types: ['authorization_code'],
    id_token_signed_response_alg: alg,
  }],
  enabledJWA: { idTokenSigningAlgValues: Object.keys(keys) },
  jwks: { keys: [newKey()] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  claims: {
    openid: ['sub'],
    email: ['email', 'email_verified'],
    profile: ['name', 'nickname'],
    groups: ['groups'],
  },
  // Claims of the scopes stand in the ID token; with `true` they would be at userinfo alone.
  conformIdTokenClaims: process.env.CLAIMS_AT_USERINFO === 'yes',
  pkce: { required: () => true },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  ttl: { AccessToken: 300, AuthorizationCode: 60, Grant: 3600, IdToken: 300, Interaction: 600, Session: 3600 },
  findAccount: (_, id) => people[id] && {
    accountId: id,
    claims: () => ({ sub: `certified-${id}`, email_verified: true, ...people[id] }),
  },
};

const server = createServer();
server.listen(Number(port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  const callback = provider.callback();
  server.on('request', (request, response) => {
    const [, uid] = request.url.match(/^\/interaction\/([\w-]+)$/) ?? [];
    const handled = uid ? interact(provider, request, response) : callback(request, response);
    Promise.resolve(handled).catch((error) => {
      response.statusCode = 400;
      response.end(String(error.message));
    });
  });
  console.log(`ready ${issuer}`);
});

async function interact(provider, request, response) {
  const details = await provider.interactionDetails(request, response);
  if (request.method === 'POST') {
    const form = new URLSearchParams(await body(request));
    const result = await outcome(provider, details, form);
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
  }
  response.setHeader('content-type', 'text/html; charset=utf-8');
  response.end(page(details));
}

async function outcome(provider, { prompt, params, session, grantId }, form) {
  if (form.has('cancel')) return { error: 'access_denied', error_description: 'cancelled' };
  if (prompt.name === 'login') return { login: { accountId: form.get('login') } };
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
  return { consent: { grantId: await grant.save() } };
}

function page({ uid, prompt, session }) {
  const buttons = prompt.name === 'login'
    ? Object.entries(people).map(([id, { name }]) => `<button name="login" value="${id}">${name}</button>`)
    : [`<button name="consent" value="${session.accountId}">Continue as ${session.accountId}</button>`];
  return `<!doctype html><html lang="en"><title>Certified provider</title><body><h1>${prompt.name}</h1>
<form method="post" action="/interaction/${uid}">${buttons.join(' ')} <button name="cancel" value="yes">Cancel</button>
</form></body></html>`;
}

async function body(request) {
  let text = '';
  for await (const chunk of request) {
    text += chunk;
    if (text.length > 4096) throw new Error('form too long');
  }
  return text;
}

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
