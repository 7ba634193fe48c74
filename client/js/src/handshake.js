// Why a handshake failed. A browser tells a page nothing about that, so the client asks the same address once more by `fetch`: the
// server makes the same checks, and its answer can be read.

const ASK_MS = 5_000;

/** Refusals that do not pass by waiting. A 404 may: proxies answer it while a server is being replaced. */
const FINAL = ['banned', 'origin', 'forbidden', 'bad_request'];

/** The cause of a failed handshake: {cause, code?, reason, waitMs?, isFinal}. It never fails. */
export async function findCause(fetch, socketUrl, token) {
  if (globalThis.navigator?.onLine === false) return { cause: 'network', code: 0, reason: 'there is no network' };
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const url = socketUrl.href.replace(/^ws/, 'http');
    const response = await fetch(url, { headers, cache: 'no-store', signal: AbortSignal.timeout(ASK_MS) });
    const isOurs = response.headers.get('Content-Type')?.startsWith('text/plain');
    const reason = isOurs ? (await response.text()).trim() : response.statusText;
    const cause = causeOf(response.status, reason, token);
    const waitMs = 1000 * Number(response.headers.get('Retry-After')) || 0;
    // Another program's page, of a firewall for example, says nothing about what the server would say.
    const isFinal = isOurs && FINAL.includes(cause);
    return { cause, code: response.status, reason: reason.replace(/^banned: /, ''), waitMs, isFinal };
  } catch {
    return { cause: 'unreachable', code: 0, reason: 'the server cannot be reached' };
  }
}

function causeOf(status, reason, token) {
  switch (status) {
    case 400: return 'bad_request';
    case 401: return token ? 'token_refused' : 'token_needed';
    case 403: return /^banned/.test(reason) ? 'banned' : /^pages of origin/.test(reason) ? 'origin' : 'forbidden';
    case 404: return 'not_found';
    case 426: return 'no_upgrade'; // the server would let us in: something between does not pass the upgrade on
    case 429: return 'too_many';
    default: return status >= 500 ? 'unavailable' : 'unreachable';
  }
}

/** What a close code says. */
export function causeOfClose(code) {
  switch (code) {
    case 4003: return 'token_expired';
    case 4501: return 'flooded';
    case 4502: return 'stalled';
    case 4503: return 'banned';
    case 4504: return 'replaced';
    default: return code >= 4500 && code <= 4999 ? 'server' : 'lost';
  }
}
