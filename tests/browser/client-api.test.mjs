// What calls of the client give back, the rooms, the pages of history, and why a handshake failed.
import assert from 'node:assert/strict';
import { beforeEach, mock, test } from 'node:test';
import { Roomcast, RoomcastError } from '../../client/js/src/index.js';
import { answers, client, comeBack, live, settled, sockets, startAfresh } from './fake-server.mjs';

beforeEach(startAfresh);

/** What has become of a promise so far. */
async function outcome(promise) {
  const found = { state: 'pending' };
  promise.then((value) => Object.assign(found, { state: 'resolved', value }), (error) => Object.assign(found, { state: 'rejected', code: error.code, error }));
  await settled();
  return found;
}

test('connect() resolves once online, over failed attempts, and at once when online', async () => {
  const { chat } = client();
  const first = chat.connect();
  sockets[0].drops();
  mock.timers.tick(1000);
  assert.equal((await outcome(first)).state, 'pending');
  assert.equal(chat.connect(), first);
  sockets[1].welcome({ messageRate: 50 });
  assert.equal((await first).userId, 'guest-1');
  assert.equal((await chat.connect()).limits.messageRate, 50);
});

test('connect() fails when the client is closed, or closed for good', async () => {
  const { chat } = client();
  const first = chat.connect();
  chat.close();
  assert.equal((await outcome(first)).code, 'closed');
  const second = chat.connect();
  sockets[1].drops(4503, 'contempt');
  const { code, error } = await outcome(second);
  assert.ok(error instanceof RoomcastError);
  assert.deepEqual([code, error.message, error.status], ['banned', 'contempt', 4503]);
});

test('a failure that nobody awaits is not reported as unhandled', async (t) => {
  const unhandled = t.mock.fn();
  process.on('unhandledRejection', unhandled);
  t.after(() => process.off('unhandledRejection', unhandled));
  const { chat, socket } = live();
  chat.say('nowhere', 'hello');
  chat.say('lobby', 'hello');
  chat.join('a b');
  chat.join('hall');
  chat.history('lobby');
  socket.drops(4503);
  await settled();
  assert.equal(unhandled.mock.callCount(), 0);
});

test('join() resolves with the room when it is joined, and fails when it is refused, left or closed for good', async () => {
  const { chat, socket } = live();
  const hall = chat.join('hall');
  assert.equal(chat.join('hall'), hall, 'one join');
  assert.equal((await outcome(hall)).state, 'pending');
  socket.joined({ room: 'hall', id: socket.last('join').id });
  assert.equal(await hall, chat.room('hall'));
  assert.equal(await chat.join('hall'), chat.room('hall'));

  const refused = chat.join('secret');
  socket.says({ type: 'error', code: 'forbidden', message: 'no', temporary: false, room: 'secret', id: socket.last('join').id });
  assert.equal((await outcome(refused)).code, 'forbidden');
  const left = chat.join('cellar');
  chat.leave('cellar');
  assert.equal((await outcome(left)).code, 'left');
  const hopeless = chat.join('attic');
  socket.drops(4503, 'banned');
  assert.equal((await outcome(hopeless)).code, 'banned');
  chat.connect();
  sockets.at(-1).welcome();
  assert.deepEqual(sockets.at(-1).all('join').map(({ room }) => room), ['lobby', 'hall', 'attic'], 'the rooms are kept');
  sockets.at(-1).joined({ room: 'attic' });
  assert.equal(await chat.join('attic'), chat.room('attic'));
});

test('a room that is joined by a listener of welcome is joined once', async () => {
  const { chat } = client();
  chat.on('welcome', () => chat.join('hall'));
  chat.connect();
  sockets[0].welcome();
  await settled();
  assert.equal(sockets[0].sent.filter((message) => message.type === 'join').length, 1);
});

