import { RoomcastError, deferred, refused } from './errors.js';
import { byteLength, randomId } from './names.js';

const ANSWER_MS = 15_000; // how long the server may take to answer a message before it is sent again
const REFUSALS_MAX = 20; // temporary errors for one message before it is given up

/** The messages that are not acknowledged yet, in the order of `say`. */
export class Outbox {
  #entries = new Map(); // id -> entry
  #link;
  #emit;
  #isWanted; // whether the application wants to be in a room
  #isLive; // whether `joined` has come for a room on this connection
  #queueMax;

  constructor(link, { emit, isWanted, isLive, queueMax }) {
    this.#link = link;
    this.#emit = emit;
    this.#isWanted = isWanted;
    this.#isLive = isLive;
    this.#queueMax = queueMax;
  }

  /** A promise with the `id` of the message, or without one if it cannot be said at all. */
  add(room, text, data) {
    if (!this.#isWanted(room)) return refused(new RoomcastError('not_joined', `join ${room} before speaking there`));
    if (typeof text !== 'string' || text === '') return refused(new RoomcastError('bad_message', 'text must be a string and not empty'));
    if (this.#entries.size >= this.#queueMax) return refused(new RoomcastError('queue_full', `${this.#queueMax} messages are waiting to be sent already`));
    const id = randomId();
    // A lone surrogate is no Unicode, and no server can read it as JSON.
    const message = { type: 'chat', room, text: text.toWellFormed(), data, id };
    const problem = this.#sizeProblem(message);
    if (problem) return refused(new RoomcastError('too_large', problem));
    const answer = deferred();
    this.#entries.set(id, { message, isSent: false, sentAt: 0, refusals: 0, answer });
    return Object.assign(answer.promise, { id });
  }

  unsent(name) {
    return [...this.#entries.values()].filter(({ message }) => message.room === name)
      .map(({ message: { room, id, text, data } }) => ({ room, id, text, data }));
  }

  /** Messages wait for `joined`: what an earlier connection got through has been acknowledged by its copy by then. */
  flush() {
    if (!this.#link.isOnline) return;
    for (const entry of [...this.#entries.values()]) {
      if (entry.isSent || !this.#isLive(entry.message.room)) continue;
      const wait = this.#link.wait();
      if (wait > 0) return this.#link.timers.set('flush', wait, () => this.flush());
      const problem = this.#sizeProblem(entry.message);
      if (problem) {
        this.#fail(entry, { code: 'too_large', message: problem });
      } else {
        entry.isSent = true;
        entry.sentAt = Date.now();
        this.#link.send(entry.message);
        this.#awaitAnswers();
      }
    }
  }

  sendAllAgain() {
    for (const entry of this.#entries.values()) entry.isSent = false;
  }

  acknowledge(id, seq) {
    const entry = this.#entries.get(id);
    if (!entry) return;
    this.#entries.delete(id);
    this.#emit('sent', { room: entry.message.room, id, seq });
    entry.answer.resolve({ id, seq });
  }

  /** Whether an error answers one of our messages, and whether that is all that is to be said about it. */
  takeError(error) {
    const { code, temporary, id, retryAfterMs } = error;
    const entry = this.#entries.get(id);
    if (!entry) return false;
    entry.isSent = false;
    // A mute may pass some time. The message does not wait for that, nor do those in other rooms.
    if (!temporary || code === 'muted' || ++entry.refusals > REFUSALS_MAX) {
      this.#fail(entry, error);
    } else {
      // All messages wait, not only the refused one: the next would be refused too, and would overtake it if not.
      this.#link.pause(retryAfterMs ?? this.#link.backoff(entry.refusals - 1));
      this.flush();
    }
    return true;
  }

  /** Gives up what was said in rooms that the application is in no longer: all, or what is not on its way. */
  failOrphans(error, all) {
    this.#failThose(error, (entry) => !this.#isWanted(entry.message.room) && (all || !entry.isSent));
  }

  failAll(error) {
    this.#failThose(error, () => true);
  }

  #failThose(error, which) {
    for (const entry of [...this.#entries.values()].filter(which)) this.#fail(entry, error);
  }

  #fail({ message: { room, id, text, data }, answer }, { code, message, temporary, retryAfterMs }) {
    this.#entries.delete(id);
    const more = retryAfterMs === undefined ? {} : { retryAfterMs };
    this.#emit('failed', { room, id, text, data, code, message, ...more });
    answer.reject(new RoomcastError(code, message, { id, temporary, ...more }));
  }

  /** An answer can be lost on the server's side only, so a message that gets none is sent again; the server knows it by its id. */
  #awaitAnswers() {
    const { timers } = this.#link;
    if (!timers.has('answers')) timers.set('answers', ANSWER_MS, () => this.#repeatUnanswered());
  }

  #repeatUnanswered() {
    const now = Date.now();
    const sent = [...this.#entries.values()].filter((entry) => entry.isSent && this.#isWanted(entry.message.room));
    for (const entry of sent) {
      if (now - entry.sentAt >= ANSWER_MS) entry.isSent = false;
    }
    const waiting = sent.filter((entry) => entry.isSent);
    if (waiting.length > 0) {
      const oldest = Math.min(...waiting.map((entry) => entry.sentAt));
      this.#link.timers.set('answers', oldest + ANSWER_MS - now, () => this.#repeatUnanswered());
    }
    this.flush();
  }

  /** Checked here because the server closes the connection (1009) on a frame over its bound, and would do so at every attempt. */
  #sizeProblem(message) {
    const { messageBytes = Infinity, dataBytes = Infinity } = this.#link.limits;
    const bytes = byteLength(JSON.stringify(message));
    if (bytes > messageBytes) return `the message has ${bytes} bytes, ${messageBytes} are allowed`;
    const extra = message.data === undefined ? 0 : byteLength(JSON.stringify(message.data));
    return extra > dataBytes ? `data has ${extra} bytes, ${dataBytes} are allowed` : '';
  }
}
