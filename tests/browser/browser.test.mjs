// The page in a real Chromium against the real server. Each test has its own room or its own server.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { API_FLAGS, DEADLINE_MS, NETWORK_COMPLAINT, command, eventually, joinRoom, kick, makeToken, message, openTab, say, screenshot, startBrowser, startRedis, startServer, state, texts } from './harness.mjs';

let browser;
let server;
let context;

before(async () => {
  server = await startServer({ flags: ['--presence-grace', '2s'] });
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});
beforeEach(async () => { context = await browser.newContext({ viewport: { width: 1180, height: 760 } }); });
afterEach(() => context.close());

function assertNoComplaints(...tabs) {
  for (const tab of tabs) assert.deepEqual(tab.complaints, []);
}

test('two tabs talk, and see each other come and type', async () => {
  const alice = await openTab(context, server.url, { name: 'alice', room: 'talk' });
  const bob = await openTab(context, server.url, { name: 'bob', room: 'talk' });
  await alice.locator('.notice[data-kind="presence"]', { hasText: 'bob joined' }).waitFor();
  await alice.locator('#members [data-user="bob"]').waitFor();
  await bob.locator('#members [data-user="alice"]').waitFor();

  await bob.type('#text', 'Hello, ');
  await alice.locator('#typing', { hasText: 'bob is typing…' }).waitFor();
  await bob.type('#text', 'Alice!');
  await bob.press('#text', 'Enter');
  await message(alice, 'Hello, Alice!').waitFor();
  await eventually(() => alice.textContent('#typing'), (text) => text === '', 'typing ends with the message');
  await say(alice, 'Hello, Bob!');
  await message(bob, 'Hello, Bob!').waitFor();
  await message(alice, 'Hello, Bob!').waitFor();
  assert.deepEqual(await texts(alice), ['Hello, Alice!', 'Hello, Bob!']);
  assert.deepEqual(await texts(bob), ['Hello, Alice!', 'Hello, Bob!']);
  await screenshot(alice, 'two-tabs');

  await bob.close();
  await alice.locator('.notice[data-kind="presence"]', { hasText: 'bob left' }).waitFor();
  assertNoComplaints(alice);
});

test('the page comes over https, and connects by wss', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'roomcast-tls-'));
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=localhost'];
  execFileSync('openssl', [...request, '-keyout', key, '-out', cert], { stdio: 'ignore' });
  const secure = await startServer({ flags: ['--listen', 'tls:127.0.0.1:0', '--tls-cert', cert, '--tls-key', key] });
  const trusting = await browser.newContext({ ignoreHTTPSErrors: true });
  try {
    const alice = await openTab(trusting, secure.secureUrl, { name: 'alice', room: 'secret' });
    const bob = await openTab(context, secure.url, { name: 'bob', room: 'secret' });
    await say(alice, 'in secret');
    await message(bob, 'in secret').waitFor();
    await say(bob, 'in the open');
    await message(alice, 'in the open').waitFor();
    assert.match(await alice.evaluate(() => window.sockets[0].url), /^wss:/);
    assertNoComplaints(alice, bob);
  } finally {
    await trusting.close();
    await secure.stop();
    rmSync(folder, { recursive: true });
  }
});

test('the page asks for a token where the server needs one, and says so when it is no good any more', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'roomcast-token-'));
  const secret = join(folder, 'secret');
  writeFileSync(secret, 'a secret that is long enough for the browser');
  const strict = await startServer({ flags: ['--token-secret-file', secret] });
  try {
    const alice = await openTab(context, strict.url, { wanted: 'closed' });
    assert.equal(await alice.textContent('#status-text'), 'Token needed');
    const enter = async (token) => {
      await alice.fill('#token', token);
      await alice.click('#settings-save');
    };
    await enter('');
    await alice.locator('#settings-error', { hasText: 'This server asks for a token.' }).waitFor();
    await enter('nonsense');
    await alice.locator('#outage-text', { hasText: 'your token is wrong or has expired' }).waitFor();
    await screenshot(alice, 'wrong-token');
    await alice.click('#change-token');
    await enter(makeToken(secret, 'alice', '--name', 'Alice', '--ttl', '5s'));
    await state(alice, 'online');
    assert.equal(await alice.textContent('#me'), 'Alice');
    await say(alice, 'I am in');
    await message(alice, 'I am in').waitFor();
    await state(alice, 'closed');
    assert.equal(await alice.textContent('#outage-text'), 'Your token has expired.');
    await alice.click('#change-token');
    await enter(makeToken(secret, 'alice', '--ttl', '1h'));
    await state(alice, 'online');
    await alice.reload();
    await state(alice, 'online');
    assert.equal(await alice.textContent('#me'), 'alice');
    assert.ok(alice.complaints.every((complaint) => NETWORK_COMPLAINT.test(complaint)), alice.complaints.join());
  } finally {
    await strict.stop();
    rmSync(folder, { recursive: true });
  }
});

