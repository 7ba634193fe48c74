// One script for every client library: a server that is killed, restarted, slowed and cut loses nothing, doubles nothing, and keeps
// the order. README.md has the protocol of the drivers.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { eventually, makeToken, startRedis, startServer } from '../browser/harness.mjs';
import { PYTHON } from './python.mjs';
import { Client, Network, numbers } from './stage.mjs';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

/** The command of each library's driver. Node 22 needs no flag for its WebSocket. */
const DRIVERS = {
  JavaScript: [process.execPath, '--no-warnings', '--experimental-websocket', path('javascript-driver.mjs')],
  Python: [PYTHON, path('python-driver.py')],
};

const SEED = Number(process.env.ROOMCAST_CLIENT_SEED ?? 1 + (Date.now() % 1_000_000));
const KEY = 'a-key-of-the-test-0123456789';
// The tests cut connections more often than a public server allows.
const FLAGS = ['--api-key', KEY, '--connects-per-address', '0'];

const secrets = mkdtempSync(join(tmpdir(), 'roomcast-secrets-'));
const [SECRET, OTHER_SECRET] = ['the-secret', 'another-one'].map((name) => join(secrets, name));
for (const file of [SECRET, OTHER_SECRET]) writeFileSync(file, `${file} is a secret that is long enough`);
after(() => rmSync(secrets, { recursive: true }));

/** Two users in a lobby, each over a network of its own. */
class Scene {
  #driver;
  #flags;
  #redis = null;

  constructor(driver, flags = []) {
    this.#driver = driver;
    this.#flags = [...FLAGS, ...flags];
  }

  async open({ isShared = false, ...options } = {}) {
    await this.start({ isShared, alice: options, bob: options });
    await this.join();
  }

