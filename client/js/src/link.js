import { causeOfClose, findCause } from './handshake.js';
import { BACKOFF_MIN_MS, Pacer, backoff } from './pacer.js';
import { Timers } from './timers.js';
import { Tokens } from './tokens.js';

const LEVEL_MS = 30_000; // how long all must be well before the back-off starts afresh
const WELCOME_MS = 10_000; // from the attempt to `welcome`
const PONG_MS = 10_000;
const OFFLINE_PONG_MS = 3_000; // the same when the browser has said that there is no network
const RETRY_AFTER_MAX_MS = 60_000; // a longer wait that the server asks for is cut to this

/**
 * One connection after another: back-off, tokens, silence, pace. It tells its host by `onStatus`, `onDown`, `onWelcome` and `onMessage`, and
 * asks it by `isLevel` whether all is well.
 */
export class Link {
  status = 'closed';
  userId;
  limits = {};
  attempt = 0; // tells a late token, answer or socket from the current one
  timers = new Timers();
  pausedUntil = 0;
  #url;
  #options;
  #host;
  #tokens;
  #socket = null;
  #failures = 0; // connections lost since the last level time
  #requests = 0;
  #silenceMs = 55_000;
  #heardAt = 0;
  #pacer = new Pacer(0, 0);
  #wake = ({ type }) => {
    if (type === 'offline') this.#probe(OFFLINE_PONG_MS);
    else if (type === 'online' || document.visibilityState === 'visible') this.reconnect();
  };

  constructor(url, options, host) {
    this.#url = url;
    this.#options = options;
    this.#host = host;
    this.userId = options.userId ?? '';
    this.#tokens = new Tokens(options.token, this);
  }

  get isOnline() {
    return this.status === 'online';
  }

  connect() {
    if (this.#socket || this.status === 'connecting') return;
    globalThis.addEventListener?.('online', this.#wake);
    globalThis.addEventListener?.('offline', this.#wake);
    globalThis.document?.addEventListener('visibilitychange', this.#wake);
    this.#setStatus('connecting');
    if (this.status !== 'connecting') return; // a listener has closed the client
    const attempt = ++this.attempt;
    this.timers.set('welcome', WELCOME_MS, () => this.drop('no welcome', 'unreachable'));
    if (!this.#tokens.canChange) return this.#open(this.#tokens.fixed);
    this.#tokens.ask().then(
      (token) => { if (attempt === this.attempt) this.#open(token); },
      (error) => { if (attempt === this.attempt) this.#lost({ code: 0, reason: `no token: ${error.message}`, cause: 'token_unavailable' }); },
    );
  }

  reconnect() {
    if (this.status === 'offline') this.connect();
    else if (this.isOnline) this.#probe(PONG_MS);
  }

  close() {
    const socket = this.#socket;
    this.#disconnected();
    socket?.close(1000);
    this.#stayClosed({});
  }

  /** Gives up a connection that is silent. Its `close` event may take minutes, so it is not waited for. */
  drop(reason, cause = 'lost') {
    const socket = this.#socket;
    this.#lost({ code: 0, reason, cause });
    socket?.close();
  }

  send(message) {
    this.#pacer.charge(Date.now());
    this.#socket.send(JSON.stringify(message));
  }

  /** How long the pace, or a refusal, has the next message wait. */
  wait() {
    const now = Date.now();
    return Math.max(this.pausedUntil - now, this.#pacer.wait(now));
  }

  /** Joins and requests keep to the pace, too, but a refused message does not hold them back. */
  paceWait() {
    return this.#pacer.wait(Date.now());
  }

  nextId(kind) {
    return `${kind}-${++this.#requests}`;
  }

  pause(ms) {
    this.pausedUntil = Math.max(this.pausedUntil, Date.now() + ms);
  }

  /** The server tells of one refusal a second and drops the rest in silence. */
  slowDown(retryAfterMs = BACKOFF_MIN_MS) {
    this.#pacer.empty(Date.now());
    this.pause(retryAfterMs);
  }

  backoff(failures) {
    return backoff(failures, this.#options.random);
  }

  takeError(error) {
    return this.#tokens.takeError(error);
  }

  /** Being welcomed is not enough to start the back-off afresh: a server in trouble welcomes, and fails a second later. */
  checkLevel() {
    if (this.timers.has('level') || !this.#host.isLevel()) return;
    this.timers.set('level', LEVEL_MS, () => { this.#failures = 0; });
  }

  // ---- The socket ----

  #open(token) {
    const url = new URL(this.#url);
    // With a token it is the token that says who we are.
    for (const [field, value] of Object.entries({ userId: this.userId, name: this.#options.name })) {
      if (value && !token) url.searchParams.set(field, value);
    }
    const protocols = token ? ['roomcast.v1', `roomcast.token.${token}`] : ['roomcast.v1'];
    let socket;
    try {
      socket = new this.#options.WebSocket(url.href, protocols);
    } catch (error) {
      // A page of https may not open ws, and a token must fit a header. Waiting does not change that.
      this.#disconnected();
      return this.#stayClosed({ code: 0, reason: error.message, cause: 'blocked' });
    }
    let state = 'new';
    const end = (code, reason) => {
      if (socket !== this.#socket || state === 'ended') return;
      const wasOpen = state === 'open';
      state = 'ended';
      if (wasOpen || code >= 4000 || !this.#options.fetch) this.#lost({ code, reason, cause: causeOfClose(code) });
      else this.#explain(url, token, code);
    };
    this.#socket = socket;
    socket.onopen = () => { state = 'open'; };
    socket.onmessage = ({ data }) => { if (socket === this.#socket) this.#receive(data); };
    socket.onclose = ({ code, reason }) => end(code, reason);
    // In Node 20 no `close` follows on a failed handshake.
    socket.onerror = () => { if (state === 'new') end(1006, ''); };
  }

  /** The handshake has failed, and the reason is not told with it. */
  async #explain(url, token, code) {
    const { attempt } = this;
    const found = await findCause(this.#options.fetch, url, token);
    // Another attempt may have begun meanwhile, or `welcome` may have come too late.
    if (attempt === this.attempt) this.#lost({ ...found, code: found.code || code });
  }

  #receive(data) {
    this.#heardAt = Date.now();
    if (this.timers.has('pong')) {
      this.timers.clear('pong');
      this.#watch();
    }
    const message = JSON.parse(data);
    if (message.type === 'welcome') return this.#onWelcome(message);
    if (message.type === 'refreshed') this.#tokens.refreshed(message);
    this.#host.onMessage(message);
  }

  #onWelcome(message) {
    const { userId, pingInterval = 25_000, expiresAt, limits = {} } = message;
    this.timers.clear('welcome');
    this.userId = userId;
    this.limits = limits;
    this.#silenceMs = 2 * pingInterval + 5_000;
    this.#pacer = new Pacer(limits.messageRate ?? 0, limits.messageBurst ?? 0);
    this.pausedUntil = 0;
    this.#setStatus('online');
    if (!this.isOnline) return; // a listener has closed the client
    this.#watch();
    this.#tokens.plan(expiresAt);
    this.#host.onWelcome(message);
    this.checkLevel();
  }

  #lost({ code, reason, cause, waitMs = 0, isFinal = false }) {
    this.#disconnected();
    // A token that is always the same does not become good again, and without any there is nobody to ask for one.
    const isHopeless = isFinal || (/^token_(needed|refused)$/.test(cause) && !this.#tokens.canChange);
    if (isHopeless || (code >= 4500 && code <= 4999)) return this.#stayClosed({ code, reason, cause });
    const delay = Math.min(waitMs, RETRY_AFTER_MAX_MS) + this.backoff(this.#failures++);
    this.timers.set('retry', delay, () => this.connect());
    this.#setStatus('offline', { code, reason, cause, retryAt: Date.now() + delay });
  }

  #disconnected() {
    this.#socket = null;
    this.attempt++;
    this.timers.clearAll();
    this.#tokens.disconnected();
    this.#host.onDown();
  }

  #stayClosed(detail) {
    globalThis.removeEventListener?.('online', this.#wake);
    globalThis.removeEventListener?.('offline', this.#wake);
    globalThis.document?.removeEventListener('visibilitychange', this.#wake);
    this.#setStatus('closed', detail);
  }

  #setStatus(status, detail = {}) {
    this.status = status;
    this.#host.onStatus({ status, ...detail });
  }

  // ---- Silence ----

  #watch() {
    const check = () => (Date.now() - this.#heardAt < this.#silenceMs ? this.#watch() : this.#probe(PONG_MS));
    this.timers.set('silence', this.#heardAt + this.#silenceMs - Date.now(), check);
  }

  #probe(waitMs) {
    if (!this.isOnline || (this.timers.has('pong') && waitMs === PONG_MS)) return;
    this.send({ type: 'ping' });
    const cause = waitMs === OFFLINE_PONG_MS ? 'network' : 'lost';
    this.timers.set('pong', waitMs, () => this.drop('no answer', cause));
  }
}