test('a room has its own events, is the same object for ever, and knows who is there', async () => {
  const { chat, socket } = live();
  const [lobby, hall] = [chat.room('lobby'), chat.room('hall')];
  const heard = [];
  for (const type of ['joined', 'left', 'chat', 'sent', 'deleted', 'members']) {
    lobby.on(type, (detail) => heard.push(`lobby ${type} ${detail.room}`));
    hall.on(type, (detail) => heard.push(`hall ${type} ${detail.room}`));
  }
  hall.join();
  socket.joined({ room: 'hall', users: [{ userId: 'bob' }], count: 1 });
  socket.chat(1);
  socket.chat(1, { room: 'hall' });
  assert.deepEqual(heard, ['hall joined hall', 'hall members hall', 'lobby chat lobby', 'hall chat hall']);
  assert.deepEqual([hall.isJoined, hall.count, hall.users], [true, 1, [{ userId: 'bob' }]]);
  socket.drops();
  assert.equal(hall.isJoined, false);
  lobby.leave();
  assert.throws(() => lobby.on('welcome', () => {}), TypeError);
  assert.equal(chat.room('lobby'), lobby);
});

test('say() resolves with the seq, and rejects with the code of the protocol', async () => {
  const { chat, socket } = live();
  const [first, second, third] = ['a', 'b', 'c'].map((text) => chat.room('lobby').say(text));
  socket.chat(1, { userId: 'guest-1', id: first.id });
  assert.deepEqual(await first, { id: first.id, seq: 1 });
  socket.says({ type: 'ack', room: 'lobby', id: second.id, seq: 2, duplicate: true });
  assert.deepEqual(await second, { id: second.id, seq: 2 });
  socket.says({ type: 'error', code: 'muted', message: 'muted: too loud', temporary: true, room: 'lobby', id: third.id, retryAfterMs: 500 });
  const { error } = await outcome(third);
  assert.deepEqual([error.code, error.message, error.retryAfterMs, error.id], ['muted', 'muted: too loud', 500, third.id]);
  assert.equal(chat.say('lobby', '').id, undefined);
});

test('after the end for good nothing waits for ever: what was said has failed, and saying fails at once, until connect()', async () => {
  const { chat, events, socket } = live();
  const waiting = chat.say('lobby', 'hello');
  socket.drops(4503, 'contempt');
  assert.equal((await outcome(waiting)).code, 'banned');
  assert.deepEqual(events.of('failed').map(({ code, text }) => [code, text]), [['banned', 'hello']]);
  await assert.rejects(chat.say('lobby', 'again'), { code: 'banned', message: 'contempt' });
  chat.connect();
  assert.ok(chat.say('lobby', 'waits').id);
  chat.close();
  assert.equal(chat.unsent('lobby').length, 1, 'our own close() keeps it');
});

// ---- Pages of history ----

test('history() asks for a page, and gives it without deleted messages and with the place of the next', async () => {
  const { chat, socket } = live({}, { seq: 9 });
  const page = chat.room('lobby').history({ before: 9, limit: 3 });
  const { id, ...asked } = socket.last('history');
  assert.deepEqual(asked, { type: 'history', room: 'lobby', before: 9, limit: 3 });
  const chats = [7, 8].map((seq) => ({ type: 'chat', room: 'lobby', userId: seq === 7 ? 'guest-1' : 'bob', text: `m${seq}`, ts: 1, seq }));
  socket.says({ type: 'history', room: 'lobby', epoch: 'e1', messages: [{ type: 'deleted', room: 'lobby', seq: 6 }, ...chats], more: true, id });
  const { messages, more, before } = await page;
  assert.deepEqual([messages.map(({ seq, own, type }) => [seq, own, type]), more, before], [[[7, true, undefined], [8, false, undefined]], true, 6]);
});

