// The client's rules, one by one, against a WebSocket that the test plays and a clock that the test turns.
import assert from 'node:assert/strict';
import { beforeEach, mock, test } from 'node:test';
import { Roomcast } from '../../client/js/src/index.js';
import { answers, client, comeBack, live, settled, sockets, startAfresh } from './fake-server.mjs';

beforeEach(startAfresh);

test('the address, the protocols and the user are those asked for', () => {
  client({ userId: 'alice' }).chat.connect();
  assert.equal(sockets[0].url.href, 'wss://chat.example/ws?userId=alice');
  assert.deepEqual(sockets[0].protocols, ['roomcast.v1']);
  client({ userId: 'bob', name: 'Bob Müller & sons' }).chat.connect();
  assert.equal(sockets[1].url.searchParams.get('name'), 'Bob Müller & sons');
  client({ userId: 'bob', name: 'Bob', token: 'abc' }).chat.connect();
  assert.equal(sockets[2].url.search, '', 'a token has both');
});

test('a token goes beside the protocol, asked for anew at every attempt', async () => {
  let count = 0;
  client({ token: async () => `t${++count}` }).chat.connect();
  await new Promise(setImmediate);
  assert.deepEqual(sockets[0].protocols, ['roomcast.v1', 'roomcast.token.t1']);
  sockets[0].drops();
  mock.timers.tick(20_000);
  await new Promise(setImmediate);
  assert.deepEqual(sockets[1].protocols, ['roomcast.v1', 'roomcast.token.t2']);
});

test('a token that comes after close() opens nothing', async () => {
  const { chat } = client({ token: async () => 't' });
  chat.connect();
  chat.close();
  await new Promise(setImmediate);
  assert.equal(sockets.length, 0);
});

/** A client whose tokens are t1, t2 …, welcomed with the first, which expires so many seconds from now. */
async function withTokens(seconds, provide = (count) => `t${count}`) {
  let count = 0;
  const { chat, events } = client({ token: async () => provide(++count) });
  chat.connect();
  await settled();
  const socket = sockets.at(-1);
  const expiresAt = seconds === undefined ? undefined : Date.now() + seconds * 1000;
  socket.says({ type: 'welcome', userId: 'alice', pingInterval: 25_000, limits: {}, expiresAt });
  return { chat, events, socket };
}

/** Lets time pass while the server answers pings. */
async function pass(socket, seconds) {
  for (let second = 0; second < seconds; second++) {
    mock.timers.tick(1000);
    socket.says({ type: 'pong' });
    await settled();
  }
}

test('a new token is brought a minute before the last one expires, and the connection stays', async () => {
  const { events, socket } = await withTokens(3600);
  await pass(socket, 3539);
  assert.equal(socket.last('refresh'), undefined);
  await pass(socket, 1);
  const { token, id } = socket.last('refresh');
  assert.equal(token, 't2');
  const expiresAt = Date.now() + 600_000;
  socket.says({ type: 'refreshed', expiresAt, id });
  assert.deepEqual(events.of('refreshed'), [{ type: 'refreshed', expiresAt }]);
  await pass(socket, 539);
  assert.equal(socket.all('refresh').length, 1);
  await pass(socket, 1);
  assert.equal(socket.last('refresh').token, 't3');
  assert.equal(sockets.length, 1);
});

test('a token that is good for a short time is replaced when a fifth of that is left', async () => {
  const { socket } = await withTokens(50);
  await pass(socket, 39);
  assert.equal(socket.last('refresh'), undefined);
  await pass(socket, 1);
  assert.equal(socket.last('refresh').token, 't2');
});

test('a clock that is ahead of the server causes a refresh every 30 s and no more', async () => {
  const { socket } = await withTokens(-500);
  await pass(socket, 1);
  for (let count = 1; count < 4; count++) {
    assert.equal(socket.all('refresh').length, count);
    socket.says({ type: 'refreshed', expiresAt: Date.now() - 400_000, id: socket.last('refresh').id });
    await pass(socket, 29);
    assert.equal(socket.all('refresh').length, count);
    await pass(socket, 1);
  }
});

test('a token far in the future is not replaced at once', async () => {
  const { socket } = await withTokens(100 * 24 * 3600);
  await pass(socket, 60);
  mock.timers.tick(0);
  assert.equal(socket.last('refresh'), undefined);
});

