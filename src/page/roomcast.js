// Roomcast's browser client: one classic script, no dependencies, defines `Roomcast`.
//
//   const chat = new Roomcast('wss://chat.example/ws', { userId: 'alice' });
//   chat.on('joined', ({ replace, messages }) => { if (replace) clear(); messages.forEach(show); });
//   chat.on('chat', show);
//   chat.join('lobby', { history: 50 });
//   chat.connect();
//   const id = chat.say('lobby', 'hello');   // 'sent' or 'failed' follows, with this id
//
// Options: userId; token (a string, or a function that gives one or a promise of one, asked before every connection and before
// the last one expires); queueMax (1000). For tests: WebSocket, random.
//
// Events (`on` hands over the detail and returns a function that stops listening):
//   status   {status, retryAt?, code?, reason?}  status: connecting, online, offline (retryAt says until when), closed
//   welcome  the server's message
//   refreshed {expiresAt?}                     a new token has taken the place of the last one
//   joined   {room, messages, replace, resumed, recovered?, epoch, seq}  replace: what was shown before no longer counts
//   left     {room, code, message}             the server took us out of the room (code: removed); it is joined again only if you join it
//   chat     {room, userId, name?, text, data?, id?, ts, seq, own}       in order, without holes, each once
//   sent     {room, id, seq}                   accepted; the 'chat' with the same id may come later, or never after a leave
//   failed   {room, id, text, data, code, message}  given up
//   members  {room, count, users}              users: [{userId, name?}], or null in a room too big to list
//   presence {room, userId, name?, status}
//   typing   {room, userIds}                   the others who are typing now
//   error    the server's message, where it concerns no message of ours, or says that we are muted (code: muted)
(() => {
  'use strict';

  const BACKOFF_MIN_MS = 500;
  const BACKOFF_MAX_MS = 20_000;
  const LEVEL_MS = 30_000; // how long all must be well before the back-off starts afresh
  const WELCOME_MS = 10_000; // from the attempt to `welcome`
  const PONG_MS = 10_000;
  const HOLE_MS = 10_000; // how long the server may take to explain a missing seq
  const ORPHAN_MS = 10_000; // how long the server may take to answer for a room that it took us out of
  const ANSWER_MS = 15_000; // how long the server may take to answer a message before it is sent again
  const REFRESH_EARLY_MS = 60_000; // how long before a token expires a new one is asked for, or a fifth of its time if that is less
  const REFRESH_PAUSE_MS = 30_000; // between two refreshes; the server takes one in 10 s
  const TIMER_MAX_MS = 2 ** 31 - 1; // browsers run timers at once that are longer
  const TOKEN_EXPIRED = 4003;
  const TYPING_RENEW_MS = 3_000;
  const TYPING_EXPIRES_MS = 6_000;
  const REFUSALS_MAX = 20; // temporary errors for one message before it is given up
  const PROVISIONAL_MAX = 10_000; // messages held back in a room until `joined`

  class Roomcast extends EventTarget {
    status = 'closed';
    userId = '';
    limits = {};
    #url;
    #options;
    #socket = null;
    #attempt = 0; // tells a late token or socket from the current one
    #failures = 0; // connections lost since the last level time
    #requests = 0;
    #silenceMs = 55_000;
    #heardAt = 0;
    #refreshId = null; // of the refresh that is not answered yet
    #pacer = new Pacer(0, 0);
    #pausedUntil = 0;
    #rooms = new Map(); // name -> Room: every room that the application wants to be in
    #outgoing = new Map(); // id -> message, in the order of `say`, until acknowledged
    #timers = new Timers();
    #wake = ({ type }) => {
      if (type === 'online' || document.visibilityState === 'visible') this.reconnect();
    };

    constructor(url = '/ws', options = {}) {
      super();
      this.#url = new URL(url, globalThis.location?.href);
      this.#url.protocol = this.#url.protocol.replace(/^http/, 'ws');
      this.#options = { queueMax: 1000, random: Math.random, WebSocket: globalThis.WebSocket, ...options };
      if (options.userId) {
        requireName('user', options.userId);
        this.userId = options.userId;
      }
    }

    /** What is wrong with a room or user name, as a sentence; '' if nothing. */
    static nameProblem(name) {
      if (name === '') return 'A name needs at least one character.';
      const bytes = byteLength(name);
      if (bytes > 128) return `That name has ${bytes} bytes; 128 are allowed.`;
      const foreign = name.match(/[^\p{Alphabetic}\p{N}\-_.:@~+#=/]/u);
      return foreign ? `“${foreign[0]}” is not allowed in a name: use letters, digits and - _ . : @ ~ + # = /` : '';
    }

    on(type, listener) {
      const forward = (event) => listener(event.detail);
      this.addEventListener(type, forward);
      return () => this.removeEventListener(type, forward);
    }

    /** Connects, and keeps connected until `close` or until the server says to stay away. */
    connect() {
      if (this.#socket || this.status === 'connecting') return;
      globalThis.addEventListener?.('online', this.#wake);
      globalThis.document?.addEventListener('visibilitychange', this.#wake);
      this.#setStatus('connecting');
      const attempt = ++this.#attempt;
      this.#timers.set('welcome', WELCOME_MS, () => this.#drop('no welcome'));
      if (!this.#asksForTokens) return this.#open(this.#options.token);
      this.#askForToken().then(
        (value) => { if (attempt === this.#attempt) this.#open(value); },
        (error) => { if (attempt === this.#attempt) this.#lost(0, `no token: ${error.message}`); },
      );
    }

    /** Tries again at once when offline, and makes sure of the connection when online. */
    reconnect() {
      if (this.status === 'offline') this.connect();
      else if (this.status === 'online') this.#probe();
    }

    /** Disconnects. Rooms and unsent messages are kept for another `connect`. */
    close() {
      const socket = this.#socket;
      this.#disconnected();
      socket?.close(1000);
      this.#stayClosed({});
    }

    join(name, { history = 0 } = {}) {
      requireName('room', name);
      if (this.#rooms.has(name)) return;
      const room = new Room(name, history);
      this.#rooms.set(name, room);
      if (this.status === 'online') this.#sendJoin(room);
    }

    leave(name) {
      if (!this.#rooms.has(name)) return;
      this.#forget(name, 'left', 'the room was left before this was sent');
      if (this.status === 'online') this.#send({ type: 'leave', room: name, id: `leave-${++this.#requests}` });
    }

    /**
     * Says it as soon as possible, and again with the same id until it is known to have been accepted: on the next connection, after a
     * temporary refusal, and when no answer has come within 15 s.
     */
    say(name, text, data) {
      if (!this.#rooms.has(name)) throw failure('not_joined', `join ${name} before speaking there`);
      if (typeof text !== 'string' || text === '') throw failure('bad_message', 'text must be a string and not empty');
      const { queueMax } = this.#options;
      if (this.#outgoing.size >= queueMax) throw failure('queue_full', `${queueMax} messages are waiting to be sent already`);
      const id = randomId();
      // A lone surrogate is no Unicode, and no server can read it as JSON.
      const message = { type: 'chat', room: name, text: text.toWellFormed(), data, id };
      const problem = this.#sizeProblem(message);
      if (problem) throw failure('too_large', problem);
      this.typing(name, false);
      this.#outgoing.set(id, { message, sent: false, refusals: 0 });
      this.#flush();
      return id;
    }

    /** The messages that are not acknowledged yet: [{room, id, text, data}]. */
    unsent(name) {
      return [...this.#outgoing.values()].map(({ message }) => message).filter(({ room }) => room === name)
        .map(({ room, id, text, data }) => ({ room, id, text, data }));
    }

    /** Call it at every key stroke, and with `false` when the text has been cleared. */
    typing(name, active = true) {
      const room = this.#rooms.get(name);
      if (!room?.live) return;
      const age = Date.now() - room.typingSentAt;
      if (age < (active ? TYPING_RENEW_MS : 0) || (!active && age > TYPING_EXPIRES_MS)) return;
      room.typingSentAt = active ? Date.now() : -Infinity;
      this.#send({ type: 'typing', room: name, status: active ? 'start' : 'stop' });
    }

    // ---- The connection ----

    #open(token) {
      const url = new URL(this.#url);
      // With a token it is the token that says who we are.
      if (this.userId && !token) url.searchParams.set('userId', this.userId);
      const protocols = token ? ['roomcast.v1', `roomcast.token.${token}`] : ['roomcast.v1'];
      const socket = new this.#options.WebSocket(url.href, protocols);
      this.#socket = socket;
      socket.onmessage = ({ data }) => { if (socket === this.#socket) this.#receive(data); };
      socket.onclose = ({ code, reason }) => { if (socket === this.#socket) this.#lost(code, reason); };
    }

    /** Gives up a connection that is silent. Its `close` event may take minutes, so it is not waited for. */
    #drop(reason) {
      const socket = this.#socket;
      this.#lost(0, reason);
      socket?.close();
    }

    #lost(code, reason) {
      this.#disconnected();
      // A token that is always the same will not become good again.
      const isHopeless = code === TOKEN_EXPIRED && this.#options.token && !this.#asksForTokens;
      if (isHopeless || (code >= 4500 && code <= 4999)) return this.#stayClosed({ code, reason });
      const delay = backoff(this.#failures++, this.#options.random);
      this.#timers.set('retry', delay, () => this.connect());
      this.#setStatus('offline', { code, reason, retryAt: Date.now() + delay });
    }

    #disconnected() {
      this.#socket = null;
      this.#refreshId = null;
      this.#attempt++;
      this.#timers.clearAll();
      for (const room of this.#rooms.values()) {
        room.disconnected();
        this.#setTyping(room, []);
      }
      this.#sendAllAgain();
    }

    #stayClosed(detail) {
      globalThis.removeEventListener?.('online', this.#wake);
      globalThis.document?.removeEventListener('visibilitychange', this.#wake);
      this.#setStatus('closed', detail);
    }

    #setStatus(status, detail = {}) {
      this.status = status;
      this.#emit('status', { status, ...detail });
    }

    #emit(type, detail) {
      this.dispatchEvent(new CustomEvent(type, { detail }));
    }

    // ---- Tokens ----

    get #asksForTokens() {
      return typeof this.#options.token === 'function';
    }

    #askForToken() {
      return Promise.resolve().then(this.#options.token);
    }

    /** A new token is brought before the last one expires, so that the connection stays. */
    #planRefresh(expiresAt, pause) {
      if (expiresAt === undefined || !this.#asksForTokens) return;
      const left = expiresAt - Date.now();
      const wait = Math.max(pause, left - Math.min(REFRESH_EARLY_MS, left / 5));
      if (wait > TIMER_MAX_MS) return this.#timers.set('refresh', TIMER_MAX_MS, () => this.#planRefresh(expiresAt, 0));
      this.#timers.set('refresh', wait, () => this.#refresh());
    }

    #refresh() {
      const attempt = this.#attempt;
      const again = () => { if (attempt === this.#attempt) this.#refreshLater(REFRESH_PAUSE_MS); };
      this.#askForToken().then((token) => {
        if (attempt !== this.#attempt) return;
        this.#refreshId = `refresh-${++this.#requests}`;
        this.#send({ type: 'refresh', token, id: this.#refreshId });
      }).catch(again);
    }

    #refreshLater(wait) {
      this.#refreshId = null;
      this.#timers.set('refresh', wait, () => this.#refresh());
    }

    // ---- Silence ----

    #watch() {
      const check = () => (Date.now() - this.#heardAt < this.#silenceMs ? this.#watch() : this.#probe());
      this.#timers.set('silence', this.#heardAt + this.#silenceMs - Date.now(), check);
    }

    #probe() {
      if (this.#timers.has('pong')) return;
      this.#send({ type: 'ping' });
      this.#timers.set('pong', PONG_MS, () => this.#drop('no answer'));
    }

    #heard() {
      this.#heardAt = Date.now();
      if (!this.#timers.has('pong')) return;
      this.#timers.clear('pong');
      this.#watch();
    }

    /** Being welcomed is not enough to start the back-off afresh: a server in trouble welcomes, and fails a second later. */
    #checkLevel() {
      if (this.#timers.has('level') || ![...this.#rooms.values()].every((room) => room.live)) return;
      this.#timers.set('level', LEVEL_MS, () => { this.#failures = 0; });
    }

    // ---- Sending ----

    #send(message) {
      this.#pacer.charge(Date.now());
      this.#socket.send(JSON.stringify(message));
    }

    #sendJoin(room) {
      room.joining(`join-${++this.#requests}`);
      const wait = this.#pacer.wait(Date.now());
      if (wait > 0) return this.#timers.set(`join ${room.name}`, wait, () => this.#sendJoin(room));
      const { historyMessages = Infinity } = this.limits;
      const history = Math.min(room.history, historyMessages);
      const since = room.epoch === null ? undefined : { epoch: room.epoch, seq: room.seq };
      this.#send({ type: 'join', room: room.name, since, history, id: room.joinId });
    }

    /** Messages wait for `joined`: what an earlier connection got through has been acknowledged by its copy by then. */
    #flush() {
      if (this.status !== 'online') return;
      for (const entry of [...this.#outgoing.values()]) {
        if (entry.sent || !this.#rooms.get(entry.message.room)?.live) continue;
        const now = Date.now();
        const wait = Math.max(this.#pausedUntil - now, this.#pacer.wait(now));
        if (wait > 0) return this.#timers.set('flush', wait, () => this.#flush());
        const problem = this.#sizeProblem(entry.message);
        if (problem) {
          this.#fail(entry, 'too_large', problem);
        } else {
          entry.sent = true;
          entry.sentAt = now;
          this.#send(entry.message);
          this.#awaitAnswers();
        }
      }
    }

    /** An answer can be lost on the server's side only, so a message that gets none is sent again; the server knows it by its id. */
    #awaitAnswers() {
      if (!this.#timers.has('answers')) this.#timers.set('answers', ANSWER_MS, () => this.#repeatUnanswered());
    }

    #repeatUnanswered() {
      const now = Date.now();
      const sent = [...this.#outgoing.values()].filter((entry) => entry.sent && this.#rooms.has(entry.message.room));
      for (const entry of sent) {
        if (now - entry.sentAt >= ANSWER_MS) entry.sent = false;
      }
      const waiting = sent.filter((entry) => entry.sent);
      if (waiting.length > 0) {
        const oldest = Math.min(...waiting.map((entry) => entry.sentAt));
        this.#timers.set('answers', oldest + ANSWER_MS - now, () => this.#repeatUnanswered());
      }
      this.#flush();
    }

    /** All messages wait, not only the refused one: the next would be refused too, and would overtake it if not. */
    #pause(ms) {
      this.#pausedUntil = Math.max(this.#pausedUntil, Date.now() + ms);
      this.#flush();
    }

    /** Checked here because the server closes the connection (1009) on a frame over its bound, and would do so at every attempt. */
    #sizeProblem(message) {
      const { messageBytes = Infinity, dataBytes = Infinity } = this.limits;
      const bytes = byteLength(JSON.stringify(message));
      if (bytes > messageBytes) return `the message has ${bytes} bytes, ${messageBytes} are allowed`;
      const extra = message.data === undefined ? 0 : byteLength(JSON.stringify(message.data));
      return extra > dataBytes ? `data has ${extra} bytes, ${dataBytes} are allowed` : '';
    }

    #sendAllAgain() {
      for (const entry of this.#outgoing.values()) entry.sent = false;
    }

    #acknowledge(id, seq) {
      const entry = this.#outgoing.get(id);
      if (!entry) return;
      this.#outgoing.delete(id);
      this.#emit('sent', { room: entry.message.room, id, seq });
    }

    #fail({ message: { room, id, text, data } }, code, message) {
      this.#outgoing.delete(id);
      this.#emit('failed', { room, id, text, data, code, message });
    }

    #forget(name, code, message) {
      const room = this.#rooms.get(name);
      this.#setTyping(room, []);
      this.#timers.clear(`hole ${name}`);
      this.#timers.clear(`join ${name}`);
      this.#rooms.delete(name);
      // What is on its way already is answered by an `ack` although we have left; `#onWelcome` ends the wait if it is not.
      this.#failOrphans((entry) => !entry.sent, code, message);
    }

    #failOrphans(which, code, message) {
      for (const entry of [...this.#outgoing.values()]) {
        if (!this.#rooms.has(entry.message.room) && which(entry)) this.#fail(entry, code, message);
      }
    }

    // ---- Receiving ----

    #receive(data) {
      this.#heard();
      const message = JSON.parse(data);
      switch (message.type) {
        case 'welcome': return this.#onWelcome(message);
        case 'joined': return this.#onJoined(message);
        case 'left': return this.#onLeft(message);
        case 'chat': return this.#onChat(message);
        case 'ack': return this.#acknowledge(message.id, message.seq);
        case 'refreshed': return this.#onRefreshed(message);
        case 'presence': return this.#onPresence(message);
        case 'members': return this.#setMembers(this.#rooms.get(message.room), message);
        case 'typing': return this.#onTyping(message);
        case 'error': return this.#onError(message);
      }
    }

    #onWelcome(message) {
      const { userId, pingInterval = 25_000, expiresAt, limits = {} } = message;
      this.#timers.clear('welcome');
      this.userId = userId;
      this.limits = limits;
      this.#silenceMs = 2 * pingInterval + 5_000;
      this.#pacer = new Pacer(limits.messageRate ?? 0, limits.messageBurst ?? 0);
      this.#pausedUntil = 0;
      this.#setStatus('online');
      this.#emit('welcome', message);
      this.#watch();
      this.#planRefresh(expiresAt, 0);
      this.#failOrphans(() => true, 'left', 'the room was left before the server confirmed this');
      for (const room of this.#rooms.values()) this.#sendJoin(room);
      this.#checkLevel();
    }

    #onRefreshed({ expiresAt }) {
      this.#refreshId = null;
      this.#planRefresh(expiresAt, REFRESH_PAUSE_MS);
      this.#emit('refreshed', { expiresAt });
    }

    #onJoined({ room: name, id, epoch, seq, recovered, count, users }) {
      const room = this.#rooms.get(name);
      if (!room) return;
      const asked = room.joinId !== null && id === room.joinId;
      if (!asked && room.joinId !== null) {
        // Without an id it says that what has come for the join so far counts no more; with one it answers a join that we have left since.
        if (id === undefined && recovered === false) room.provisional = [];
        return;
      }
      const resumed = asked && room.epoch !== null;
      const replace = asked ? recovered !== true : recovered === false;
      const after = replace || epoch !== room.epoch ? 0 : room.seq;
      const messages = inOrder(room.provisional ?? [], after);
      room.joined(epoch, seq);
      this.#timers.clear(`hole ${name}`);
      this.#emit('joined', { room: name, messages, replace, resumed, recovered, epoch, seq });
      this.#setMembers(room, { count, users });
      this.#checkLevel();
      this.#flush();
    }

    #onLeft({ room: name, id }) {
      const room = this.#rooms.get(name);
      if (!room) return;
      if (id?.startsWith('leave-')) return room.restart(); // ours, and we have joined anew since
      const { code, message } = room.removal ?? { code: 'left', message: 'the server took us out of the room' };
      this.#forget(name, code, message);
      // What was accepted before has its copy dropped: nothing may come for it.
      this.#timers.set('orphans', ORPHAN_MS, () => this.#failOrphans(() => true, code, message));
      this.#emit('left', { room: name, code, message });
    }

    #onChat({ type, ...message }) {
      const { room: name, userId, id, seq } = message;
      message.own = userId === this.userId;
      if (message.own && id !== undefined) this.#acknowledge(id, seq);
      const room = this.#rooms.get(name);
      if (!room) return;
      this.#stopsTyping(room, userId);
      if (room.provisional) {
        room.provisional.push(message);
        if (room.provisional.length > PROVISIONAL_MAX) this.#startOver(room);
      } else if (seq === room.seq + 1) {
        room.seq = seq;
        this.#emit('chat', message);
      } else if (seq > room.seq) {
        // A hole. The server owes us a `joined` that says what became of the rest; if none comes, we resume from where we stand.
        room.provisional = [message];
        this.#timers.set(`hole ${name}`, HOLE_MS, () => this.#drop(`messages missing in ${name}`));
      }
    }

    #startOver(room) {
      room.epoch = null;
      this.#drop(`more than ${PROVISIONAL_MAX} messages missed in ${room.name}`);
    }

    #onPresence({ type, ...presence }) {
      const room = this.#rooms.get(presence.room);
      if (!room) return;
      const { userId, name, status } = presence;
      const online = status === 'online';
      if (!online) this.#stopsTyping(room, userId);
      if (room.users) {
        if (online) room.users.set(userId, { userId, name });
        else room.users.delete(userId);
      }
      this.#emit('presence', presence);
      if (room.users) this.#setMembers(room, { count: room.users.size, users: [...room.users.values()] });
    }

    #setMembers(room, { count, users }) {
      if (!room) return;
      room.users = users ? new Map(users.map((user) => [user.userId, user])) : null;
      this.#emit('members', { room: room.name, count, users: users ?? null });
    }

    #onTyping({ room: name, userId, status }) {
      const room = this.#rooms.get(name);
      if (!room || userId === this.userId) return;
      if (status !== 'start') return this.#stopsTyping(room, userId);
      if (!room.typing.includes(userId)) this.#setTyping(room, [...room.typing, userId]);
      this.#timers.set(typingTimer(room, userId), TYPING_EXPIRES_MS, () => this.#stopsTyping(room, userId));
    }

    #stopsTyping(room, userId) {
      this.#setTyping(room, room.typing.filter((other) => other !== userId));
    }

    #setTyping(room, userIds) {
      for (const gone of room.typing) {
        if (!userIds.includes(gone)) this.#timers.clear(typingTimer(room, gone));
      }
      const changed = userIds.length !== room.typing.length;
      room.typing = userIds;
      if (changed) this.#emit('typing', { room: room.name, userIds: [...userIds] });
    }

    #onError({ type, ...error }) {
      const { code, message, temporary, id, retryAfterMs } = error;
      if (code === 'removed') {
        const out = this.#rooms.get(error.room);
        if (out) out.removal = { code, message }; // `left` follows, and ends all
        return;
      }
      if (id !== undefined && id === this.#refreshId) {
        // The last token goes on; the server ends the connection if no other one comes in time.
        this.#refreshLater(Math.max(REFRESH_PAUSE_MS, retryAfterMs ?? 0));
        return this.#emit('error', error);
      }
      if (code === 'rate_limited') {
        // The server tells of one refusal a second and drops the rest in silence. What it had accepted, it knows by its id.
        this.#pacer.empty(Date.now());
        this.#sendAllAgain();
        this.#pause(retryAfterMs ?? BACKOFF_MIN_MS);
      }
      const entry = this.#outgoing.get(id);
      const room = id && [...this.#rooms.values()].find((one) => one.joinId === id);
      if (entry) {
        entry.sent = false;
        if (code === 'muted') {
          // It may pass some time. The message does not wait for that, nor do those in other rooms.
          this.#fail(entry, code, message);
          return this.#emit('error', error);
        }
        if (!temporary || ++entry.refusals > REFUSALS_MAX) return this.#fail(entry, code, message);
        return this.#pause(retryAfterMs ?? backoff(entry.refusals - 1, this.#options.random));
      }
      if (room && temporary) {
        const wait = retryAfterMs ?? backoff(room.refusals++, this.#options.random);
        this.#timers.set(`join ${room.name}`, wait, () => this.#sendJoin(room));
      } else if (room) {
        this.#forget(room.name, code, message);
      }
      this.#emit('error', error);
    }
  }

  class Room {
    epoch = null; // null until the first `joined`
    seq = 0; // of the last message handed to the application
    live = false; // `joined` has come on this connection
    joinId = null; // of the join that is not answered yet
    provisional = null; // messages of which only `joined` will tell whether they follow what we have
    refusals = 0;
    removal = null; // why the server is about to take us out
    users = null; // Map of userId, or null where the server does not list them
    typing = [];
    typingSentAt = -Infinity;

    constructor(name, history) {
      this.name = name;
      this.history = history;
    }

    joining(joinId) {
      this.joinId = joinId;
      this.provisional = [];
    }

    joined(epoch, seq) {
      Object.assign(this, { epoch, seq, live: true, joinId: null, provisional: null, refusals: 0 });
    }

    /** What came so far belongs to an earlier stay in the room. */
    restart() {
      if (this.joinId !== null) this.provisional = [];
    }

    disconnected() {
      Object.assign(this, { live: false, joinId: null, provisional: null, typingSentAt: -Infinity });
    }
  }

  /** A token bucket somewhat smaller than the server's, which closes connections that flood (4501). A rate of 0 does not limit. */
  class Pacer {
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

  /** Timers by name: setting one replaces it, and one that has run is gone. */
  class Timers {
    #handles = new Map();

    set(name, ms, run) {
      this.clear(name);
      this.#handles.set(name, setTimeout(() => { this.#handles.delete(name); run(); }, ms));
    }

    has(name) {
      return this.#handles.has(name);
    }

    clear(name) {
      clearTimeout(this.#handles.get(name));
      this.#handles.delete(name);
    }

    clearAll() {
      for (const name of [...this.#handles.keys()]) this.clear(name);
    }
  }

  /** Full jitter: a crowd that lost its server together must not come back together. */
  function backoff(failures, random) {
    const spread = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** failures);
    return Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS + random() * spread);
  }

  function inOrder(messages, after) {
    let last = after;
    return messages.filter(({ seq }) => {
      if (seq <= last) return false;
      last = seq;
      return true;
    });
  }

  function typingTimer(room, userId) {
    return `typing ${room.name} ${userId}`; // names hold no spaces, so this is unambiguous
  }

  /** `randomUUID` is missing where a page comes by plain HTTP from another machine; the numbers are not. */
  function randomId() {
    if (crypto.randomUUID) return crypto.randomUUID();
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
  }

  function byteLength(text) {
    return new TextEncoder().encode(text).length;
  }

  function requireName(kind, name) {
    const problem = Roomcast.nameProblem(name);
    if (problem) throw failure('bad_name', `${kind} name: ${problem}`);
  }

  function failure(code, message) {
    return Object.assign(new Error(message), { code });
  }

  globalThis.Roomcast = Roomcast;
})();
