// Every command and snippet of the pages, run in the order of its page: see docs/internals/testing.md for the kinds of blocks.
//
// What is substituted: `cargo run --release` by the program that the tests have built, `localhost:8080` by the address of the
// server that the page has started, `redis://localhost:6379` by the Redis that it has started, `localhost:9000` by the address of
// its back-end, and the origin `http://localhost:3000` by the one of the pages that this test serves.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { DEADLINE_MS, eventually, startBackEnd, startBrowser, startRedis, startServer } from '../browser/harness.mjs';
import { PYTHON } from '../clients/python.mjs';
import { ROOT, pages } from './markdown.mjs';
import { LOAD_TEST, PROGRAM } from './program.mjs';

const PAGE_ORIGIN = 'http://localhost:3000';

let browser;
let pageServer;
let pageOrigin;
let html = ''; // what the page server answers
let programs; // a folder of the programs, by the names that the pages give them

before(async () => {
  browser = await startBrowser();
  pageServer = createServer((_, response) => response.setHeader('Content-Type', 'text/html').end(html));
  await new Promise((done) => { pageServer.listen(0, '127.0.0.1', done); });
  pageOrigin = `http://127.0.0.1:${pageServer.address().port}`;
  programs = mkdtempSync(join(tmpdir(), 'roomcast-docs-'));
  symlinkSync(resolve(PROGRAM), join(programs, 'roomcast'));
  symlinkSync(resolve(LOAD_TEST), join(programs, 'roomcast-load'));
});
after(async () => {
  await browser?.close();
  pageServer?.close();
  rmSync(programs, { recursive: true });
});

test('Rust blocks are doctests, and dependencies are those of Cargo.toml', () => {
  const library = readFileSync(join(ROOT, 'src/lib.rs'), 'utf8');
  const manifest = readFileSync(join(ROOT, 'Cargo.toml'), 'utf8');
  for (const { path, blocks } of pages()) {
    if (blocks.some(({ kind }) => kind.startsWith('rust'))) {
      assert.ok(library.includes(`include_str!("../${path}")`), `${path} is not among the doctests of src/lib.rs`);
    }
    for (const { where, text } of blocks.filter(({ kind }) => kind === 'toml')) checkDependencies(where, text, manifest);
  }
});