test('a token that the server does not accept is asked for again, and messages are not sent again for it', async () => {
  const { chat, events, socket } = await withTokens(50);
  chat.join('lobby');
  socket.joined();
  chat.say('lobby', 'hello');
  await pass(socket, 40);
  for (const code of ['invalid_token', 'rate_limited']) {
    const sent = socket.all('refresh').length;
    const temporary = code === 'rate_limited';
    socket.says({ type: 'error', code, message: 'no', temporary, id: socket.last('refresh').id });
    assert.equal(events.of('error').at(-1).code, code);
    await pass(socket, 29);
    assert.equal(socket.all('refresh').length, sent);
    await pass(socket, 1);
    assert.equal(socket.all('refresh').length, sent + 1);
  }
});

test('a provider that fails is asked again while the last token is good', async () => {
  const { socket } = await withTokens(100, (count) => {
    if (count === 2) throw new Error('the back-end is away');
    return `t${count}`;
  });
  await pass(socket, 80);
  assert.equal(socket.last('refresh'), undefined);
  await pass(socket, 30);
  assert.equal(socket.last('refresh').token, 't3');
});

test('without an expiry, or with a token that is always the same, nothing is replaced', async () => {
  const { socket } = await withTokens(undefined);
  await pass(socket, 5000);
  assert.equal(socket.last('refresh'), undefined);
  client({ token: 'always' }).chat.connect();
  const other = sockets.at(-1);
  other.says({ type: 'welcome', userId: 'alice', limits: {}, expiresAt: Date.now() + 1000 });
  await pass(other, 60);
  assert.equal(other.last('refresh'), undefined);
});

test('after the end of its token a client comes back, with a new one if it can have one', async () => {
  const { socket } = await withTokens(50);
  socket.drops(4003);
  mock.timers.tick(20_000);
  await settled();
  assert.deepEqual(sockets.at(-1).protocols, ['roomcast.v1', 'roomcast.token.t2']);
  // A back-end may take the same string again, so only a refusal of the handshake ends it.
  const { chat, events } = client({ token: 'always', fetch: answers(401, 'the token has expired') });
  chat.connect();
  sockets.at(-1).opens();
  sockets.at(-1).welcome();
  sockets.at(-1).drops(4003, 'the token has expired');
  assert.deepEqual([events.of('status').at(-1).status, events.of('status').at(-1).cause], ['offline', 'token_expired']);
  mock.timers.tick(20_000);
  assert.deepEqual(sockets.at(-1).protocols, ['roomcast.v1', 'roomcast.token.always']);
  sockets.at(-1).drops();
  await settled();
  assert.deepEqual(events.of('status').at(-1), { type: 'status', status: 'closed', code: 401, reason: 'the token has expired', cause: 'token_refused' });
});

test('a late token of an earlier connection is not sent on the next one', async () => {
  let give;
  let count = 0;
  const { chat } = client({ token: () => (++count === 2 ? new Promise((done) => { give = done; }) : `t${count}`) });
  chat.connect();
  await settled();
  sockets.at(-1).says({ type: 'welcome', userId: 'alice', limits: {}, expiresAt: Date.now() + 10_000 });
  await pass(sockets.at(-1), 8);
  sockets.at(-1).drops();
  mock.timers.tick(20_000);
  await settled();
  sockets.at(-1).welcome();
  give('late');
  await settled();
  assert.equal(sockets.at(-1).last('refresh'), undefined);
});

test('names follow the documented alphabet and length', async () => {
  for (const name of ['lobby', 'Grüße', '部屋', 'a-_.:@~+#=/9', 'x'.repeat(128)]) assert.equal(Roomcast.nameProblem(name), '', name);
  for (const name of ['', 'a b', 'a?b', '<b>', 'x'.repeat(129), 'ü'.repeat(65), '🙂']) assert.notEqual(Roomcast.nameProblem(name), '', name);
  assert.throws(() => client({ userId: 'a b' }), { code: 'bad_name' });
  await assert.rejects(client().chat.join('a b'), { code: 'bad_name' });
});

test('the wait before attempt n is within 0.5 s and min(20 s, 0.5 s + 0.5 s × 2ⁿ)', () => {
  for (const [chance, waits] of [[0, [500, 500, 500, 500, 500, 500, 500]], [1, [1000, 1500, 2500, 4500, 8500, 16_500, 20_000]]]) {
    const { chat, events } = client({ random: () => chance });
    chat.connect();
    for (const wait of waits) {
      const socket = sockets.at(-1);
      socket.drops();
      assert.equal(events.of('status').at(-1).retryAt - Date.now(), wait);
      mock.timers.tick(wait - 1);
      assert.equal(sockets.at(-1), socket, 'not before its time');
      mock.timers.tick(1);
      assert.notEqual(sockets.at(-1), socket, 'in time');
    }
    chat.close();
  }
});

