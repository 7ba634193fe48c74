// The client in a real Chromium against the real server: why a handshake failed, workers, and the examples.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from '../../client/js/node_modules/esbuild/lib/main.js';
import { DEADLINE_MS, eventually, makeToken, openTab, startBrowser, startServer, state } from './harness.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const KEY = 'a-key-of-the-test-0123456789';

let browser;
let server;
let pages; // a web server of somebody else
let origin; // its origin, from which pages may connect to the server
let context;
const made = new Map(); // path -> text that the web server gives besides files of the project

before(async () => {
  pages = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    const kind = { '.js': 'text/javascript', '.html': 'text/html' }[extname(pathname)] ?? 'text/html';
    const text = made.get(pathname) ?? (existsSync(join(ROOT, pathname)) ? readFileSync(join(ROOT, pathname)) : undefined);
    response.writeHead(text === undefined ? 404 : 200, { 'Content-Type': kind }).end(text);
  });
  await new Promise((done) => { pages.listen(0, '127.0.0.1', done); });
  origin = `http://127.0.0.1:${pages.address().port}`;
  server = await startServer({ flags: ['--allow-origin', origin, '--api-key', KEY] });
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await server?.stop();
  pages?.close();
});
beforeEach(async () => {
  made.clear();
  context = await browser.newContext();
});
afterEach(() => context.close());