test('two tabs on two nodes talk, and see each other come, type and go', async () => {
  const redis = startRedis();
  const nodes = [];
  try {
    for (let i = 0; i < 2; i += 1) {
      nodes.push(await startServer({ flags: ['--redis', redis.url, '--presence-grace', '1s'] }));
    }
    const alice = await openTab(context, nodes[0].url, { name: 'alice', room: 'nodes' });
    const bob = await openTab(context, nodes[1].url, { name: 'bob', room: 'nodes' });
    await alice.locator('.notice[data-kind="presence"]', { hasText: 'bob joined' }).waitFor();
    await bob.locator('#members [data-user="alice"]').waitFor();
    await bob.type('#text', 'Hello, ');
    await alice.locator('#typing', { hasText: 'bob is typing…' }).waitFor();
    await bob.type('#text', 'over there!');
    await bob.press('#text', 'Enter');
    await message(alice, 'Hello, over there!').waitFor();
    await say(alice, 'Hello, too!');
    await message(bob, 'Hello, too!').waitFor();
    assert.deepEqual(await texts(bob), ['Hello, over there!', 'Hello, too!']);
    await screenshot(alice, 'two-nodes');
    await bob.close();
    await alice.locator('.notice[data-kind="presence"]', { hasText: 'bob left' }).waitFor();
    assertNoComplaints(alice);
  } finally {
    await Promise.all(nodes.map((node) => node.stop()));
    await redis.stop();
  }
});

test('who is taken out of a room is told, cannot write, and may join again', async () => {
  const redis = startRedis();
  const node = await startServer({ flags: ['--redis', redis.url] });
  try {
    const alice = await openTab(context, node.url, { name: 'alice', room: 'court' });
    const bob = await openTab(context, node.url, { name: 'bob', room: 'court' });
    await say(alice, 'objection!');
    await message(bob, 'objection!').waitFor();
    kick(redis, 'court', 'alice');
    await alice.locator('.notice[data-kind="removed"]', { hasText: 'not in this room any more' }).waitFor();
    await bob.locator('.notice[data-kind="presence"]', { hasText: 'alice left' }).waitFor();
    assert.ok(await alice.locator('#text').isDisabled() && await alice.locator('#send').isDisabled());
    assert.equal(await alice.textContent('#members-count'), '0');
    await say(bob, 'order!');
    await screenshot(alice, 'taken-out');
    // A new connection does not bring her back; she does.
    await alice.evaluate(() => window.sockets.at(-1).close());
    await eventually(() => alice.evaluate(() => window.sockets.length), (count) => count > 2, 'a new connection');
    await state(alice, 'online');
    assert.deepEqual(await texts(alice), ['objection!']);
    await alice.getByText('Join again').click();
    await message(alice, 'order!').waitFor();
    await say(alice, 'I rest my case');
    await message(bob, 'I rest my case').waitFor();
    assertNoComplaints(alice, bob);
  } finally {
    await node.stop();
    await redis.stop();
  }
});

test('a muted user is told, and so is a banned one, whose page does not try again', async () => {
  const node = await startServer({ flags: API_FLAGS });
  try {
    const alice = await openTab(context, node.url, { name: 'alice', room: 'court' });
    await command(node, 'mute', { userId: 'alice', room: 'court', reason: 'too loud', ttlSeconds: 3600 });
    await say(alice, 'objection!');
    await alice.locator('.notice[data-kind="error"]', { hasText: 'You are muted: too loud. Nobody here sees what you write until' }).waitFor();
    await command(node, 'unmute', { userId: 'alice', room: 'court' });
    await say(alice, 'thank you');
    await message(alice, 'thank you').waitFor();
    await command(node, 'ban', { userId: 'alice', reason: 'contempt' });
    await alice.getByText('You are banned from this server: contempt.').waitFor();
    await state(alice, 'closed');
    assertNoComplaints(alice);
  } finally {
    await node.stop();
  }
});