const CAUSES = { 4501: 'flooded', 4502: 'stalled', 4503: 'banned', 4504: 'replaced' };

test('4000–4499 and all standard codes reconnect; 4500–4999 do not', () => {
  for (const code of [1000, 1001, 1006, 1009, 4000, 4002, 4499]) {
    const { chat, socket } = live();
    comeBack(socket, code);
    chat.close();
  }
  for (const code of [4500, 4501, 4502, 4503, 4504, 4999]) {
    const { events, socket } = live();
    const count = sockets.length;
    socket.drops(code, 'go away');
    mock.timers.tick(3_600_000);
    assert.equal(sockets.length, count, `no attempt after ${code}`);
    assert.deepEqual(events.of('status').at(-1), { type: 'status', status: 'closed', code, reason: 'go away', cause: CAUSES[code] ?? 'server' });
  }
});

test('close() ends it, connect() begins again in the same rooms', () => {
  const { chat, socket } = live();
  chat.close();
  assert.ok(socket.closed);
  mock.timers.tick(3_600_000);
  assert.equal(sockets.length, 1);
  chat.connect();
  sockets[1].welcome();
  assert.equal(sockets[1].last('join').room, 'lobby');
});

test('a listener may close the client at any time', () => {
  for (const moment of ['connecting', 'online', 'welcome', 'joined']) {
    startAfresh();
    const { chat } = client();
    chat.join('lobby');
    const stop = chat.on(['welcome', 'joined'].includes(moment) ? moment : 'status', ({ status = moment }) => { if (status === moment) chat.close(); });
    chat.connect();
    if (chat.status === 'connecting') sockets.at(-1).welcome();
    if (chat.status === 'online') sockets.at(-1).joined();
    mock.timers.tick(3_600_000);
    assert.deepEqual([chat.status, sockets.length], ['closed', moment === 'connecting' ? 0 : 1], moment);
    stop();
    chat.connect();
    sockets.at(-1).welcome();
    assert.equal(sockets.at(-1).last('join').room, 'lobby');
  }
});

test('the back-off starts afresh only after 30 s level', () => {
  const { events, socket } = live({ random: () => 1 });
  const waitAfter = (one) => { one.drops(); return events.of('status').at(-1).retryAt - Date.now(); };
  const again = (wait) => { mock.timers.tick(wait); const one = sockets.at(-1); one.welcome(); one.joined({ recovered: true }); return one; };
  let wait = waitAfter(socket);
  assert.equal(wait, 1000);
  let next = again(wait);
  mock.timers.tick(29_999);
  wait = waitAfter(next);
  assert.equal(wait, 1500, 'level for less than 30 s');
  next = again(wait);
  mock.timers.tick(20_000);
  next.joined({ id: undefined });
  mock.timers.tick(10_000);
  assert.equal(waitAfter(next), 1000, 'level for 30 s');
});

test('welcomed but never joined is not level', () => {
  const { events, socket } = live({ random: () => 1 });
  const next = comeBack(socket);
  next.welcome();
  mock.timers.tick(40_000);
  next.drops();
  assert.equal(events.of('status').at(-1).retryAt - Date.now(), 1500);
});

test('it comes back as the user that welcome named, from the position it had', () => {
  const { socket } = live({}, { seq: 7 });
  socket.chat(8);
  const next = comeBack(socket);
  assert.equal(next.url.searchParams.get('userId'), 'guest-1');
  next.welcome();
  const { room, since, history } = next.last('join');
  assert.deepEqual({ room, since, history }, { room: 'lobby', since: { epoch: 'e1', seq: 8 }, history: 50 });
});

test('no welcome within 10 s is a lost connection', () => {
  client().chat.connect();
  mock.timers.tick(10_000);
  assert.ok(sockets[0].closed);
  mock.timers.tick(1000);
  assert.equal(sockets.length, 2);
});

