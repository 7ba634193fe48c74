import { RoomcastError, deferred, refused } from './errors.js';

const ANSWER_MS = 15_000; // how long the server may take for a page
const PAGES_MAX = 16; // pages that are awaited at once

/** The pages of older messages that were asked for. One is under way at a time: the server refuses a second one. */
export class Pages {
  #link;
  #waiting = new Map(); // id -> {request, answer}, in the order of the calls
  #sentId = null; // of the one that is under way

  constructor(link) {
    this.#link = link;
  }

  ask(room, before, limit) {
    if (this.#waiting.size >= PAGES_MAX) return refused(new RoomcastError('queue_full', `${PAGES_MAX} pages are awaited already`));
    const id = this.#link.nextId('history');
    const answer = deferred();
    this.#waiting.set(id, { request: { type: 'history', room, before, limit, id }, answer });
    this.#next();
    return answer.promise;
  }

  /** A page has come. */
  take(id, page) {
    this.#end(id, ({ answer }) => answer.resolve(page));
  }

  takeError({ id, code, message, temporary, retryAfterMs }) {
    if (!this.#waiting.has(id)) return false;
    this.fail(id, code, message, { temporary, retryAfterMs });
    return true;
  }

  /** Those of one room, or all of them, are of no use any more. */
  failAll(code, message, room) {
    for (const [id, { request }] of [...this.#waiting]) {
      if (room === undefined || request.room === room) this.fail(id, code, message);
    }
  }

  fail(id, code, message, more = { temporary: true }) {
    this.#end(id, ({ answer }) => answer.reject(new RoomcastError(code, message, more)));
  }

  #next() {
    const [entry] = this.#waiting.values();
    if (!entry || this.#sentId !== null || !this.#link.isOnline) return;
    const { timers } = this.#link;
    const wait = this.#link.paceWait();
    if (wait > 0) return timers.set('history', wait, () => this.#next());
    const { request } = entry;
    this.#sentId = request.id;
    timers.set('history', ANSWER_MS, () => this.fail(request.id, 'timeout', `no answer within ${ANSWER_MS / 1000} s`));
    this.#link.send(request);
  }

  #end(id, tell) {
    const entry = this.#waiting.get(id);
    if (!entry) return;
    this.#waiting.delete(id);
    if (id === this.#sentId) {
      this.#sentId = null;
      this.#link.timers.clear('history');
    }
    tell(entry);
    this.#next();
  }
}