test('pages are asked for one after the other, and one of another epoch is dropped', async () => {
  const { chat, socket } = live({}, { seq: 9 });
  const [first, second, third] = [9, 5, 2].map((before) => chat.history('lobby', { before }));
  const answer = (epoch) => socket.says({ type: 'history', room: 'lobby', epoch, messages: [], more: false, id: socket.last('history').id });
  assert.deepEqual(socket.all('history').map(({ before }) => before), [9]);
  answer('e1');
  assert.deepEqual(await first, { messages: [], more: false, before: undefined });
  assert.deepEqual(socket.all('history').map(({ before }) => before), [9, 5]);
  answer('e2');
  assert.equal((await outcome(second)).code, 'stale');
  mock.timers.tick(15_000);
  assert.equal((await outcome(third)).code, 'timeout');
  assert.equal(socket.all('history').length, 3);
});

test('history() fails with the code of the server, also with that of one too old for it', async () => {
  const { chat, events, socket } = live();
  for (const code of ['unknown_type', 'forbidden', 'rate_limited']) {
    const page = chat.history('lobby');
    socket.says({ type: 'error', code, message: 'no', temporary: code === 'rate_limited', id: socket.last('history').id });
    assert.equal((await outcome(page)).code, code);
  }
  assert.equal(events.of('error').length, 0);
});

test('history() fails where the room is not joined, without a connection, without an answer, and in a new epoch', async () => {
  const { chat, socket } = live();
  await assert.rejects(chat.history('hall'), { code: 'not_joined' });
  const late = chat.history('lobby');
  mock.timers.tick(14_999);
  assert.equal((await outcome(late)).state, 'pending');
  mock.timers.tick(1);
  assert.equal((await outcome(late)).code, 'timeout');
  const stale = chat.history('lobby');
  socket.joined({ id: undefined, epoch: 'e2', recovered: false });
  assert.equal((await outcome(stale)).code, 'stale');
  const left = chat.history('lobby');
  const many = Array.from({ length: 16 }, () => chat.history('lobby')); // one too many
  assert.equal((await outcome(many.at(-1))).code, 'queue_full');
  chat.leave('lobby');
  assert.equal((await outcome(left)).code, 'left');
  chat.join('lobby');
  await assert.rejects(chat.history('lobby'), { code: 'offline' });
  socket.joined();
  const lost = chat.history('lobby');
  socket.drops();
  assert.equal((await outcome(lost)).code, 'offline');
});

// ---- Deletions ----

test('a deletion takes its place in the order, and names what is gone', () => {
  const { events, socket } = live({}, { seq: 5 });
  socket.chat(6);
  socket.says({ type: 'deleted', room: 'lobby', deletes: [2, 6], ts: 1, seq: 7 });
  socket.chat(8);
  assert.deepEqual(events.of('deleted'), [{ type: 'deleted', room: 'lobby', seqs: [2, 6] }]);
  assert.deepEqual(events.of('chat').map(({ seq }) => seq), [6, 8], 'no hole at 7');
  socket.says({ type: 'deleted', room: 'lobby', deletes: [6], ts: 1, seq: 7 });
  assert.equal(events.of('deleted').length, 1, 'each once');
  const next = comeBack(socket);
  next.welcome();
  assert.equal(next.last('join').since.seq, 8);
  next.chat(9);
  next.says({ type: 'deleted', room: 'lobby', seq: 10 });
  next.says({ type: 'deleted', room: 'lobby', deletes: [8], ts: 1, seq: 11 });
  next.joined({ seq: 11, recovered: true });
  assert.deepEqual(events.slice(-3).map(({ type }) => type), ['joined', 'deleted', 'members']);
  assert.deepEqual([events.of('joined').at(-1).messages.map(({ seq }) => seq), events.of('deleted').at(-1).seqs], [[9], [10, 8]]);
});

// ---- Mistakes are told when they are made ----