async function command(path, body) {
  const headers = { Authorization: `Bearer ${KEY}`, 'Content-Type': 'application/json' };
  const response = await fetch(`${server.url}api/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  assert.equal(response.status, 200, await response.text());
}

/** Opens a page of the web server, in which `errors` collects exceptions. */
async function open(path, text) {
  if (text) made.set(path, text);
  const tab = await context.newPage();
  tab.setDefaultTimeout(DEADLINE_MS);
  tab.errors = [];
  tab.on('pageerror', (error) => tab.errors.push(String(error)));
  await tab.goto(origin + path);
  return tab;
}

/** How a client of a page of another origin ends its attempt: its last status but `connecting`. */
async function attempt(url, options) {
  const tab = await open('/attempt.html', `<!doctype html><link rel="icon" href="data:,"><script src="${server.url}roomcast.js"></script>`);
  return tab.evaluate(([address, given]) => new Promise((done) => {
    const chat = new Roomcast(address, given);
    chat.on('status', (detail) => { if (detail.status !== 'connecting') done(detail); });
    chat.connect();
  }), [url, options]);
}

test('a banned user who reloads the page is told so', async () => {
  const alice = await openTab(context, server.url, { name: 'alice', room: 'court' });
  await command('ban', { userId: 'alice', reason: 'contempt' });
  await alice.getByText('You are banned from this server: contempt.').waitFor();
  await alice.reload();
  await state(alice, 'closed');
  await alice.getByText('You are banned from this server: contempt.').waitFor();
  await command('unban', { userId: 'alice' });
  await alice.click('#retry');
  await state(alice, 'online');
});

test('a page of another origin learns why its handshake was refused', async () => {
  const closed = (cause, code, reason) => (found) => {
    assert.deepEqual([found.status, found.cause, found.code], ['closed', cause, code], JSON.stringify(found));
    assert.match(found.reason, reason);
  };
  await command('ban', { userId: 'mallory' });
  closed('banned', 403, /^banned$/)(await attempt(server.url + 'ws', { userId: 'mallory' }));
  closed('bad_request', 400, /this server takes none/)(await attempt(server.url + 'ws', { token: 'abc' }));
  const missing = await attempt(server.url + 'chat');
  assert.deepEqual([missing.status, missing.cause], ['offline', 'unreachable'], 'other paths are not for pages of other origins');

  const folder = mkdtempSync(join(tmpdir(), 'roomcast-causes-'));
  const secret = join(folder, 'secret');
  writeFileSync(secret, 'a secret that is long enough for the browser');
  const [strict, other] = await Promise.all([
    startServer({ flags: ['--token-secret-file', secret, '--allow-origin', origin] }),
    startServer(),
  ]);
  try {
    closed('token_needed', 401, /token/)(await attempt(`${strict.url}ws`));
    closed('token_refused', 401, /./)(await attempt(`${strict.url}ws`, { token: 'nonsense' }));
    assert.equal((await attempt(`${strict.url}ws`, { token: makeToken(secret, 'alice') })).status, 'online');
    closed('origin', 403, new RegExp(`--allow-origin ${origin}`))(await attempt(`${other.url}ws`));
    await other.stop();
    const away = await attempt(`${other.url}ws`);
    assert.deepEqual([away.status, away.cause], ['offline', 'unreachable']);
  } finally {
    await Promise.all([strict.stop(), other.stop()]);
    rmSync(folder, { recursive: true });
  }
});

const IN_WORKER = `
  const chat = new Roomcast(url, { userId: 'worker' });
  const room = chat.room('lobby');
  room.on('chat', ({ text, own }) => postMessage({ text, own }));
  chat.connect().then(() => room.join()).then(() => room.say('from a worker')).then(({ seq }) => postMessage({ seq }), (error) => postMessage({ error: String(error) }));
`;

test('the client works in workers, as a module and as a classic script', async () => {
  const url = JSON.stringify(`${server.url}ws`);
  made.set('/module.js', `import { Roomcast } from '/client/js/src/index.js'; const url = ${url}; ${IN_WORKER}`);
  made.set('/classic.js', `importScripts('${server.url}roomcast.js'); const url = ${url}; ${IN_WORKER}`);
  const tab = await open('/workers.html', '<!doctype html><link rel="icon" href="data:,">');
  for (const [script, type] of [['/module.js', 'module'], ['/classic.js', 'classic']]) {
    const found = await tab.evaluate(([path, kind]) => new Promise((done) => {
      const heard = [];
      const worker = new Worker(path, { type: kind });
      worker.onerror = (error) => done([error.message]);
      worker.onmessage = ({ data }) => { if (heard.push(data) === 2 || data.error) done(heard); };
    }), [script, type]);
    const { seq } = found.find((one) => one.seq) ?? {};
    assert.ok(seq > 0 && found.some(({ text, own }) => text === 'from a worker' && own), `${type}: ${JSON.stringify(found)}`);
  }
});

test('the plain page of the examples shows history, receives and says', async () => {
  const text = readFileSync(join(ROOT, 'examples/web-page/index.html'), 'utf8').replaceAll('localhost:8080', new URL(server.url).host);
  const script = text.slice(text.indexOf('<script src')).trim().split('\n');
  assert.ok(script.length - 3 <= 10, 'ten typed lines add chat to a page');
  await command('publish', { room: 'lobby', userId: 'bot', text: 'said before' });
  const [one, two] = [await open('/one.html', text), await open('/two.html', text)];
  for (const tab of [one, two]) await tab.getByText('bot: said before').waitFor();
  await one.fill('#text', 'hello from the page');
  await one.press('#text', 'Enter');
  for (const tab of [one, two]) await tab.getByText(/^guest-\w+: hello from the page$/).waitFor();
  assert.deepEqual([one.errors, two.errors], [[], []]);
});

test('the React hook of the examples has at most 60 lines, and shows a room', async () => {
  const hook = readFileSync(join(ROOT, 'examples/react/useRoom.js'), 'utf8');
  assert.ok(hook.trimEnd().split('\n').length <= 60);
  const entry = `
    import { StrictMode, createElement } from 'react';
    import { createRoot } from 'react-dom/client';
    import { Chat } from './Chat.jsx';
    const root = createRoot(document.querySelector('#root'));
    window.show = (room) => root.render(createElement(StrictMode, null, createElement(Chat, { url: ${JSON.stringify(`${server.url}ws`)}, userId: location.hash.slice(1), room })));
    window.show('react');
  `;
  const { outputFiles: [{ text }] } = await build({
    stdin: { contents: entry, resolveDir: join(ROOT, 'examples/react') },
    bundle: true,
    write: false,
    jsx: 'automatic',
    alias: { roomcast: join(ROOT, 'client/js/src/index.js') },
    nodePaths: [join(ROOT, 'tests/browser/node_modules')],
    define: { 'process.env.NODE_ENV': '"development"' },
  });
  made.set('/app.js', text);
  const html = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><div id="root"></div><script src="/app.js"></script>';
  made.set('/react.html', html);
  const [alice, bob] = [await open('/react.html#alice'), await open('/react.html#bob')];
  for (const tab of [alice, bob]) await tab.getByRole('status').getByText('2 here').waitFor();
  await alice.getByLabel('Message').fill('hello');
  await bob.getByText('alice typing…').waitFor();
  await alice.getByLabel('Message').press('Enter');
  for (const tab of [alice, bob]) await tab.locator('li[data-state=sent]', { hasText: 'alice: hello' }).waitFor();
  assert.equal(await alice.locator('li').count(), 1, 'its own message is shown once');
  await alice.evaluate(() => window.show('elsewhere'));
  await bob.getByRole('status').getByText('1 here').waitFor();
  await eventually(() => alice.locator('li').count(), (count) => count === 0, 'another room is another list');
  assert.deepEqual([alice.errors, bob.errors], [[], []]);
});
