// What the tests of the client stand on: a WebSocket that the test plays, a clock that it turns, answers to `fetch` that it gives.
import assert from 'node:assert/strict';
import { mock } from 'node:test';
import { Roomcast } from '../../client/js/src/index.js';

/** The sockets that clients have opened, the newest last. */
export const sockets = [];

export class FakeSocket {
  sent = [];
  closed = false;
  constructor(url, protocols) {
    Object.assign(this, { url: new URL(url), protocols });
    sockets.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  close() { this.closed = true; }
  // What the test does on the server's behalf:
  says(message) { this.onmessage({ data: JSON.stringify(message) }); }
  drops(code = 1006, reason = '') { this.onclose({ code, reason }); }
  last(type) { return this.sent.findLast((message) => message.type === type); }
  all(type) { return this.sent.filter((message) => message.type === type); }
  opens() { this.onopen?.({}); }
  welcome(limits = {}) { this.says({ type: 'welcome', userId: 'guest-1', pingInterval: 25_000, limits }); }
  joined(fields = {}) { this.says({ type: 'joined', room: 'lobby', id: this.last('join').id, epoch: 'e1', seq: 0, count: 0, users: [], ...fields }); }
  chat(seq, fields = {}) { this.says({ type: 'chat', room: 'lobby', userId: 'bob', text: `m${seq}`, ts: 1, seq, ...fields }); }
}

export function client(options = {}) {
  const chat = new Roomcast('https://chat.example/ws', { WebSocket: FakeSocket, random: () => 0.5, fetch: null, ...options });
  const events = [];
  for (const type of ['status', 'joined', 'chat', 'sent', 'failed', 'members', 'presence', 'typing', 'left', 'deleted', 'refreshed', 'error']) {
    chat.on(type, (detail) => events.push({ type, ...detail }));
  }
  events.of = (type) => events.filter((event) => event.type === type);
  return { chat, events };
}

/** What the client gets when it asks why a handshake failed; `answers.asked` keeps the questions. */
export function answers(status, text, headers = {}) {
  answers.asked = [];
  return async (url, { headers: sent }) => {
    answers.asked.push({ url, ...sent });
    return new Response(`${text}\n`, { status, headers: { 'Content-Type': 'text/plain; charset=utf-8', ...headers } });
  };
}

/** A client that is online and live in `lobby`, with a socket to play on. */
export function live(options = {}, { limits, seq = 0 } = {}) {
  const { chat, events } = client(options);
  chat.join('lobby', { history: 50 });
  chat.connect();
  const socket = sockets.at(-1);
  socket.welcome(limits);
  socket.joined({ seq });
  return { chat, events, socket };
}

export function comeBack(socket, code = 1006) {
  socket.drops(code);
  mock.timers.tick(20_000);
  assert.notEqual(sockets.at(-1), socket, 'a new attempt within 20 s');
  return sockets.at(-1);
}

/** Takes back what an earlier test has left. */
export function startAfresh() {
  sockets.length = 0;
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_700_000_000_000 });
}

/** Lets promises that are ready go on. */
export async function settled() {
  for (let round = 0; round < 5; round++) await new Promise(setImmediate);
}
