// What the browser tests stand on: the real server, a real Chromium, and waiting with a deadline instead of sleeping.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

export const DEADLINE_MS = 20_000;

/** Chromium itself logs each connection and each question of the client that fails. */
export const NETWORK_COMPLAINT = /^(WebSocket connection to|Failed to load resource)/;

const BINARY = process.env.ROOMCAST_BIN ?? fileURLToPath(new URL('../../target/debug/roomcast', import.meta.url));
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const CHROMIUM_FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];
const SCREENSHOTS = process.env.SCREENSHOTS ?? mkdtempSync(join(tmpdir(), 'roomcast-screenshots-'));

/** Starts the server and waits until it says where it listens. `secureUrl` is an address with `tls:` among the flags. */
export async function startServer({ port = 0, flags = [] } = {}) {
  const child = spawn(BINARY, ['--listen', `127.0.0.1:${port}`, ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
  const output = [];
  const addresses = [];
  const wanted = 1 + flags.filter((flag) => flag.startsWith('tls:')).length;
  const exited = new Promise((resolve) => {
    child.once('exit', resolve);
    child.once('error', (error) => resolve(output.push(String(error))));
  });
  const listening = new Promise((resolve) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      output.push(line);
      const found = /listening on (https?:\/\/127\.0\.0\.1:(\d+))/.exec(line);
      if (found) addresses.push(found);
      if (addresses.length === wanted) resolve(Number(addresses[0][2]));
    });
  });
  const said = () => `${BINARY} said:\n${output.join('\n')}`;
  const bound = await within(Promise.race([listening, exited.then(() => null)]), said);
  assert.ok(bound, `the server ended at once; ${said()}`);
  return {
    port: bound,
    url: `http://127.0.0.1:${bound}/`,
    secureUrl: addresses[1] && `${addresses[1][1]}/`,
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      await within(exited, () => `the server did not end on ${signal}; ${said()}`).finally(() => child.kill('SIGKILL'));
      return child.exitCode;
    },
  };
}

/** The key of servers that are started with `API_FLAGS`. */
const KEY = 'a-key-of-the-test-0123456789';
export const API_FLAGS = ['--api-key', KEY];

/** Asks the HTTP API of a server for a command, which must succeed. */
export async function command({ url }, path, body) {
  const headers = { Authorization: `Bearer ${KEY}`, 'Content-Type': 'application/json' };
  const response = await fetch(`${url}api/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  assert.equal(response.status, 200, `${path}: ${await response.text()}`);
}

/** Starts a Redis that keeps nothing, with a socket in a folder of its own. */
export function startRedis({ flags = [] } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'roomcast-redis-'));
  const path = join(folder, 'redis.sock');
  const ours = ['--port', '0', '--unixsocket', path, '--save', '', '--dir', folder];
  const child = spawn('redis-server', [...flags, ...ours], { stdio: 'ignore' });
  const exited = new Promise((resolve) => {
    child.once('exit', resolve);
    child.once('error', resolve);
  });
  return {
    url: `unix://${path}`,
    /** Takes all that it keeps. */
    empty() {
      execFileSync('redis-cli', ['-s', path, 'FLUSHALL']);
    },
    async stop() {
      child.kill('SIGKILL');
      await exited;
      rmSync(folder, { recursive: true });
    },
  };
}

/** Starts an example of a back-end, and waits until it says where it listens. */
export async function startBackEnd(command, cwd, env = {}) {
  const [program, ...words] = command.split(' ');
  const child = spawn(program, words, { cwd, env: { ...process.env, PORT: '0', ...env }, stdio: ['ignore', 'pipe', 'ignore'] });
  const exited = new Promise((resolve) => {
    child.once('exit', resolve);
    child.once('error', resolve);
  });
  const listening = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const found = /listening on (http:\S+)/.exec(line);
      if (found) resolve(found[1]);
    });
  });
  const url = await within(Promise.race([listening, exited.then(() => null)]), () => `${command} does not listen`);
  assert.ok(url, `${command} ended at once`);
  return {
    url,
    async stop() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** Takes a user out of a room, as another node's host does: a command in the room of commands. */
export function kick(redis, room, userId) {
  const ask = (...words) => execFileSync('redis-cli', ['-s', redis.url.replace('unix://', ''), ...words]).toString().trim();
  const channel = 'roomcast:{%control}';
  const [epoch, seq] = [ask('HGET', `${channel}:meta`, 'epoch'), ask('HINCRBY', `${channel}:meta`, 'seq', '1')];
  const body = JSON.stringify({ type: 'kick', room, userId, ts: Date.now() }).slice(0, -1);
  ask('PUBLISH', channel, `${epoch} ${seq} ${body}`);
}

/** A Chromium with a fresh profile; Playwright removes the profile when it is closed. */
export function startBrowser() {
  return chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS, timeout: 60_000 });
}