test('after 2 × pingInterval + 5 s of silence it pings, and reconnects if nothing comes within 10 s', () => {
  const { chat, events, socket } = live();
  mock.timers.tick(54_999);
  assert.equal(socket.last('ping'), undefined);
  mock.timers.tick(1);
  assert.ok(socket.last('ping'));
  mock.timers.tick(9_000);
  socket.says({ type: 'pong' });
  mock.timers.tick(2_000);
  assert.equal(socket.closed, false);
  mock.timers.tick(53_000);
  assert.equal(socket.all('ping').length, 2);
  mock.timers.tick(10_000);
  assert.ok(socket.closed);
  mock.timers.tick(1000);
  assert.equal(sockets.length, 2);
  socket.chat(1);
  socket.drops(4501);
  assert.equal(events.of('chat').length, 0, 'what the old socket says no longer counts');
  assert.equal(chat.status, 'connecting');
});

test('reconnect() tries at once when offline, and pings when online', () => {
  const { chat, socket } = live();
  chat.reconnect();
  assert.ok(socket.last('ping'));
  socket.drops();
  chat.reconnect();
  assert.equal(sockets.length, 2);
  mock.timers.tick(9_000);
  assert.equal(sockets.length, 2, 'the planned attempt has been taken back');
});

test('the browser\'s own news of the network or of a visible page means an attempt at once', (t) => {
  const [page, document] = [new EventTarget(), Object.assign(new EventTarget(), { visibilityState: 'hidden' })];
  Object.assign(globalThis, { document, addEventListener: page.addEventListener.bind(page), removeEventListener: page.removeEventListener.bind(page) });
  t.after(() => ['document', 'addEventListener', 'removeEventListener'].forEach((name) => delete globalThis[name]));
  const { chat, socket } = live();
  socket.drops();
  document.dispatchEvent(new Event('visibilitychange'));
  assert.equal(sockets.length, 1, 'hidden');
  document.visibilityState = 'visible';
  document.dispatchEvent(new Event('visibilitychange'));
  assert.equal(sockets.length, 2);
  sockets[1].drops();
  page.dispatchEvent(new Event('online'));
  assert.equal(sockets.length, 3);
  chat.close();
  page.dispatchEvent(new Event('online'));
  assert.equal(sockets.length, 3, 'closed for good');
});

test('history comes with joined, and replaces', () => {
  const { chat, events } = client();
  chat.join('lobby', { history: 50 });
  chat.connect();
  sockets[0].welcome();
  sockets[0].chat(4);
  sockets[0].chat(5);
  assert.equal(events.of('chat').length, 0, 'provisional until joined');
  sockets[0].joined({ seq: 5 });
  const [{ replace, resumed, messages }] = events.of('joined');
  assert.deepEqual([replace, resumed, messages.map(({ seq }) => seq)], [true, false, [4, 5]]);
  sockets[0].chat(6);
  assert.equal(events.of('chat')[0].seq, 6);
});

test('recovered: true adds what was missed, each message once', () => {
  const { events, socket } = live({}, { seq: 2 });
  socket.chat(3);
  socket.chat(3);
  assert.equal(events.of('chat').length, 1);
  const next = comeBack(socket);
  next.welcome();
  for (const seq of [3, 4, 5, 5]) next.chat(seq);
  next.joined({ seq: 5, recovered: true });
  const { replace, resumed, messages } = events.of('joined').at(-1);
  assert.deepEqual([replace, resumed, messages.map(({ seq }) => seq)], [false, true, [4, 5]]);
});

test('history that was declared void before joined does not hide what follows it', () => {
  const { chat, events } = client();
  chat.join('lobby', { history: 50 });
  chat.connect();
  const [socket] = sockets;
  socket.welcome();
  for (const seq of [1, 2, 3]) socket.chat(seq);
  socket.joined({ id: undefined, epoch: 'e2', seq: 0, recovered: false });
  assert.equal(events.of('joined').length, 0, 'not joined yet');
  socket.chat(1, { text: 'of the new epoch' });
  socket.joined({ epoch: 'e2', seq: 1, recovered: false });
  const [{ replace, messages }] = events.of('joined');
  assert.deepEqual([replace, messages.map(({ text }) => text)], [true, ['of the new epoch']]);
});

test('recovered: false replaces, whatever the old position was', () => {
  const { events, socket } = live({}, { seq: 100 });
  const next = comeBack(socket);
  next.welcome();
  next.chat(1);
  next.chat(2);
  next.joined({ epoch: 'e2', seq: 2, recovered: false });
  const { replace, messages } = events.of('joined').at(-1);
  assert.deepEqual([replace, messages.map(({ seq }) => seq)], [true, [1, 2]]);
  next.chat(3);
  assert.equal(events.of('chat').at(-1).seq, 3);
});

