const EARLY_MS = 60_000; // how long before a token expires a new one is asked for, or a fifth of its time if that is less
const PAUSE_MS = 30_000; // between two refreshes; the server takes one in 10 s
const TIMER_MAX_MS = 2 ** 31 - 1; // browsers run timers at once that are longer

/** The token of a connection: a string, or a function that is asked for one, and again before the last one expires. */
export class Tokens {
  #source;
  #link;
  #refreshId = null; // of the refresh that is not answered yet

  constructor(source, link) {
    this.#source = source;
    this.#link = link;
  }

  /** Whether a new token may be had. */
  get canChange() {
    return typeof this.#source === 'function';
  }

  /** The token if it is known without asking: a string, or undefined. */
  get fixed() {
    return this.#source;
  }

  /** Asks for a token. */
  async ask() {
    const token = await this.#source();
    // Anything else could not be offered as a subprotocol: a page of an error, for example.
    if (typeof token !== 'string' || !/^[\w!#$%&'*+.^`|~-]+$/.test(token)) throw new Error('what was given is no token');
    return token;
  }

  /** A new token is brought before the last one expires, so that the connection stays. */
  plan(expiresAt, pause = 0) {
    if (expiresAt === undefined || !this.canChange) return;
    const left = expiresAt - Date.now();
    const wait = Math.max(pause, left - Math.min(EARLY_MS, left / 5));
    if (wait > TIMER_MAX_MS) this.#link.timers.set('refresh', TIMER_MAX_MS, () => this.plan(expiresAt));
    else this.#link.timers.set('refresh', wait, () => this.#refresh());
  }

  refreshed({ expiresAt }) {
    this.#refreshId = null;
    this.plan(expiresAt, PAUSE_MS);
  }

  /** Whether an error answers our refresh. The last token goes on; the server ends the connection if no other comes in time. */
  takeError({ id, retryAfterMs }) {
    if (id === undefined || id !== this.#refreshId) return false;
    this.#later(Math.max(PAUSE_MS, retryAfterMs ?? 0));
    return true;
  }

  disconnected() {
    this.#refreshId = null;
  }

  #refresh() {
    const { attempt } = this.#link;
    this.ask().then((token) => {
      if (attempt !== this.#link.attempt) return;
      this.#refreshId = this.#link.nextId('refresh');
      this.#link.send({ type: 'refresh', token, id: this.#refreshId });
    }).catch(() => { if (attempt === this.#link.attempt) this.#later(PAUSE_MS); });
  }

  #later(wait) {
    this.#refreshId = null;
    this.#link.timers.set('refresh', wait, () => this.#refresh());
  }
}
