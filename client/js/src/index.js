// Roomcast's JavaScript client, without dependencies. docs/javascript-client.md tells how it is used.
import { Emitter } from './emitter.js';
import { RoomcastError, deferred, refused } from './errors.js';
import { Link } from './link.js';
import { Memberships } from './memberships.js';
import { checkName, nameProblem } from './names.js';
import { Outbox } from './outbox.js';
import { Pages } from './pages.js';
import { ROOM_EVENTS, Room } from './room.js';

const EVENTS = ['status', 'welcome', 'refreshed', ...ROOM_EVENTS, 'error'];

export class Roomcast extends Emitter {
  static nameProblem = nameProblem;
  #link;
  #memberships;
  #outbox;
  #pages;
  #rooms = new Map(); // name -> Room, also of rooms that are not joined
  #welcome = null; // the last message of that type
  #opening = null; // of `connect`, until the client is online
  #ending = null; // why the server has closed the connection for good

  constructor(url = '/ws', options = {}) {
    super(EVENTS);
    const all = { queueMax: 1000, random: Math.random, WebSocket: globalThis.WebSocket, fetch: globalThis.fetch, ...options };
    checkOptions(all);
    this.#link = new Link(socketUrl(url), all, {
      onStatus: (detail) => this.#onStatus(detail),
      onDown: () => this.#onDown(),
      onWelcome: (message) => this.#onWelcome(message),
      onMessage: (message) => this.#onMessage(message),
      isLevel: () => this.#memberships.isLevel(),
    });
    const emit = (type, detail) => this.#tell(type, detail);
    this.#memberships = new Memberships(this.#link, emit);
    this.#outbox = new Outbox(this.#link, {
      emit,
      isWanted: (name) => this.#memberships.isWanted(name),
      isLive: (name) => this.#memberships.isLive(name),
      queueMax: all.queueMax,
    });
    this.#pages = new Pages(this.#link);
    Object.assign(this.#memberships, { outbox: this.#outbox, pages: this.#pages });
  }

  get status() {
    return this.#link.status;
  }

  get userId() {
    return this.#link.userId;
  }

  get limits() {
    return this.#link.limits;
  }

  /** Connects, and keeps connected until `close` or until the server says to stay away. */
  connect() {
    if (this.status === 'online') return Promise.resolve(this.#welcome);
    this.#ending = null;
    const { promise } = (this.#opening ??= deferred());
    this.#link.connect();
    return promise;
  }

  /** Tries again at once when offline, and makes sure of the connection when online. */
  reconnect() {
    this.#link.reconnect();
  }

  /** Disconnects. Rooms and unsent messages are kept for another `connect`. */
  close() {
    this.#link.close();
  }

  /** The room of this name, joined or not: the same object at each call. */
  room(name) {
    checkName('room', name);
    if (!this.#rooms.has(name)) this.#rooms.set(name, new Room(this, name));
    return this.#rooms.get(name);
  }

  join(name, { history = 0 } = {}) {
    try {
      return this.#memberships.join(this.room(name), history);
    } catch (error) {
      return refused(error);
    }
  }

  leave(name) {
    this.#memberships.leave(name);
  }

  /**
   * Says it as soon as possible, and again with the same id until it is known to have been accepted: on the next connection, after a
   * temporary refusal, and when no answer has come within 15 s.
   */
  say(name, text, data) {
    if (this.#ending) return refused(this.#ending);
    const answer = this.#outbox.add(name, text, data);
    if (answer.id) {
      this.typing(name, false);
      this.#outbox.flush();
    }
    return answer;
  }

  unsent(name) {
    return this.#outbox.unsent(name);
  }

  typing(name, isActive = true) {
    this.#memberships.typing(name, isActive);
  }

  /** A page of older messages. Where the room is not joined at this moment, it fails at once. */
  history(name, { before, limit = 50 } = {}) {
    if (!this.#memberships.isWanted(name)) return refused(new RoomcastError('not_joined', `join ${name} before its history is read`));
    if (!this.#memberships.isLive(name)) return refused(new RoomcastError('offline', 'there is no connection', { temporary: true }));
    return this.#pages.ask(name, before, limit);
  }

  // ---- What the link tells ----

  #tell(type, detail) {
    this.emit(type, detail);
    if (detail.room !== undefined) this.#rooms.get(detail.room)?.emit(type, detail);
  }

  #onStatus(detail) {
    const { status, code, reason, cause } = detail;
    if (status === 'closed') {
      const error = new RoomcastError(cause ?? 'closed', reason || (cause ? `the server has closed the connection (${code})` : 'the client was closed'), { status: code });
      this.#opening?.reject(error);
      this.#opening = null;
      if (cause) {
        this.#ending = error;
        this.#memberships.closed(error);
        this.#outbox.failAll(error);
      }
    }
    this.emit('status', detail);
  }

  #onDown() {
    this.#memberships.disconnected();
    this.#outbox.sendAllAgain();
    this.#pages.failAll('offline', 'the connection was lost');
  }

  #onWelcome(message) {
    this.#welcome = message;
    this.emit('welcome', message);
    this.#opening?.resolve(message);
    this.#opening = null;
    if (this.#link.isOnline) this.#memberships.online();
  }

  #onMessage(message) {
    switch (message.type) {
      case 'joined': return this.#memberships.onJoined(message);
      case 'left': return this.#memberships.onLeft(message);
      case 'chat': return this.#onChat(message);
      case 'ack': return this.#outbox.acknowledge(message.id, message.seq);
      case 'history': return this.#onHistory(message);
      case 'deleted': return this.#memberships.onDeleted(message);
      case 'refreshed': return this.emit('refreshed', { expiresAt: message.expiresAt });
      case 'presence': return this.#memberships.onPresence(message);
      case 'members': return this.#memberships.onMembers(message);
      case 'typing': return this.#memberships.onTyping(message);
      case 'error': return this.#onError(message);
    }
  }

  #owned({ type, ...message }) {
    return { ...message, own: message.userId === this.userId };
  }

  #onChat(wire) {
    const message = this.#owned(wire);
    if (message.own && message.id !== undefined) this.#outbox.acknowledge(message.id, message.seq);
    this.#memberships.onChat(message);
  }

  #onHistory({ room, epoch, id, messages, more }) {
    // The numbers would not be those of the messages that are shown.
    if (this.#memberships.epoch(room) !== epoch) return this.#pages.fail(id, 'stale', 'the numbers of the room have begun anew');
    const found = messages.filter((entry) => entry.type !== 'deleted').map((entry) => this.#owned(entry));
    this.#pages.take(id, { messages: found, more, before: messages[0]?.seq });
  }

  #onError({ type, ...error }) {
    if (error.code === 'removed') return this.#memberships.onRemoved(error);
    if (this.#link.takeError(error)) return this.emit('error', error);
    if (error.code === 'rate_limited') {
      // What the server had accepted, it knows by its id.
      this.#link.slowDown(error.retryAfterMs);
      this.#outbox.sendAllAgain();
      this.#outbox.flush();
    }
    if (this.#pages.takeError(error)) return;
    if (this.#outbox.takeError(error)) return error.code === 'muted' ? this.emit('error', error) : undefined;
    this.#memberships.takeError(error);
    this.emit('error', error);
  }
}

function checkOptions({ userId, name, token, queueMax, WebSocket }) {
  if (userId !== undefined && userId !== '') checkName('user', userId);
  if (!['undefined', 'string'].includes(typeof name)) throw new TypeError(`name is a ${typeof name}; a string is allowed`);
  if (!['undefined', 'string', 'function'].includes(typeof token)) throw new TypeError(`token is a ${typeof token}; a string or a function is allowed`);
  if (!(queueMax >= 1)) throw new TypeError(`queueMax is ${queueMax}; numbers from 1 are allowed`);
  if (typeof WebSocket !== 'function') throw new TypeError('there is no WebSocket here; give a class as the option WebSocket');
}

/** The address of the WebSocket. A mistake is told here, and not by attempts that fail. */
function socketUrl(text) {
  const base = globalThis.location?.href;
  let url;
  try {
    url = new URL(text, base);
  } catch {
    throw new TypeError(`“${text}” is no URL; wss://chat.example/ws is one${base ? '' : ', and without a page it must be whole'}`);
  }
  url.protocol = url.protocol.replace(/^http/, 'ws');
  url.hash = '';
  if (!/^wss?:$/.test(url.protocol)) throw new TypeError(`“${text}” has the scheme ${url.protocol}; ws, wss, http and https are allowed`);
  return url;
}

export { Room, RoomcastError };
