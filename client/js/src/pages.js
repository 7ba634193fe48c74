import { RoomcastError, deferred, refused } from './errors.js';

const ANSWER_MS = 15_000; // how long the server may take for a page
const PAGES_MAX = 16; // pages under way at once

/** The pages of older messages that were asked for and have not come yet. */
export class Pages {
  #link;
  #waiting = new Map(); // id -> {room, answer}

  constructor(link) {
    this.#link = link;
  }

  ask(room, before, limit) {
    if (this.#waiting.size >= PAGES_MAX) return refused(new RoomcastError('queue_full', `${PAGES_MAX} pages are awaited already`));
    const id = this.#link.nextId('history');
    const answer = deferred();
    this.#waiting.set(id, { room, answer });
    const send = () => {
      const wait = this.#link.paceWait();
      if (wait > 0) return this.#link.timers.set(id, wait, send);
      this.#link.timers.set(id, ANSWER_MS, () => this.#fail(id, 'timeout', `no answer within ${ANSWER_MS / 1000} s`, { temporary: true }));
      this.#link.send({ type: 'history', room, before, limit, id });
    };
    send();
    return answer.promise;
  }

  /** A page has come. */
  take(id, page) {
    this.#end(id)?.resolve(page);
  }

  takeError({ id, code, message, temporary, retryAfterMs }) {
    if (!this.#waiting.has(id)) return false;
    this.#fail(id, code, message, { temporary, retryAfterMs });
    return true;
  }

  /** Those of one room, or all of them, are of no use any more. */
  failAll(code, message, room) {
    for (const [id, entry] of [...this.#waiting]) {
      if (room === undefined || entry.room === room) this.#fail(id, code, message, { temporary: true });
    }
  }

  #fail(id, code, message, more) {
    this.#end(id)?.reject(new RoomcastError(code, message, more));
  }

  #end(id) {
    const entry = this.#waiting.get(id);
    this.#waiting.delete(id);
    this.#link.timers.clear(id);
    return entry?.answer;
  }
}