test('an unasked joined with a new epoch moves the position', () => {
  const { events, socket } = live({}, { seq: 100 });
  socket.joined({ id: undefined, epoch: 'e2', seq: 0 });
  assert.equal(events.of('joined').at(-1).replace, false);
  socket.chat(1);
  assert.equal(events.of('chat').at(-1).seq, 1);
  const next = comeBack(socket);
  next.welcome();
  assert.deepEqual(next.last('join').since, { epoch: 'e2', seq: 1 });
});

test('messages after a hole wait for the joined that explains it', () => {
  const { events, socket } = live({}, { seq: 1 });
  socket.chat(5);
  socket.chat(6);
  assert.equal(events.of('chat').length, 0);
  socket.joined({ id: undefined, seq: 6, recovered: false });
  const { replace, messages } = events.of('joined').at(-1);
  assert.deepEqual([replace, messages.map(({ seq }) => seq)], [true, [5, 6]]);
});

test('a hole that nobody explains is closed by resuming before it', () => {
  const { socket } = live({}, { seq: 1 });
  socket.chat(5);
  mock.timers.tick(10_000);
  assert.ok(socket.closed);
  mock.timers.tick(1000);
  sockets[1].welcome();
  assert.deepEqual(sockets[1].last('join').since, { epoch: 'e1', seq: 1 });
});

test('an unacknowledged message is sent again with the same id, after joined, and acknowledged by its copy', () => {
  const { chat, events, socket } = live();
  const { id } = chat.say('lobby', 'hello', { mood: 'calm' });
  assert.deepEqual(socket.last('chat'), { type: 'chat', room: 'lobby', text: 'hello', data: { mood: 'calm' }, id });
  const next = comeBack(socket);
  next.welcome();
  assert.equal(next.last('chat'), undefined);
  next.joined({ recovered: true });
  assert.equal(next.last('chat').id, id);
  next.chat(1, { userId: 'somebody-else', id });
  assert.equal(events.of('sent').length, 0, 'the copy of another user with the same id');
  next.chat(2, { userId: 'guest-1', id });
  assert.deepEqual(events.of('sent'), [{ type: 'sent', room: 'lobby', id, seq: 2 }]);
  assert.equal(events.of('chat').at(-1).own, true);
  assert.deepEqual(chat.unsent('lobby'), []);
});

test('a message without an answer is sent again with the same id after 15 s, until there is one', () => {
  const { chat, events, socket } = live();
  const { id } = chat.say('lobby', 'hello');
  mock.timers.tick(5_000);
  const { id: later } = chat.say('lobby', 'again');
  const { id: answered } = chat.say('lobby', 'answered');
  socket.says({ type: 'ack', room: 'lobby', id: answered, seq: 1, duplicate: false });
  const ids = () => socket.all('chat').map((message) => message.id);
  mock.timers.tick(9_999);
  assert.deepEqual(ids(), [id, later, answered], 'not before its time');
  mock.timers.tick(1);
  assert.deepEqual(ids(), [id, later, answered, id]);
  mock.timers.tick(5_000);
  assert.deepEqual(ids().slice(4), [later]);
  socket.says({ type: 'ack', room: 'lobby', id: later, seq: 2, duplicate: true });
  mock.timers.tick(10_000);
  assert.deepEqual(ids().slice(5), [id]);
  socket.chat(3, { userId: 'guest-1', id });
  mock.timers.tick(20_000);
  assert.equal(ids().length, 6, 'all are answered');
  assert.deepEqual(events.of('sent').map((event) => event.id), [answered, later, id]);
});

test('nothing is sent again into a room that was left', () => {
  const { chat, socket } = live();
  chat.say('lobby', 'hello');
  chat.leave('lobby');
  mock.timers.tick(40_000);
  assert.equal(socket.all('chat').length, 1);
});

test('a copy among the missed messages acknowledges: nothing is sent again', () => {
  const { chat, events, socket } = live();
  const { id } = chat.say('lobby', 'hello');
  const next = comeBack(socket);
  next.welcome();
  next.chat(1, { userId: 'guest-1', id });
  next.joined({ seq: 1, recovered: true });
  assert.equal(next.last('chat'), undefined);
  assert.equal(events.of('sent').length, 1);
});

