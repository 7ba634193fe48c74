export const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 20_000;

/** Full jitter: a crowd that lost its server together must not come back together. */
export function backoff(failures, random) {
  const spread = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** failures);
  return Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS + random() * spread);
}

/** A token bucket somewhat smaller than the server's, which closes connections that flood (4501). A rate of 0 does not limit. */
export class Pacer {
  #perMs;
  #tokensMax;
  #tokens;
  #at = 0;

  constructor(rate, burst) {
    this.#perMs = (rate * 0.8) / 1000;
    this.#tokens = this.#tokensMax = Math.max(1, burst / 2);
  }

  /** How many milliseconds until the next message may go. */
  wait(now) {
    if (this.#perMs === 0) return 0;
    this.#tokens = Math.min(this.#tokensMax, this.#tokens + Math.max(0, now - this.#at) * this.#perMs);
    this.#at = now;
    return this.#tokens >= 1 ? 0 : Math.ceil((1 - this.#tokens) / this.#perMs);
  }

  charge(now) {
    this.wait(now);
    this.#tokens -= 1;
  }

  empty(now) {
    this.wait(now);
    this.#tokens = Math.min(0, this.#tokens);
  }
}