/** Makes a token with the program itself. */
export function makeToken(secretFile, sub, ...flags) {
  return execFileSync(BINARY, ['token', '--secret-file', secretFile, '--sub', sub, ...flags]).toString().trim();
}

/**
 * Opens the page in a new tab. `tab.complaints` collects what must stay empty: console errors, exceptions, CSP violations.
 * The page's sockets are kept in `window.sockets`, so that a test can cut them off. A question for a name is answered, unless `introduced` is false.
 */
export async function openTab(context, url, { name, room = 'lobby', wanted = 'online', introduced = true } = {}) {
  const tab = await context.newPage();
  tab.setDefaultTimeout(DEADLINE_MS);
  tab.complaints = [];
  tab.on('pageerror', (error) => tab.complaints.push(String(error)));
  tab.on('console', (message) => { if (message.type() === 'error') tab.complaints.push(message.text()); });
  await tab.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
      constructor(...args) {
        super(...args);
        window.sockets.push(this);
      }
    };
  });
  await tab.goto(`${url}#${encodeURIComponent(room)}`);
  await state(tab, wanted);
  if (wanted === 'online' && introduced) await introduce(tab, name);
  return tab;
}

/** Answers the question for a name, which the page asks on the first visit, or takes another one in place of the one that is known. */
async function introduce(tab, name) {
  if (await tab.locator('#settings').isVisible()) {
    if (!name) return tab.click('#settings-cancel');
    await enterName(tab, name);
  } else if (name && await tab.textContent('#me') !== name) {
    await rename(tab, name);
  }
}

/** Changes the name in the dialog, as a person does. */
export async function rename(tab, name) {
  if (!await tab.locator('#me-button').isVisible()) await tab.click('#rooms-button');
  await tab.click('#me-button');
  await enterName(tab, name);
  if (await tab.locator('#rooms-panel[data-open]').count()) await tab.press('body', 'Escape');
}

async function enterName(tab, name) {
  await tab.fill('#name', name);
  await tab.click('#settings-save');
  await tab.locator(`#members [data-user="${name.replaceAll(' ', '-')}"]`).waitFor({ state: 'attached' });
}

/** Joins another room in the dialog, as a person does. */
export async function joinRoom(tab, room) {
  if (!await tab.locator('#room-button').isVisible()) await tab.click('#rooms-button');
  await tab.click('#room-button');
  await tab.fill('#room', room);
  await tab.click('#room-save');
}

export function state(tab, wanted) {
  return tab.locator(`#status[data-state="${wanted}"]`).waitFor();
}

export async function say(tab, text) {
  await tab.fill('#text', text);
  await tab.press('#text', 'Enter');
}

/** The message with exactly this text, shown as accepted by the server. */
export function message(tab, text) {
  return tab.locator('.message[data-state="sent"]').filter({ has: tab.getByText(text, { exact: true }) });
}

export function texts(tab, selector = '.message .text') {
  return tab.locator(selector).allTextContents();
}

/** Looks again and again until the answer is as it should be; fails with the last answer. */
export async function eventually(look, isRight, what) {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    const answer = await look();
    if (isRight(answer)) return answer;
    assert.ok(Date.now() < end, `${what}; last seen: ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

export async function screenshot(tab, name) {
  mkdirSync(SCREENSHOTS, { recursive: true });
  await tab.screenshot({ path: join(SCREENSHOTS, `${name}.png`) });
}

async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`deadline of ${DEADLINE_MS} ms passed: ${what()}`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