test('an ack acknowledges too, also after leaving', () => {
  const { chat, events, socket } = live();
  const { id } = chat.say('lobby', 'hello');
  chat.leave('lobby');
  socket.says({ type: 'ack', room: 'lobby', id, seq: 9, duplicate: false });
  assert.equal(events.of('sent')[0].seq, 9);
  assert.equal(events.of('failed').length, 0);
});

test('a message that was under way when its room was left does not wait for ever', () => {
  const { chat, events, socket } = live();
  const { id } = chat.say('lobby', 'hello');
  chat.leave('lobby');
  comeBack(socket).welcome();
  assert.deepEqual(events.of('failed').map((event) => [event.id, event.code]), [[id, 'left']]);
});

test('what is said while offline is kept in order, up to a bound', async () => {
  const { chat, socket } = live({ queueMax: 3 });
  socket.drops();
  for (const text of ['a', 'b', 'c']) chat.say('lobby', text);
  await assert.rejects(chat.say('lobby', 'd'), { code: 'queue_full' });
  mock.timers.tick(1000);
  sockets[1].welcome();
  sockets[1].joined({ recovered: true });
  assert.deepEqual(sockets[1].all('chat').map(({ text }) => text), ['a', 'b', 'c']);
});

test('a full queue is sent no faster than the server allows', () => {
  const { chat, socket } = live({}, { limits: { messageRate: 50, messageBurst: 100 } });
  for (let index = 0; index < 1000; index++) chat.say('lobby', `m${index}`);
  assert.ok(socket.sent.length <= 100, `${socket.sent.length} at once`);
  const before = socket.sent.length;
  for (let step = 0; step < 100; step++) mock.timers.tick(100);
  const sent = socket.sent.length - before;
  assert.ok(sent > 300 && sent <= 500, `${sent} in 10 s`);
});

test('a temporary error waits retryAfterMs, and holds back those behind', () => {
  const { chat, events, socket } = live();
  const { id: first } = chat.say('lobby', 'first');
  socket.says({ type: 'error', code: 'rate_limited', message: 'slow down', temporary: true, room: 'lobby', id: first, retryAfterMs: 700 });
  const { id: second } = chat.say('lobby', 'second');
  mock.timers.tick(699);
  assert.equal(socket.all('chat').length, 1);
  mock.timers.tick(1);
  assert.deepEqual(socket.all('chat').slice(1).map(({ id }) => id), [first, second]);
  assert.equal(events.of('failed').length, 0);
  assert.equal(events.of('error').length, 0);
});

test('rate_limited stands for all that is under way: the server drops the rest without a word', () => {
  const { chat, socket } = live({}, { limits: { messageRate: 50, messageBurst: 100 } });
  const ids = ['a', 'b', 'c'].map((text) => chat.say('lobby', text).id);
  socket.chat(1, { userId: 'guest-1', id: ids[0] });
  socket.says({ type: 'error', code: 'rate_limited', message: 'slow down', temporary: true, retryAfterMs: 1 });
  for (let step = 0; step < 20; step++) mock.timers.tick(10);
  assert.deepEqual(socket.all('chat').slice(3).map(({ id }) => id), ids.slice(1));
});

test('joins keep to the rate too', () => {
  const { chat, socket } = live({}, { limits: { messageRate: 50, messageBurst: 20 } });
  for (let index = 0; index < 30; index++) chat.join(`room-${index}`);
  assert.equal(socket.all('join').length, 10);
  for (let step = 0; step < 100; step++) mock.timers.tick(10);
  assert.equal(new Set(socket.all('join').map(({ room }) => room)).size, 31);
});

test('temporary errors without retryAfterMs back off, and end', () => {
  const { chat, events, socket } = live();
  const { id } = chat.say('lobby', 'hello');
  for (let refusal = 0; refusal <= 20; refusal++) {
    socket.says({ type: 'error', code: 'room_busy', message: 'full', temporary: true, room: 'lobby', id });
    mock.timers.tick(20_000);
  }
  assert.equal(socket.all('chat').length, 21);
  assert.deepEqual(events.of('failed'), [{ type: 'failed', room: 'lobby', id, text: 'hello', data: undefined, code: 'room_busy', message: 'full' }]);
});