test('two tabs without a name are two guests', async () => {
  const one = await openTab(context, server.url, { room: 'guests' });
  const other = await openTab(context, server.url, { room: 'guests' });
  await eventually(() => one.textContent('#members-count'), (count) => count === '2', 'two members');
  assert.notEqual(await one.textContent('#me'), await other.textContent('#me'));
  assertNoComplaints(one, other);
});

test('HTML stays text', async () => {
  const alice = await openTab(context, server.url, { name: 'alice', room: 'markup' });
  const bob = await openTab(context, server.url, { name: 'bob', room: 'markup' });
  const nasty = '<img src=x onerror="document.title=\'owned\'"><b>bold</b></script><script>document.title="owned"</script> &amp;';
  await say(alice, nasty);
  await message(bob, nasty).waitFor();
  for (const tab of [alice, bob]) {
    assert.deepEqual(await texts(tab), [nasty]);
    assert.equal(await tab.locator('#log').locator('img, b, script').count(), 0);
    assert.equal(await tab.title(), 'markup · Roomcast');
  }
  await screenshot(bob, 'html-stays-text');
  assertNoComplaints(alice, bob);
});

test('a reload keeps the name, shows history, and is no absence', async () => {
  const alice = await openTab(context, server.url, { name: 'alice', room: 'reload' });
  const bob = await openTab(context, server.url, { name: 'bob', room: 'reload' });
  await say(alice, 'before the reload');
  await message(bob, 'before the reload').waitFor();
  await alice.reload();
  await state(alice, 'online');
  await message(alice, 'before the reload').waitFor();
  assert.equal(await alice.textContent('#me'), 'alice');
  await say(alice, 'after the reload');
  await message(bob, 'after the reload').waitFor();
  await screenshot(alice, 'after-reload');
  // Her real departure is the proof that absences are seen here; had the reload been one, there would be two.
  await alice.close();
  const presence = () => texts(bob, '.notice[data-kind="presence"] span');
  await eventually(presence, (lines) => lines.includes('alice left'), 'alice leaves');
  assert.deepEqual(await presence(), ['alice left']);
  assertNoComplaints(bob);
});

test('a guest is the same guest after a reload', async () => {
  const tab = await openTab(context, server.url, { room: 'guest-reload' });
  const name = await tab.textContent('#me');
  assert.match(name, /^guest-/);
  await tab.reload();
  await state(tab, 'online');
  assert.equal(await tab.textContent('#me'), name);
});

test('a user with nothing behind "guest-" is shown like everybody', async () => {
  const bob = await openTab(context, server.url, { name: 'bob', room: 'nameless' });
  const guest = await openTab(context, server.url, { name: 'guest-', room: 'nameless' });
  await say(guest, 'hello');
  await message(bob, 'hello').waitFor();
  await message(guest, 'hello').waitFor();
  assert.deepEqual(await texts(bob, '.message .avatar'), ['G']);
  assertNoComplaints(bob, guest);
});

test('the server dies and comes back: both tabs return, and what was written meanwhile arrives once', async (t) => {
  let mortal = await startServer();
  t.after(() => mortal.stop()); // also when the test fails: a server left running would keep the run from ending
  const alice = await openTab(context, mortal.url, { name: 'alice' });
  const bob = await openTab(context, mortal.url, { name: 'bob' });
  await say(alice, 'before the crash');
  await message(bob, 'before the crash').waitFor();

  await mortal.stop('SIGKILL');
  await state(alice, 'offline');
  await state(bob, 'offline');
  await say(alice, 'written while offline');
  await alice.locator('.message[data-state="pending"]', { hasText: 'written while offline' }).waitFor();
  assert.match(await alice.textContent('#outage-text'), /^(The connection was lost|The server cannot be reached)\. What you write waits here/);
  await screenshot(alice, 'offline');
  const attempts = () => alice.evaluate(() => window.sockets.length);
  const attemptsBefore = await attempts();
  await alice.click('#retry');
  assert.ok(await attempts() > attemptsBefore, '“Try now” tries now');

  mortal = await startServer({ port: mortal.port });
  await state(alice, 'online');
  await state(bob, 'online');
  await message(alice, 'written while offline').waitFor();
  await message(bob, 'written while offline').waitFor();
  await say(bob, 'welcome back');
  await message(alice, 'welcome back').waitFor();
  for (const tab of [alice, bob]) {
    // The history of this server lived in its memory: what was shown before stays, and is marked.
    assert.deepEqual(await texts(tab, '.message.before .text'), ['before the crash']);
    assert.deepEqual(await texts(tab), ['before the crash', 'written while offline', 'welcome back']);
    assert.equal(await tab.locator('.notice[data-kind="gap"]').count(), 1);
  }
  await screenshot(bob, 'after-restart');
  // Chromium itself logs each refused connection; nothing else may be there.
  for (const tab of [alice, bob]) assert.deepEqual(tab.complaints.filter((text) => !NETWORK_COMPLAINT.test(text)), []);
});