function checkDependencies(where, text, manifest) {
  for (const [, name, version] of text.matchAll(/^([a-z-]+) = \{ version = "([^"]+)"/gm)) {
    const pattern = name === 'roomcast' ? /^version = "([^"]+)"/m : new RegExp(`^${name} = (?:\\{ version = )?"([^"]+)"`, 'm');
    const ours = pattern.exec(manifest)?.[1];
    assert.ok(ours?.startsWith(version), `${where}: ${name} is ${ours}, not ${version}`);
  }
  for (const [, features] of text.matchAll(/^roomcast = .*features = \[([^\]]*)\]/gm)) {
    for (const [, feature] of features.matchAll(/"([^"]+)"/g)) assert.match(manifest, new RegExp(`^${feature} = \\[`, 'm'), `${where}: no feature ${feature}`);
  }
}

/** What a page has started so far. */
class Stage {
  #server = null;
  #redis = null;
  #backEnd = null;
  #context = null;
  #python = null;
  #complaints = [];
  output = ''; // of the last command
  tab = null; // of the last page
  talk = null; // the conversation over a WebSocket

  async serve(flags) {
    await this.#server?.stop();
    this.talk = null;
    this.#server = null;
    this.#server = await startServer({ flags: [...flags, '--allow-origin', pageOrigin] });
  }

  async server() {
    if (!this.#server) await this.serve([]);
    return this.#server;
  }

  async startRedis(flags) {
    this.#redis = startRedis({ flags });
    return this.redis();
  }

  redis() {
    assert.ok(this.#redis, 'the page has started no Redis');
    return this.#redis;
  }

  async startBackEnd(command) {
    this.#backEnd = await startBackEnd(command, ROOT);
  }

  /** The text with the addresses of what really runs. */
  async substitute(text) {
    let found = text.replaceAll('cargo run --release --', 'roomcast').replaceAll('cargo run --release', 'roomcast').replaceAll(PAGE_ORIGIN, pageOrigin);
    if (this.#redis) found = found.replaceAll('redis://localhost:6379', this.#redis.url);
    if (this.#backEnd) found = found.replaceAll('localhost:9000', new URL(this.#backEnd.url).host);
    if (/localhost:8080/.test(found)) found = found.replaceAll('localhost:8080', new URL((await this.server()).url).host);
    return found;
  }

  async open(text) {
    this.#context ??= await browser.newContext();
    const tab = await this.#context.newPage();
    tab.setDefaultTimeout(DEADLINE_MS);
    tab.on('pageerror', (error) => this.#complaints.push(String(error)));
    tab.on('console', (message) => { if (message.type() === 'error' && !message.text().includes('favicon')) this.#complaints.push(message.text()); });
    html = `<!doctype html><link rel="icon" href="data:,">${text}`;
    await tab.goto(pageOrigin);
    return tab;
  }

  /** Runs a snippet of Python behind those before it. */
  async runPython(text) {
    this.#python ??= new PythonSession();
    assert.equal(await this.#python.run(text), null);
  }

  /** Nothing on a page has failed so far. */
  check() {
    assert.deepEqual(this.#complaints, []);
  }

  async end() {
    await this.#context?.close();
    await this.#python?.end();
    await this.#server?.stop();
    await this.#redis?.stop();
    await this.#backEnd?.stop();
  }
}

/** A Python that runs snippets one after the other; session.py has more. */
class PythonSession {
  #child = spawn(PYTHON, [join(ROOT, 'tests/docs/session.py')], { stdio: ['pipe', 'pipe', 'ignore'] });
  #exited = new Promise((done) => { this.#child.once('exit', done).once('error', done); });
  #errors = [];

  constructor() {
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#errors.push(JSON.parse(line).error));
  }

  /** The failures of a snippet, or null. */
  async run(text) {
    const count = this.#errors.length;
    this.#child.stdin.write(`${JSON.stringify({ text })}\n`);
    await eventually(() => this.#errors.length, (found) => found > count, 'the snippet ends');
    return this.#errors.at(-1);
  }

  async end() {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}

function shell(text) {
  const env = { ...process.env, PATH: [programs, process.env.PATH].join(delimiter) };
  return execFileSync('bash', ['-euo', 'pipefail', '-c', text], { cwd: ROOT, env, timeout: DEADLINE_MS, stdio: ['ignore', 'pipe', 'pipe'] }).toString();
}

/** The words of a command without its first one, as the shell splits them. */
function words(text) {
  return shell(`printf '%s\\0' ${text}`).split('\0').slice(1, -1);
}

/** What differs in shape: other fields, or values of another kind. A list is compared by its first entries. */
function difference(found, wanted, path = 'it') {
  const kind = (value) => (Array.isArray(value) ? 'list' : value === null ? 'null' : typeof value);
  if (kind(found) !== kind(wanted)) return `${path} is ${JSON.stringify(found)}, not like ${JSON.stringify(wanted)}`;
  if (kind(found) === 'list') return found.length && wanted.length ? difference(found[0], wanted[0], `${path}[0]`) : '';
  if (kind(found) !== 'object') return '';
  const [has, needs] = [found, wanted].map((value) => Object.keys(value).sort().join(', '));
  if (has !== needs) return `${path} has ${has}, not ${needs}`;
  return Object.keys(wanted).map((key) => difference(found[key], wanted[key], `${path}.${key}`)).find(Boolean) ?? '';
}

/** A WebSocket of a page that the server itself serves; what comes is kept until it is awaited. */
async function startTalk(stage) {
  const { port } = await stage.server();
  const tab = await stage.open('');
  await tab.evaluate((url) => {
    window.received = [];
    window.socket = new WebSocket(url, 'roomcast.v1');
    window.socket.onmessage = ({ data }) => window.received.push(JSON.parse(data));
    return new Promise((done, fail) => Object.assign(window.socket, { onopen: done, onerror: fail }));
  }, `ws://127.0.0.1:${port}/ws?userId=alice`);
  return tab;
}

const WITNESS = `<script src="http://localhost:8080/roomcast.js"></script><script>
  const chat = new Roomcast('ws://localhost:8080/ws', { userId: 'witness' });
  chat.join('lobby');
  chat.connect();
</script>`;

/** Says something in the lobby by another page, and waits until it was accepted. */
async function say(tab, text) {
  await tab.evaluate((words) => chat.say('lobby', words), text);
}

function bodyHas(tab, text) {
  return eventually(() => tab.innerText('body'), (body) => body.includes(text), `the page shows ${text}`);
}

/** How each kind of block is run. */
const WAYS = {
  async sh(stage, { text }) {
    stage.output = shell(await stage.substitute(text));
  },

  async 'sh serve'(stage, { text }) {
    const flags = words((await stage.substitute(text.replace('--listen 127.0.0.1:8080', ''))).trim());
    await stage.serve(flags);
  },

  async 'sh redis'(stage, { text }) {
    await stage.startRedis(words(text.trim()));
  },

  async 'sh back-end'(stage, { text }) {
    await stage.startBackEnd(text.trim());
  },

  async 'redis acl'(stage, { text }) {
    const socket = stage.redis().url.replace('unix://', '');
    const [, , user, , password] = text.trim().split(' ');
    const answer = execFileSync('redis-cli', ['-s', socket, ...text.trim().split(' ')]).toString().trim();
    assert.equal(answer, 'OK');
    const key = 'a-key-of-the-tests-of-the-pages';
    await stage.serve(['--api-key', key, '--redis', `${stage.redis().url}?user=${user}&pass=${password.slice(1)}`]);
    const { url } = await stage.server();
    const headers = { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' };
    const body = JSON.stringify({ room: 'lobby', text: 'by the documented user' });
    const publish = () => fetch(`${url}api/publish`, { method: 'POST', headers, body }).then(async (response) => `${response.status} ${await response.text()}`);
    await eventually(publish, (found) => found.startsWith('200'), 'a message is published');
  },

  async json(stage, { text }) {
    assert.equal(difference(JSON.parse(stage.output), JSON.parse(text)), '');
  },

  async 'json client'(stage, { text }) {
    stage.talk ??= await startTalk(stage);
    for (const line of text.trim().split('\n')) await stage.talk.evaluate((message) => socket.send(message), line);
  },

  async 'json server'(stage, { text }) {
    stage.talk ??= await startTalk(stage);
    for (const line of text.trim().split('\n')) {
      const message = JSON.parse(line);
      const found = await eventually(() => stage.talk.evaluate(() => received[0]), Boolean, `the server sends ${message.type}`);
      await stage.talk.evaluate(() => received.shift());
      assert.equal(difference(found, message), '');
      assert.equal(found.type, message.type);
    }
  },

  async 'html page'(stage, { text }) {
    const witness = await stage.open(await stage.substitute(WITNESS));
    await say(witness, 'said before the page was opened');
    stage.tab = await stage.open(await stage.substitute(text));
    await bodyHas(stage.tab, 'said before the page was opened');
    await say(witness, 'said while the page is open');
    await bodyHas(stage.tab, 'said while the page is open');
    stage.check();
  },

  async js(stage, { text }) {
    assert.ok(stage.tab, 'the page has no html page before it');
    await stage.tab.addScriptTag({ content: await stage.substitute(text) });
    stage.check();
  },

  async python(stage, { text }) {
    await stage.runPython(await stage.substitute(text));
  },

  async 'python program'(stage, { text }) {
    execFileSync(PYTHON, ['-W', 'error', '-c', await stage.substitute(text)], { timeout: DEADLINE_MS, stdio: ['ignore', 'pipe', 'pipe'] });
  },

  async 'js module'(stage, { text }) {
    const project = mkdtempSync(join(tmpdir(), 'roomcast-module-'));
    try {
      mkdirSync(join(project, 'node_modules'));
      symlinkSync(join(ROOT, 'client/js'), join(project, 'node_modules/roomcast'));
      writeFileSync(join(project, 'main.mjs'), await stage.substitute(text));
      // Node 22 needs no flag for its WebSocket.
      execFileSync(process.execPath, ['--experimental-websocket', 'main.mjs'], { cwd: project, timeout: DEADLINE_MS, stdio: ['ignore', 'pipe', 'pipe'] });
    } finally {
      rmSync(project, { recursive: true });
    }
  },
};

for (const page of pages()) {
  const blocks = page.blocks.filter(({ notRun, kind }) => !notRun && kind in WAYS);
  if (blocks.length > 0) {
    test(`the samples of ${page.path} work`, { timeout: 6 * DEADLINE_MS }, async () => {
      const stage = new Stage();
      try {
        for (const block of blocks) {
          await WAYS[block.kind](stage, block).catch((error) => { throw new Error(`${block.where}: ${error.message}`, { cause: error }); });
        }
      } finally {
        await stage.end();
      }
    });
  }
}