test('a message of a muted user fails at once, and others do not wait for the end of the mute', () => {
  const { chat, events, socket } = live();
  const [{ id: refused }, { id: other }] = [chat.say('lobby', 'hello'), chat.say('lobby', 'again')];
  const error = { code: 'muted', message: 'muted: too loud', temporary: true, room: 'lobby', id: refused, retryAfterMs: 3_600_000 };
  socket.says({ type: 'error', ...error });
  assert.deepEqual(events.of('failed').map(({ id, code }) => [id, code]), [[refused, 'muted']]);
  assert.deepEqual(events.of('error'), [{ type: 'error', ...error }]);
  socket.says({ type: 'ack', room: 'lobby', id: other, seq: 1, duplicate: false });
  const { id: last } = chat.say('lobby', 'later');
  mock.timers.tick(1000);
  assert.equal(socket.last('chat').id, last);
  assert.equal(socket.all('chat').filter(({ id }) => id === refused).length, 1);
});

test('a permanent error fails the message and tells', () => {
  const { chat, events, socket } = live();
  const { id } = chat.say('lobby', 'hello');
  socket.says({ type: 'error', code: 'forbidden', message: 'you are muted', temporary: false, room: 'lobby', id });
  assert.equal(events.of('failed')[0].message, 'you are muted');
  comeBack(socket).welcome();
  sockets.at(-1).joined({ recovered: true });
  assert.equal(sockets.at(-1).last('chat'), undefined);
});

test('a join that is refused for now is tried again, for good is given up with its messages', async () => {
  const { chat, events } = client();
  chat.join('lobby');
  chat.connect();
  const [socket] = sockets;
  socket.welcome();
  const { id } = chat.say('lobby', 'hello');
  socket.says({ type: 'error', code: 'unavailable', message: 'no bus', temporary: true, room: 'lobby', id: socket.last('join').id });
  mock.timers.tick(1000);
  assert.equal(socket.all('join').length, 2);
  socket.says({ type: 'error', code: 'forbidden', message: 'no', temporary: false, room: 'lobby', id: socket.last('join').id });
  assert.equal(events.of('failed')[0].id, id);
  await assert.rejects(chat.say('lobby', 'again'), { code: 'not_joined' });
});

test('a room that was left is not joined by an earlier refusal\'s retry', () => {
  const { chat, events } = client();
  chat.join('lobby');
  chat.connect();
  const [socket] = sockets;
  socket.welcome();
  socket.says({ type: 'error', code: 'unavailable', message: 'no bus', temporary: true, room: 'lobby', id: socket.last('join').id });
  chat.leave('lobby');
  mock.timers.tick(20_000);
  assert.equal(socket.all('join').length, 1);
  assert.equal(events.of('error').length, 1);
});

test('a lone surrogate becomes what every server can read', () => {
  const { chat, socket } = live();
  chat.say('lobby', 'a\ud800b');
  assert.equal(socket.last('chat').text, 'a\ufffdb');
});

test('too large is refused before it can cost the connection', async () => {
  const { chat, socket } = live({}, { limits: { messageBytes: 200, dataBytes: 20 } });
  await assert.rejects(chat.say('lobby', 'x'.repeat(200)), { code: 'too_large' });
  await assert.rejects(chat.say('lobby', 'x', 'y'.repeat(20)), { code: 'too_large' });
  await assert.rejects(chat.say('lobby', ''), { code: 'bad_message' });
  assert.equal(socket.last('chat'), undefined);
});

test('leaving and joining again before the answers came keeps the two stays apart', () => {
  const { chat, events, socket } = live({}, { seq: 3 });
  chat.leave('lobby');
  chat.join('lobby', { history: 2 });
  socket.chat(4);
  socket.says({ type: 'left', room: 'lobby', id: socket.last('leave').id });
  socket.chat(3);
  socket.chat(4);
  socket.joined({ seq: 4 });
  assert.deepEqual(events.of('joined').at(-1).messages.map(({ seq }) => seq), [3, 4]);
  assert.equal(events.of('left').length, 0);
  socket.says({ type: 'left', room: 'lobby' });
  assert.equal(events.of('left').length, 1, 'the server took us out');
});