  /** Has both connect, with options of their own. */
  async start({ isShared = false, alice = {}, bob = {} } = {}) {
    if (isShared) {
      this.#redis = startRedis();
      this.#flags.push('--redis', this.#redis.url);
    }
    this.server = await startServer({ flags: this.#flags });
    this.networks = [await new Network(this.server.port).start(), await new Network(this.server.port).start()];
    this.clients = [new Client(this.#driver), new Client(this.#driver)];
    [this.alice, this.bob] = this.clients;
    await this.alice.connect(this.networks[0].url, 'alice', alice);
    await this.bob.connect(this.networks[1].url, 'bob', bob);
  }

  async join() {
    await Promise.all(this.clients.map((client) => client.join('lobby', 100)));
  }

  async kill() {
    await this.server.stop('SIGKILL');
  }

  async restart() {
    this.server = await startServer({ port: this.server.port, flags: this.#flags });
  }

  async command(name, body) {
    const headers = { Authorization: `Bearer ${KEY}`, 'Content-Type': 'application/json' };
    const response = await fetch(`${this.server.url}api/${name}`, { method: 'POST', headers, body: JSON.stringify(body) });
    assert.equal(response.status, 200, await response.text());
  }

  /** All that was said is accepted, and both see all of it once, in one order that is that of the numbers. */
  async check() {
    for (const client of this.clients) {
      for (const ref of client.said.keys()) assert.equal((await client.outcome(ref)).event, 'sent', `${client.userId}: ${client.said.get(ref)}`);
    }
    const said = this.clients.flatMap((client) => [...client.said.values()]).sort();
    for (const client of this.clients) {
      await eventually(() => client.texts('lobby').length, (count) => count >= said.length, `${client.userId} sees all`);
      const view = client.views.get('lobby');
      assert.deepEqual(view.map(({ text }) => text).sort(), said, `${client.userId} sees each message once`);
      assert.deepEqual(view.map(({ seq }) => seq), view.map(({ seq }) => seq).sort((a, b) => a - b), 'in order');
      for (const [ref, text] of client.said) {
        const { seq } = client.events.find((event) => event.ref === ref);
        assert.equal(view.find((message) => message.text === text).seq, seq, 'the answer has the number of the message');
      }
    }
    assert.deepEqual(this.alice.views.get('lobby'), this.bob.views.get('lobby'));
    // What one client says comes in the order in which it was said.
    for (const client of this.clients) {
      const own = this.alice.views.get('lobby').filter(({ userId }) => userId === client.userId).map(({ text }) => text);
      assert.deepEqual(own, [...client.said.values()], `the order of ${client.userId}`);
    }
  }

  async close() {
    await Promise.all((this.clients ?? []).map((client) => client.end()));
    await Promise.all((this.networks ?? []).map((network) => network.stop()));
    await this.server?.stop('SIGKILL');
    await this.#redis?.stop();
  }
}

/** Says a number of messages, with a pause after each. */
async function talk(client, count, pause = 5) {
  for (let index = 1; index <= count; index++) {
    client.say('lobby', `${client.userId} ${client.said.size + 1}`);
    await delay(pause);
  }
}

const scenarios = [];

function scenario(name, flags, run) {
  scenarios.push({ name, flags, run });
}

scenario('two clients talk, and leave', [], async (scene) => {
  await scene.open();
  await Promise.all(scene.clients.map((client) => talk(client, 20)));
  await scene.check();
  const { alice, bob } = scene;
  alice.do('leave', { room: 'lobby' });
  assert.equal((await alice.outcome(alice.say('lobby', 'too late'))).code, 'not_joined');
  await scene.command('kick', { room: 'lobby', userId: 'bob' });
  assert.equal((await bob.awaits(({ event }) => event === 'left', 'bob is out')).code, 'removed');
});

scenario('a display name is shown to others with its user, also after a reconnection', [], async (scene) => {
  const names = { alice: 'Alice Müller & "Söhne" +1%', bob: 'Bob' };
  await scene.start({ alice: { name: names.alice }, bob: { name: names.bob } });
  const { alice, bob } = scene;
  const sees = (client, userId) => client.awaits(({ users }) => users?.some((user) => user.userId === userId && user.name === names[userId]), `${client.userId} sees the name of ${userId}`);
  await alice.join('lobby');
  await bob.join('lobby');
  await sees(bob, 'alice'); // who was there
  await sees(alice, 'bob'); // who came
  await talk(bob, 1);
  await scene.check();
  scene.networks[0].cut();
  await talk(alice, 1);
  await scene.check();
  assert.equal(alice.events.filter(({ status }) => status === 'online').length, 2);
  for (const client of scene.clients) {
    assert.deepEqual(client.views.get('lobby').map(({ userId, name }) => [userId, name]), [['bob', names.bob], ['alice', names.alice]]);
  }
});

scenario('connections that are cut lose nothing and double nothing', [], async (scene) => {
  await scene.open();
  const talks = scene.clients.map((client) => talk(client, 60, 20));
  for (let round = 0; round < 6; round++) {
    await delay(150);
    scene.networks[round % 2].cut();
  }
  await Promise.all(talks);
  await scene.check();
  assert.equal(scene.alice.events.some(({ event, replace }, index) => event === 'joined' && replace && index > 10), false, 'history reached back');
});

scenario('messages whose answers are lost are sent again, and accepted once', [], async (scene) => {
  await scene.open();
  for (let round = 0; round < 3; round++) {
    const loss = scene.networks[0].loseAnswers(150);
    await talk(scene.alice, 5);
    await loss;
    await talk(scene.bob, 2);
  }
  await scene.check();
});

scenario('a server that falls silent is noticed, and left for a new connection', ['--ping-interval', '100ms'], async (scene) => {
  await scene.open();
  const { alice, bob } = scene;
  await Promise.all(scene.clients.map((client) => talk(client, 2)));
  await scene.check();
  scene.networks[0].silence();
  await Promise.all(scene.clients.map((client) => talk(client, 3)));
  await alice.awaits(({ status, cause }) => status === 'offline' && cause === 'lost', 'alice notices');
  await scene.check();
  assert.deepEqual(scene.clients.map((client) => client.events.filter(({ status }) => status === 'online').length), [2, 1]);
  assert.equal(alice.events.filter(({ event }) => event === 'joined').at(-1).replace, false);
});

scenario('a server that is killed and comes back with its history goes on where it was', [], async (scene) => {
  await scene.open({ isShared: true });
  await Promise.all(scene.clients.map((client) => talk(client, 5)));
  await scene.kill();
  await Promise.all(scene.clients.map((client) => client.status('offline')));
  await Promise.all(scene.clients.map((client) => talk(client, 5)));
  await scene.restart();
  await scene.check();
  for (const client of scene.clients) assert.equal(client.events.filter(({ event }) => event === 'joined').at(-1).replace, false);
});

scenario('a server that is killed and has lost its history says so, and what was said meanwhile comes once', [], async (scene) => {
  await scene.open();
  await talk(scene.alice, 5);
  await scene.check();
  await scene.kill();
  await scene.alice.status('offline');
  for (const client of scene.clients) client.said.clear();
  await Promise.all(scene.clients.map((client) => talk(client, 5)));
  await scene.restart();
  await scene.check();
  for (const client of scene.clients) assert.equal(client.events.filter(({ event }) => event === 'joined').at(-1).replace, true);
});

scenario('a slow network delays and loses nothing', [], async (scene) => {
  await scene.open();
  for (const network of scene.networks) network.slow(20_000, 20);
  await Promise.all(scene.clients.map((client) => talk(client, 30)));
  await scene.check();
});

scenario('more than the server takes at once is paced, and nobody is closed', ['--message-rate', '50', '--message-burst', '20'], async (scene) => {
  await scene.open();
  await talk(scene.alice, 100, 0);
  await scene.check();
  assert.equal(scene.alice.events.filter(({ status }) => status === 'offline' || status === 'closed').length, 0);
});

scenario('what does not fit the queue is refused, and the rest is sent later', [], async (scene) => {
  await scene.open({ queueMax: 10 });
  scene.networks[0].refuse(true);
  await scene.alice.status('offline');
  await talk(scene.alice, 10, 0);
  const beyond = scene.alice.say('lobby', 'too much');
  assert.equal((await scene.alice.outcome(beyond)).code, 'queue_full');
  scene.alice.said.delete(beyond);
  scene.networks[0].refuse(false);
  await scene.check();
});

scenario('older messages come page by page, without those that were deleted', [], async (scene) => {
  await scene.open();
  const { alice, bob } = scene;
  await talk(alice, 25, 0);
  await scene.check();
  const pages = [];
  let page = await bob.ask('lobby', undefined, 10);
  for (; page.more; page = await bob.ask('lobby', page.messages[0].seq, 10)) pages.unshift(...page.messages);
  assert.equal((await alice.ask('elsewhere', undefined, 10)).code, 'not_joined');
  assert.deepEqual([...page.messages, ...pages].map(({ text }) => text), [...alice.said.values()]);

  scene.networks[1].refuse(true);
  await bob.status('offline');
  for (const seq of [3, 24]) await scene.command('delete', { room: 'lobby', seq });
  await alice.awaits(({ event, seqs }) => event === 'deleted' && seqs.includes(24), 'alice is told');
  scene.networks[1].refuse(false);
  await bob.awaits(({ event, seqs }) => event === 'deleted' && seqs.includes(24), 'bob is told when he comes back');
  for (const client of scene.clients) assert.deepEqual(client.views.get('lobby').map(({ seq }) => seq).filter((seq) => seq === 3 || seq === 24), []);
  assert.deepEqual(alice.views.get('lobby'), bob.views.get('lobby'));
  const after = await bob.ask('lobby', 26, 100);
  assert.deepEqual(after.messages.map(({ seq }) => seq), bob.views.get('lobby').map(({ seq }) => seq));
});

scenario('a banned user is told so, now and at the next attempt', [], async (scene) => {
  await scene.open();
  const { alice, bob } = scene;
  scene.networks[0].refuse(true);
  await alice.status('offline');
  const waiting = alice.say('lobby', 'never');
  await scene.command('ban', { userId: 'bob', reason: 'contempt' });
  await scene.command('ban', { userId: 'alice' });
  await bob.awaits(({ status, cause }) => status === 'closed' && cause === 'banned', 'bob is told at once');
  scene.networks[0].refuse(false);
  await alice.awaits(({ status, cause }) => status === 'closed' && cause === 'banned', 'alice is told when she comes back');
  assert.equal((await alice.outcome(waiting)).code, 'banned');
});

scenario('a token that ends is replaced in time, or at the next connection', ['--token-secret-file', SECRET], async (scene) => {
  await scene.start({ alice: { asks: true }, bob: { asks: true } });
  const { alice, bob } = scene;
  const token = ({ userId }, ttl) => makeToken(SECRET, userId, '--ttl', ttl);
  await Promise.all(scene.clients.map((client) => client.give(1, token(client, '5s'))));
  await scene.join();
  await talk(bob, 2);
  await alice.give(2, token(alice, '1h'));
  await alice.awaits(({ event }) => event === 'refreshed', 'alice has a new token');
  // Bob's function gives nothing in time, so his connection ends with his token.
  await bob.awaits(({ event, ref }) => event === 'token' && ref === 2, 'bob is asked for a new token, too');
  await bob.awaits(({ status, cause }) => status === 'offline' && cause === 'token_expired', 'the token of bob has ended');
  await Promise.all(scene.clients.map((client) => talk(client, 3)));
  await bob.give(3, token(bob, '1h'));
  await scene.check();
  assert.deepEqual(scene.clients.map((client) => client.events.filter(({ status }) => status === 'online').length), [1, 2]);
  assert.equal(bob.events.filter(({ event }) => event === 'joined').at(-1).replace, false);
});

scenario('a token that is refused or missing ends the client, which says why', ['--token-secret-file', SECRET], async (scene) => {
  await scene.start({ alice: { token: makeToken(OTHER_SECRET, 'alice') } });
  for (const [client, code] of [[scene.alice, 'token_refused'], [scene.bob, 'token_needed']]) {
    client.do('join', { room: 'lobby', history: 0 });
    const early = client.say('lobby', 'never accepted');
    await client.awaits(({ status, cause }) => status === 'closed' && cause === code, `${client.userId} is told`);
    for (const ref of [early, client.say('lobby', 'too late')]) assert.equal((await client.outcome(ref)).code, code);
    assert.equal(client.events.filter(({ status }) => status === 'connecting').length, 1, 'one attempt');
  }
});

scenario(`faults at random, seed ${SEED} (ROOMCAST_CLIENT_SEED)`, [], async (scene) => {
  const random = numbers(SEED);
  await scene.open({ isShared: true });
  const talks = scene.clients.map((client) => talk(client, 100, 30));
  const faults = [
    (network) => network.cut(),
    (network) => network.loseAnswers(20 + 100 * random()),
    async (network) => { network.refuse(true); await delay(300 * random()); network.refuse(false); },
    async (network) => { network.slow(10_000 + 50_000 * random(), 30 * random()); await delay(300); network.slow(Infinity, 0); },
    async () => { await scene.kill(); await delay(200 * random()); await scene.restart(); },
  ];
  for (let round = 0; round < 10; round++) {
    await delay(200 * random());
    await faults[Math.floor(random() * faults.length)](scene.networks[Math.floor(random() * 2)]);
  }
  await Promise.all(talks);
  await scene.check();
});

// Scenarios wait for most of their time, so several are played at once.
describe('client libraries', { concurrency: 4 }, () => {
  for (const { name, flags, run } of scenarios) {
    for (const [library, driver] of Object.entries(DRIVERS)) {
      test(`${library}: ${name}`, { timeout: 60_000 }, async () => {
        const scene = new Scene(driver, flags);
        try {
          await run(scene);
        } finally {
          await scene.close();
        }
      });
    }
  }
});
