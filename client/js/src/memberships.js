import { RoomcastError, deferred } from './errors.js';
import { Membership } from './membership.js';

const HOLE_MS = 10_000; // how long the server may take to explain a missing seq
const ORPHAN_MS = 10_000; // how long the server may take to answer for a room that it took us out of
const TYPING_RENEW_MS = 3_000;
const TYPING_EXPIRES_MS = 6_000;
const PROVISIONAL_MAX = 10_000; // messages held back in a room until `joined`

/** The rooms that the application wants to be in: joined on every connection, each message once and in order. */
export class Memberships {
  #all = new Map(); // name -> Membership
  #link;
  #emit;
  outbox; // set once it is made
  pages;

  constructor(link, emit) {
    this.#link = link;
    this.#emit = emit;
  }

  isWanted(name) {
    return this.#all.has(name);
  }

  isLive(name) {
    return this.#all.get(name)?.isLive ?? false;
  }

  epoch(name) {
    return this.#all.get(name)?.epoch;
  }

  isLevel() {
    return [...this.#all.values()].every((one) => one.isLive);
  }

  join(room, history) {
    const { name } = room;
    let one = this.#all.get(name);
    if (!one) {
      one = new Membership(room, history);
      this.#all.set(name, one);
      if (this.#link.isOnline) this.#sendJoin(one);
    }
    return one.answer.promise;
  }

  leave(name) {
    if (!this.#all.has(name)) return;
    this.#forget(name, { code: 'left', message: 'the room was left before this was done' });
    if (this.#link.isOnline) this.#link.send({ type: 'leave', room: name, id: this.#link.nextId('leave') });
  }

  typing(name, isActive) {
    const one = this.#all.get(name);
    if (!one?.isLive) return;
    const age = Date.now() - one.typingSentAt;
    if (age < (isActive ? TYPING_RENEW_MS : 0) || (!isActive && age > TYPING_EXPIRES_MS)) return;
    one.typingSentAt = isActive ? Date.now() : -Infinity;
    this.#link.send({ type: 'typing', room: name, status: isActive ? 'start' : 'stop' });
  }

  online() {
    this.outbox.failOrphans({ code: 'left', message: 'the room was left before the server confirmed this' }, true);
    // A listener of `welcome` may have joined rooms already.
    for (const one of this.#all.values()) if (one.joinId === null) this.#sendJoin(one);
  }

  disconnected() {
    for (const one of this.#all.values()) {
      one.disconnected();
      this.#setTyping(one, []);
    }
  }

  /** The connection is closed for good. The rooms stay for another `connect`, and those who wait are told. */
  closed(error) {
    for (const one of this.#all.values()) {
      if (one.epoch !== null) continue;
      one.answer.reject(error);
      one.answer = deferred();
    }
  }

  #sendJoin(one) {
    one.joining(this.#link.nextId('join'));
    const wait = this.#link.paceWait();
    if (wait > 0) return this.#link.timers.set(`join ${one.name}`, wait, () => this.#sendJoin(one));
    const { historyMessages = Infinity } = this.#link.limits;
    const history = Math.min(one.history, historyMessages);
    const since = one.epoch === null ? undefined : { epoch: one.epoch, seq: one.seq };
    this.#link.send({ type: 'join', room: one.name, since, history, id: one.joinId });
  }

  #forget(name, error) {
    const one = this.#all.get(name);
    this.#setTyping(one, []);
    this.#link.timers.clear(`hole ${name}`);
    this.#link.timers.clear(`join ${name}`);
    this.#all.delete(name);
    one.room.isJoined = false;
    this.pages.failAll(error.code, error.message, name);
    // What is on its way already is answered by an `ack` although we have left; `online` ends the wait if it is not.
    this.outbox.failOrphans(error, false);
    one.answer.reject(new RoomcastError(error.code, error.message));
  }

  // ---- Receiving ----

  onJoined({ room: name, id, epoch, seq, recovered, count, users }) {
    const one = this.#all.get(name);
    if (!one) return;
    const asked = one.joinId !== null && id === one.joinId;
    if (!asked && one.joinId !== null) {
      // Without an id it says that what has come for the join so far counts no more; with one it answers a join that we have left since.
      if (id === undefined && recovered === false) one.provisional = [];
      return;
    }
    const resumed = asked && one.epoch !== null;
    const replace = asked ? recovered !== true : recovered === false;
    const after = replace || epoch !== one.epoch ? 0 : one.seq;
    const entries = inOrder(one.provisional ?? [], after);
    const messages = entries.filter((entry) => !entry.seqs);
    const seqs = entries.flatMap((entry) => entry.seqs ?? []);
    if (epoch !== one.epoch) this.pages.failAll('stale', 'the numbers of the room have begun anew', name);
    one.joined(epoch, seq);
    this.#link.timers.clear(`hole ${name}`);
    this.#emit('joined', { room: name, messages, replace, resumed, recovered, epoch, seq });
    if (seqs.length > 0) this.#emit('deleted', { room: name, seqs });
    this.#setMembers(one, { count, users });
    one.answer.resolve(one.room);
    this.#link.checkLevel();
    this.outbox.flush();
  }

  onLeft({ room: name, id }) {
    const one = this.#all.get(name);
    if (!one) return;
    if (id?.startsWith('leave-')) return one.restart(); // ours, and we have joined anew since
    const { code, message } = one.removal ?? { code: 'left', message: 'the server took us out of the room' };
    this.#forget(name, { code, message });
    // What was accepted before has its copy dropped: nothing may come for it.
    this.#link.timers.set('orphans', ORPHAN_MS, () => this.outbox.failOrphans({ code, message }, true));
    this.#emit('left', { room: name, code, message });
  }

  onChat(message) {
    const one = this.#all.get(message.room);
    if (!one) return;
    this.#stopsTyping(one, message.userId);
    this.#take(one, message);
  }

  /** A deletion has a number of its own and names others, or it stands in the place of what is gone. */
  onDeleted({ room: name, seq, deletes = [seq] }) {
    const one = this.#all.get(name);
    if (one) this.#take(one, { seq, seqs: deletes });
  }

  #take(one, entry) {
    const { seq } = entry;
    if (one.provisional) {
      one.provisional.push(entry);
      if (one.provisional.length > PROVISIONAL_MAX) this.#startOver(one);
    } else if (seq === one.seq + 1) {
      one.seq = seq;
      if (entry.seqs) this.#emit('deleted', { room: one.name, seqs: entry.seqs });
      else this.#emit('chat', entry);
    } else if (seq > one.seq) {
      // A hole. The server owes us a `joined` that says what became of the rest; if none comes, we resume from where we stand.
      one.provisional = [entry];
      this.#link.timers.set(`hole ${one.name}`, HOLE_MS, () => this.#link.drop(`messages missing in ${one.name}`));
    }
  }

  onPresence({ type, ...presence }) {
    const one = this.#all.get(presence.room);
    if (!one) return;
    const { userId, name, status } = presence;
    const isOnline = status === 'online';
    if (!isOnline) this.#stopsTyping(one, userId);
    const { users } = one.room;
    this.#emit('presence', presence);
    if (!users) return;
    const others = users.filter((user) => user.userId !== userId);
    const now = isOnline ? [...others, { userId, name }] : others;
    this.#setMembers(one, { count: now.length, users: now });
  }

  onMembers(message) {
    const one = this.#all.get(message.room);
    if (one) this.#setMembers(one, message);
  }

  onTyping({ room: name, userId, status }) {
    const one = this.#all.get(name);
    if (!one || userId === this.#link.userId) return;
    if (status !== 'start') return this.#stopsTyping(one, userId);
    if (!one.typing.includes(userId)) this.#setTyping(one, [...one.typing, userId]);
    this.#link.timers.set(typingTimer(one, userId), TYPING_EXPIRES_MS, () => this.#stopsTyping(one, userId));
  }

  /** `left` follows, and ends all. */
  onRemoved({ room, code, message }) {
    const one = this.#all.get(room);
    if (one) one.removal = { code, message };
  }

  /** Whether an error answers a join: that is tried again later, or given up. */
  takeError({ id, code, message, temporary, retryAfterMs }) {
    const one = id && [...this.#all.values()].find((other) => other.joinId === id);
    if (!one) return;
    if (!temporary) return this.#forget(one.name, { code, message });
    const wait = retryAfterMs ?? this.#link.backoff(one.refusals++);
    this.#link.timers.set(`join ${one.name}`, wait, () => this.#sendJoin(one));
  }

  #startOver(one) {
    one.epoch = null;
    this.#link.drop(`more than ${PROVISIONAL_MAX} messages missed in ${one.name}`);
  }

  #setMembers(one, { count, users }) {
    one.room.count = count;
    one.room.users = users ?? null;
    this.#emit('members', { room: one.name, count, users: users ? [...users] : null });
  }

  #stopsTyping(one, userId) {
    this.#setTyping(one, one.typing.filter((other) => other !== userId));
  }

  #setTyping(one, userIds) {
    for (const gone of one.typing) {
      if (!userIds.includes(gone)) this.#link.timers.clear(typingTimer(one, gone));
    }
    const hasChanged = userIds.length !== one.typing.length;
    one.typing = userIds;
    if (hasChanged) this.#emit('typing', { room: one.name, userIds: [...userIds] });
  }
}

function inOrder(entries, after) {
  let last = after;
  return entries.filter(({ seq }) => {
    if (seq <= last) return false;
    last = seq;
    return true;
  });
}

function typingTimer({ name }, userId) {
  return `typing ${name} ${userId}`; // names hold no spaces, so this is unambiguous
}