test('who is taken out of a room is out, is told why, and joins again only when asked to', async () => {
  const { chat, events, socket } = live();
  chat.join('hall');
  socket.says({ type: 'typing', room: 'lobby', userId: 'bob', status: 'start' });
  const { id: accepted } = chat.say('lobby', 'its copy is dropped');
  socket.says({ type: 'error', code: 'removed', message: 'out with you', temporary: false, room: 'lobby' });
  socket.says({ type: 'left', room: 'lobby' });
  assert.deepEqual(events.of('left'), [{ type: 'left', room: 'lobby', code: 'removed', message: 'out with you' }]);
  assert.deepEqual([events.of('error'), events.of('typing').at(-1).userIds], [[], []]);
  await assert.rejects(chat.say('lobby', 'hello'), { code: 'not_joined' });
  socket.chat(1);
  assert.deepEqual([events.of('chat'), events.of('failed')], [[], []]);
  mock.timers.tick(10_000);
  assert.deepEqual(events.of('failed').map(({ id, code }) => [id, code]), [[accepted, 'removed']]);

  const next = comeBack(socket);
  next.welcome();
  assert.deepEqual(next.all('join').map(({ room }) => room), ['hall']);
  chat.join('lobby', { history: 50 });
  assert.equal(next.last('join').since, undefined, 'a new stay');
  next.joined({ seq: 4 });
  assert.deepEqual([events.of('joined').at(-1).replace, events.of('left').length], [true, 1]);
});

test('who is taken out while joining does not go on waiting', () => {
  const { chat, events, socket } = live();
  chat.join('hall');
  socket.says({ type: 'error', code: 'removed', message: 'out', temporary: false, room: 'hall', id: socket.last('join').id });
  socket.says({ type: 'left', room: 'hall' });
  assert.deepEqual(events.of('left').map(({ room, code }) => [room, code]), [['hall', 'removed']]);
  const next = comeBack(socket);
  next.welcome();
  assert.deepEqual(next.all('join').map(({ room }) => room), ['lobby']);
});

test('only the answer to the newest join counts', () => {
  const { chat, events, socket } = live();
  const stay = () => { chat.leave('lobby'); chat.join('lobby', { history: 1 }); return socket.last('join').id; };
  const [second, third] = [stay(), stay()];
  socket.joined({ id: second, seq: 7 });
  assert.equal(events.of('joined').length, 1);
  socket.joined({ id: third, seq: 8 });
  assert.equal(events.of('joined').at(-1).seq, 8);
});

test('more missed messages than fit are given up for a fresh start', () => {
  const { socket } = live({}, { seq: 1 });
  const next = comeBack(socket);
  next.welcome();
  for (let seq = 2; seq <= 10_002; seq++) next.chat(seq);
  assert.ok(next.closed);
  mock.timers.tick(20_000);
  sockets.at(-1).welcome();
  const { since, history } = sockets.at(-1).last('join');
  assert.deepEqual([since, history], [undefined, 50]);
});

test('presence keeps the list of members, a big room only their number', () => {
  const { events, socket } = live();
  const user = (userId, status) => socket.says({ type: 'presence', room: 'lobby', userId, status });
  user('guest-1', 'online');
  user('bob', 'online');
  user('guest-1', 'offline');
  assert.deepEqual(events.of('members').at(-1).users.map(({ userId }) => userId), ['bob']);
  socket.says({ type: 'members', room: 'lobby', count: 201 });
  assert.deepEqual(events.of('members').at(-1), { type: 'members', room: 'lobby', count: 201, users: null });
});

test('typing is told every 3 s, and stopped by speaking', () => {
  const { chat, socket } = live();
  for (let key = 0; key < 40; key++) {
    chat.typing('lobby');
    mock.timers.tick(100);
  }
  assert.deepEqual(socket.all('typing').map(({ status }) => status), ['start', 'start']);
  chat.say('lobby', 'done');
  assert.deepEqual(socket.sent.slice(-2).map(({ type, status }) => status ?? type), ['stop', 'chat']);
  chat.say('lobby', 'more');
  assert.equal(socket.all('typing').length, 3);
});

test('the typing of others expires after 6 s, or ends with what they say', () => {
  const { chat, events, socket } = live();
  const types = (userId) => socket.says({ type: 'typing', room: 'lobby', userId, status: 'start' });
  const now = () => events.of('typing').at(-1)?.userIds;
  types('guest-1');
  assert.equal(now(), undefined, 'our own does not count');
  types('bob');
  mock.timers.tick(5_000);
  types('bob');
  types('carol');
  socket.chat(1, { userId: 'carol' });
  mock.timers.tick(5_999);
  assert.deepEqual(now(), ['bob']);
  mock.timers.tick(1);
  assert.deepEqual(now(), []);
  types('bob');
  chat.leave('lobby');
  assert.deepEqual(now(), [], 'leaving ends it too');
});

test('unknown types are ignored', () => {
  const { events, socket } = live();
  const count = events.length;
  socket.says({ type: 'weather', sky: 'blue' });
  assert.equal(events.length, count);
});