test('names of events, addresses and options are checked when they are given', () => {
  const make = (url, options) => new Roomcast(url, { WebSocket: class {}, fetch: null, ...options });
  const { chat } = client();
  assert.throws(() => chat.on('message', () => {}), /there is no event “message”; there are status, welcome/);
  assert.throws(() => chat.on('chat', 'not a function'), TypeError);
  for (const [url, words] of [
    ['/ws', /“\/ws” is no URL; .*without a page it must be whole/],
    ['localhost:8080/ws', /has the scheme localhost:; ws, wss, http and https are allowed/],
    ['ftp://chat.example/ws', /has the scheme ftp:/],
    ['', /is no URL/],
  ]) assert.throws(() => make(url), { name: 'TypeError', message: words }, url);
  assert.throws(() => make('ws://chat.example/ws', { WebSocket: undefined }), { name: 'TypeError', message: /there is no WebSocket here/ });
  assert.throws(() => make('ws://chat.example/ws', { token: 5 }), { name: 'TypeError', message: /token is a number/ });
  assert.throws(() => make('ws://chat.example/ws', { name: 5 }), { name: 'TypeError', message: /name is a number/ });
  assert.throws(() => make('ws://chat.example/ws', { queueMax: 0 }), TypeError);
  assert.throws(() => make('ws://chat.example/ws', { userId: 'e\u0301' }), { code: 'bad_name' });
});

test('a WebSocket that the browser does not allow ends the attempt with its words', async () => {
  class Blocked { constructor() { throw new Error('an insecure WebSocket may not be opened from a page of https'); } }
  const { chat, events } = client({ WebSocket: Blocked });
  const { error } = await outcome(chat.connect());
  assert.deepEqual([error.code, chat.status, events.of('status').at(-1).cause], ['blocked', 'closed', 'blocked']);
  assert.match(error.message, /insecure/);
});

// ---- Why a handshake failed ----

const HANDSHAKES = [
  // answer, token, state, cause
  [403, 'banned: contempt', undefined, 'closed', 'banned'],
  [403, 'banned', undefined, 'closed', 'banned'],
  [403, 'pages of origin https://other.example may not connect', undefined, 'closed', 'origin'],
  [403, 'the back-end says no', 'fixed', 'closed', 'forbidden'],
  [400, 'a token was sent, and this server takes none', 'fixed', 'closed', 'bad_request'],
  [401, 'a token is needed', undefined, 'closed', 'token_needed'],
  [401, 'the token has expired', 'fixed', 'closed', 'token_refused'],
  [401, 'the token has expired', 'asked', 'offline', 'token_refused'],
  [404, 'nothing is here', undefined, 'offline', 'not_found'],
  [426, 'this is a WebSocket', undefined, 'offline', 'no_upgrade'],
  [429, 'this address sends more requests than it may', undefined, 'offline', 'too_many'],
  [503, 'the server is shutting down', undefined, 'offline', 'unavailable'],
  [504, 'no decision', undefined, 'offline', 'unavailable'],
];

test('a failed handshake is explained by asking the same address once', async () => {
  for (const [status, text, kind, state, cause] of HANDSHAKES) {
    const token = kind === 'asked' ? () => 'asked' : kind;
    const { chat, events } = client({ userId: 'alice', token, fetch: answers(status, text) });
    chat.connect();
    await settled();
    sockets.at(-1).drops();
    await settled();
    const found = events.of('status').at(-1);
    assert.deepEqual([found.status, found.cause, found.code, found.reason], [state, cause, status, text.replace('banned: ', '')], `${status} ${text}`);
    const wanted = kind ? { url: 'https://chat.example/ws', Authorization: `Bearer ${kind}` } : { url: 'https://chat.example/ws?userId=alice' };
    assert.deepEqual(answers.asked, [wanted]);
    chat.close();
  }
});

test('an answer that is not the server\'s own ends nothing', async () => {
  for (const status of [400, 403]) {
    const { chat, events } = client({ fetch: answers(status, '<html>', { 'Content-Type': 'text/html' }) });
    chat.connect();
    sockets.at(-1).drops();
    await settled();
    assert.equal(events.of('status').at(-1).status, 'offline', `${status} of a firewall`);
    chat.close();
  }
});