test('a lost socket loses nothing, doubles nothing, and keeps the order', async () => {
  const alice = await openTab(context, server.url, { name: 'alice', room: 'resume' });
  const bob = await openTab(context, server.url, { name: 'bob', room: 'resume' });
  const expected = [];
  for (let index = 1; index <= 30; index++) {
    if (index === 6 || index === 20) {
      // Without a network the attempts to come back fail, until the browser says that it is online again.
      await context.setOffline(index === 20);
      await alice.evaluate(() => window.sockets.at(-1).close());
      await state(alice, 'offline');
    }
    if (index === 8) await say(alice, 'said in the gap');
    if (index === 14) await state(alice, 'online');
    if (index === 26) await context.setOffline(false);
    expected.push(`m${index}`);
    await say(bob, `m${index}`);
  }
  await state(alice, 'online');
  await message(alice, 'm30').waitFor();
  await message(bob, 'said in the gap').waitFor();
  assert.deepEqual(await texts(alice, '.message[data-user="bob"] .text'), expected);
  assert.deepEqual(await texts(alice), await texts(bob), 'both see one order');
  const order = await alice.locator('.message').evaluateAll((elements) => elements.map((element) => Number(element.dataset.seq)));
  assert.deepEqual(order, Array.from({ length: 31 }, (_, index) => index + 1));
  assert.equal(await alice.locator('.notice[data-kind="gap"]').count(), 0);
  await screenshot(alice, 'after-resume');
  for (const tab of [alice, bob]) assert.deepEqual(tab.complaints.filter((text) => !NETWORK_COMPLAINT.test(text)), []);
});

test('rooms are apart; the address names the room', async () => {
  const alice = await openTab(context, server.url, { name: 'alice', room: 'first' });
  const bob = await openTab(context, server.url, { name: 'bob', room: 'first' });
  await say(alice, 'in the first');
  await message(bob, 'in the first').waitFor();
  await joinRoom(alice, 'second room');
  assert.equal(await alice.textContent('#room-name'), 'second-room', 'spaces become hyphens');
  assert.equal(new URL(alice.url()).hash, '#second-room');
  await say(bob, 'still there?');
  await say(bob, '@alice, are you?');
  await say(alice, 'in the second');
  await message(alice, 'in the second').waitFor();
  await alice.locator('#rooms [data-room="first"] .badge', { hasText: '@ 2' }).waitFor();
  assert.equal(await alice.title(), '(2) second-room · Roomcast');
  assert.deepEqual(await texts(alice), ['in the second']);
  await alice.goto(`${server.url}#first`);
  await alice.locator('.message.mention mark', { hasText: '@alice' }).waitFor();
  assert.deepEqual(await texts(alice), ['in the first', 'still there?', '@alice, are you?']);
  assert.equal(await alice.locator('#rooms .badge').count(), 0);
  assert.equal(await alice.title(), 'first · Roomcast');
  await alice.click('#rooms [data-room="second-room"]');
  await alice.click('#leave');
  assert.equal(await alice.textContent('#room-name'), 'first');
  assert.deepEqual(await texts(alice, '#rooms .label'), ['first']);
  assertNoComplaints(alice, bob);
});

