// What the conformance script stands on: a driver as a process, what its user would see, and a network that fails.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../browser/harness.mjs';

/** A client library in a process of its own, and all that it has reported. */
export class Client {
  events = [];
  views = new Map(); // room -> messages, as a page would show them
  said = new Map(); // ref -> text
  #child;
  #refs = 0;
  #exited;

  constructor(command) {
    const [program, ...words] = command;
    this.#child = spawn(program, words, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#exited = new Promise((done) => { this.#child.once('exit', done).once('error', done); });
    this.#child.stdin.on('error', () => {}); // a driver that has ended is told by what it does not report
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#heard(JSON.parse(line)));
  }

  do(command, rest = {}) {
    this.#child.stdin.write(`${JSON.stringify({ do: command, ...rest })}\n`);
  }

  async connect(url, userId, more = {}) {
    this.userId = userId;
    await this.awaits((event) => event.event === 'ready', 'the driver starts');
    this.do('connect', { url, ...(more.token || more.asks ? {} : { userId }), ...more });
  }

  /** Gives the client the token that it asks for the n-th time. */
  async give(ref, token) {
    await this.awaits((event) => event.event === 'token' && event.ref === ref, `${this.userId} asks for token ${ref}`);
    this.do('token', { ref, token });
  }

  async join(room, history = 0) {
    this.do('join', { room, history });
    await this.awaits((event) => event.event === 'joined' && event.room === room, `${this.userId} is in ${room}`);
  }

  say(room, text) {
    const ref = `say-${++this.#refs}`;
    this.said.set(ref, text);
    this.do('say', { room, text, ref });
    return ref;
  }

  ask(room, before, limit) {
    const ref = `history-${++this.#refs}`;
    this.do('history', { room, before, limit, ref });
    return this.outcome(ref);
  }

  /** What became of a call. */
  async outcome(ref) {
    const found = await this.awaits((event) => event.ref === ref, `${this.userId} gets an answer to ${ref}`);
    assert.equal(this.events.filter((event) => event.ref === ref).length, 1, 'one answer');
    return found;
  }

  awaits(which, what) {
    return eventually(() => this.events.find(which), Boolean, what);
  }

  status(status) {
    return eventually(() => this.events.findLast((event) => event.event === 'status')?.status, (last) => last === status, `${this.userId} is ${status}`);
  }

  texts(room) {
    return (this.views.get(room) ?? []).map(({ text }) => text);
  }

  count(event) {
    return this.events.filter((one) => one.event === event).length;
  }

  async end() {
    this.#child.stdin.end();
    const late = setTimeout(() => this.#child.kill('SIGKILL'), 2_000);
    await this.#exited;
    clearTimeout(late);
  }

  #heard(event) {
    this.events.push(event);
    const { room } = event;
    if (event.event === 'joined') this.#show(room, event.replace ? [] : this.views.get(room) ?? [], event.messages);
    if (event.event === 'chat') this.#show(room, this.views.get(room) ?? [], [event.message]);
    if (event.event === 'deleted') this.views.set(room, (this.views.get(room) ?? []).filter(({ seq }) => !event.seqs.includes(seq)));
  }

  #show(room, before, messages) {
    this.views.set(room, [...before, ...messages]);
  }
}

/** A network between a client and a server: it passes on what comes, until it is told to fail. */
export class Network {
  #port;
  #listener;
  #pairs = new Set();
  #isDeaf = false; // swallows what the server says
  #isRefusing = false;
  #bytesPerSecond = Infinity;
  #lag = 0;

  constructor(port) {
    this.#port = port;
  }

  async start() {
    this.#listener = createServer((client) => this.#accept(client));
    await new Promise((done) => { this.#listener.listen(0, '127.0.0.1', done); });
    this.url = `ws://127.0.0.1:${this.#listener.address().port}/ws`;
    return this;
  }

  /** Cuts all connections. */
  cut() {
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
  }

  /** Takes what clients send, and loses what the server answers, for some time; then it cuts. */
  async loseAnswers(ms) {
    this.#isDeaf = true;
    await delay(ms);
    this.cut();
    this.#isDeaf = false;
  }

  /** Loses from now on what both ends of the connections that are there send, also that they close. New connections work. */
  silence() {
    for (const pair of this.#pairs) pair.isSilent = true;
  }

  refuse(isRefusing) {
    this.#isRefusing = isRefusing;
    if (isRefusing) this.cut();
  }

  slow(bytesPerSecond, lag) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#lag = lag;
  }

  async stop() {
    this.cut();
    await new Promise((done) => { this.#listener.close(done); });
  }

  #accept(client) {
    if (this.#isRefusing) return client.destroy();
    const server = connect(this.#port, '127.0.0.1');
    const pair = { client, server, isSilent: false };
    this.#pairs.add(pair);
    const end = () => {
      if (pair.isSilent) return;
      this.#pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) socket.setNoDelay().on('error', end).on('close', end);
    this.#pass(client, server, () => pair.isSilent);
    this.#pass(server, client, () => this.#isDeaf || pair.isSilent);
  }

  async #pass(from, to, isLost) {
    try {
      for await (const bytes of from) {
        const wait = this.#lag + (1000 * bytes.length) / this.#bytesPerSecond;
        if (wait > 0) await delay(wait);
        if (!isLost()) to.write(bytes);
      }
      if (!isLost()) to.end();
    } catch { /* the connection was cut */ }
  }
}

/** The same numbers from 0 up to 1 for the same seed (a linear congruential generator). */
export function numbers(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