test('the wait that the server asks for is kept, and bounded', async () => {
  for (const [wanted, wait] of [['7', 7_750], ['86400', 60_750]]) {
    const { chat, events } = client({ fetch: answers(503, 'busy', { 'Retry-After': wanted }) });
    chat.connect();
    sockets.at(-1).drops();
    await settled();
    assert.equal(events.of('status').at(-1).retryAt - Date.now(), wait);
    chat.close();
  }
});

test('a server that does not answer is unreachable, or there is no network', async (t) => {
  t.after(() => { delete globalThis.navigator; });
  for (const [onLine, cause] of [[true, 'unreachable'], [false, 'network']]) {
    Object.defineProperty(globalThis, 'navigator', { value: { onLine }, configurable: true });
    const { chat, events } = client({ fetch: () => Promise.reject(new TypeError('Failed to fetch')) });
    chat.connect();
    sockets.at(-1).drops();
    await settled();
    assert.deepEqual([events.of('status').at(-1).status, events.of('status').at(-1).cause], ['offline', cause]);
    chat.close();
  }
});

test('an explanation that comes too late for its attempt changes nothing', async () => {
  let give;
  const { chat, events } = client({ fetch: () => new Promise((done) => { give = done; }) });
  chat.connect();
  sockets[0].drops();
  mock.timers.tick(10_000);
  assert.equal(events.of('status').at(-1).status, 'offline', 'no longer than the time for a welcome');
  mock.timers.tick(1000);
  sockets[1].welcome();
  give(new Response('banned', { status: 403, headers: { 'Content-Type': 'text/plain' } }));
  await settled();
  assert.equal(chat.status, 'online');
});

test('a failed handshake is explained once, whether the platform tells of it by error, close or both', async () => {
  for (const events of [['onerror'], ['onclose'], ['onerror', 'onclose']]) {
    const asked = [];
    const { chat } = client({ fetch: (url) => { asked.push(url); return Promise.reject(new TypeError('Failed to fetch')); } });
    chat.connect();
    for (const type of events) sockets.at(-1)[type]({ code: 1006, reason: '' });
    await settled();
    assert.deepEqual([chat.status, asked.length], ['offline', 1], events.join());
    chat.close();
  }
});

test('a connection that was open is not asked about, nor is one that the server closed with a code', async () => {
  const { chat } = client({ fetch: answers(200, '') });
  chat.connect();
  sockets[0].opens();
  sockets[0].drops();
  mock.timers.tick(1000);
  sockets[1].drops(4002);
  await settled();
  assert.deepEqual(answers.asked, []);
});

test('a provider that gives no token leaves the client offline, and is asked again', async () => {
  let count = 0;
  const { chat, events } = client({ token: () => (++count === 1 ? '<html>Bad Gateway</html>' : 'good') });
  chat.connect();
  await settled();
  assert.deepEqual([events.of('status').at(-1).status, events.of('status').at(-1).cause], ['offline', 'token_unavailable']);
  mock.timers.tick(1000);
  await settled();
  assert.deepEqual(sockets[0].protocols, ['roomcast.v1', 'roomcast.token.good']);
  chat.close();
});

test('when the browser says that there is no network, the connection has 3 s to prove the contrary', (t) => {
  const page = new EventTarget();
  Object.assign(globalThis, { addEventListener: page.addEventListener.bind(page), removeEventListener: page.removeEventListener.bind(page) });
  t.after(() => ['addEventListener', 'removeEventListener'].forEach((name) => delete globalThis[name]));
  const { chat, events, socket } = live();
  page.dispatchEvent(new Event('offline'));
  mock.timers.tick(2_999);
  socket.says({ type: 'pong' });
  mock.timers.tick(10_000);
  assert.equal(chat.status, 'online', 'a server on this machine needs no network');
  page.dispatchEvent(new Event('offline'));
  mock.timers.tick(3_000);
  assert.deepEqual([chat.status, events.of('status').at(-1).cause], ['offline', 'network']);
  page.dispatchEvent(new Event('online'));
  assert.equal(chat.status, 'connecting');
  chat.close();
  page.dispatchEvent(new Event('offline'));
  assert.equal(chat.status, 'closed');
});