test('a name that the server would refuse is explained in the page', async () => {
  const tab = await openTab(context, server.url, { room: 'names' });
  await tab.click('#me-button');
  await tab.fill('#name', 'a?b');
  await tab.click('#settings-save');
  await tab.locator('#settings-error', { hasText: '“?” is not allowed' }).waitFor();
  await screenshot(tab, 'settings');
  await tab.fill('#name', 'Zoë Müller');
  await tab.press('#name', 'Enter');
  await tab.locator('#members [data-user="Zoë-Müller"]').waitFor();
  assertNoComplaints(tab);
});

test('who reads older messages stays there; who is at the bottom follows', async () => {
  const alice = await openTab(context, server.url, { name: 'alice', room: 'scroll' });
  const bob = await openTab(context, server.url, { name: 'bob', room: 'scroll' });
  for (let index = 1; index <= 30; index++) await say(bob, `line ${index}`);
  await message(alice, 'line 30').waitFor();
  const fromBottom = () => alice.locator('#log').evaluate((log) => log.scrollHeight - log.scrollTop - log.clientHeight);
  assert.ok(await fromBottom() < 2);
  await alice.locator('#log').evaluate((log) => { log.scrollTop = 0; });
  await say(bob, 'news');
  await message(alice, 'news').waitFor();
  assert.equal(await alice.locator('#log').evaluate((log) => log.scrollTop), 0);
  await alice.click('#to-newest');
  assert.ok(await fromBottom() < 2);
  assertNoComplaints(alice, bob);
});

test('a phone shows all of it, without scrolling sideways', async () => {
  const phone = await browser.newContext({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: 'dark' });
  try {
    const bob = await openTab(context, server.url, { name: 'bob', room: 'a-room-with-quite-a-long-name-for-a-phone' });
    const alice = await openTab(phone, server.url, { name: 'alice-with-a-rather-long-name', room: 'a-room-with-quite-a-long-name-for-a-phone' });
    await say(bob, `https://example.com/${'very-long-path/'.repeat(12)}`);
    await say(bob, 'x'.repeat(300));
    await message(alice, 'x'.repeat(300)).waitFor();
    await say(alice, 'Reads well on a phone.');
    await message(bob, 'Reads well on a phone.').waitFor();
    const overflow = () => alice.evaluate(() => Math.max(...[document.documentElement, document.getElementById('log')]
      .map((element) => element.scrollWidth - element.clientWidth)));
    assert.equal(await overflow(), 0);
    assert.equal(await alice.locator('#members').isVisible(), false);
    await screenshot(alice, 'phone');
    await alice.tap('#members-button');
    await alice.locator('#members [data-user="bob"]').waitFor();
    assert.equal(await overflow(), 0);
    await screenshot(alice, 'phone-members');
    assertNoComplaints(alice, bob);
  } finally {
    await phone.close();
  }
});

test('a client that knows only chat, join, presence and error works', async () => {
  const tab = await openTab(context, server.url, { name: 'bob', room: 'minimal' });
  const heard = tab.evaluate((deadline) => new Promise((resolve, reject) => {
    const known = ['chat', 'presence', 'error'];
    const log = [];
    const socket = new WebSocket(`ws://${location.host}/ws?userId=minimal`);
    const send = (message) => socket.send(JSON.stringify(message));
    socket.onopen = () => {
      send({ type: 'join', room: 'minimal' });
      send({ type: 'chat', room: 'minimal', text: 'hello from little' });
      send({ type: 'chat', room: 'elsewhere', text: 'not joined' });
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (!known.includes(message.type)) return;
      log.push(message);
      if (message.type !== 'chat' || message.text !== 'hello to little') return;
      socket.close();
      resolve(log);
    };
    setTimeout(() => reject(new Error(`heard only ${JSON.stringify(log)}`)), deadline);
  }), DEADLINE_MS);
  await message(tab, 'hello from little').waitFor();
  await tab.locator('.notice[data-kind="presence"]', { hasText: 'minimal joined' }).waitFor();
  await say(tab, 'hello to little');
  const log = await heard;
  const brief = log.map(({ type, userId, text, status, code }) => [type, userId ?? code, text ?? status].join(' ').trim());
  for (const line of ['presence minimal online', 'chat minimal hello from little', 'error not_joined', 'chat bob hello to little']) {
    assert.ok(brief.includes(line), `${line} is missing in ${JSON.stringify(brief)}`);
  }
  assertNoComplaints(tab);
});
