// Checks that each peer speaks the protocol: scripts/peers | node benches/peers/check.mjs
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const DEADLINE = 10_000;
const CROWD = 300;
const { WebSocket } = createRequire(new URL("../../target/peers/node-ws/", import.meta.url))("ws");

class Client {
  constructor(address) {
    this.socket = new WebSocket(`ws://${address}/ws`, { perMessageDeflate: false });
    this.received = [];
    this.waiting = [];
    this.socket.on("message", (bytes, binary) => {
      assert.equal(binary, false, "a binary frame");
      this.received.push(JSON.parse(bytes));
      this.waiting.shift()?.();
    });
  }

  say(message) {
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message));
  }

  // The next message, of whatever type: nothing is skipped, so that a superfluous one is noticed.
  async next() {
    while (this.received.length === 0) await new Promise((resolve) => this.waiting.push(resolve));
    return this.received.shift();
  }
}

async function checkTalk(address) {
  const alice = new Client(address);
  const aliceId = (await alice.next()).userId;
  assert.match(aliceId, /^guest-/);
  alice.say({ type: "join", room: "r" });
  assert.deepEqual(await alice.next(), { type: "joined", room: "r", count: 1 });
  assert.deepEqual(await alice.next(), { type: "presence", room: "r", userId: aliceId, status: "online" });

  const bob = new Client(address);
  const { type, userId: bobId, pingInterval } = await bob.next();
  assert.deepEqual([type, pingInterval], ["welcome", 25_000]);
  bob.say({ type: "join", room: "r", id: "j" });
  assert.deepEqual(await bob.next(), { type: "joined", room: "r", count: 2 });
  const online = { type: "presence", room: "r", userId: bobId, status: "online" };
  assert.deepEqual([await alice.next(), await bob.next()], [online, online]);

  for (const [seq, text] of [[1, 'Grüße, "Bob" \u{1f600}'], [2, "x".repeat(10_000)]]) {
    alice.say({ type: "chat", room: "r", text, id: `c${seq}` });
    for (const client of [alice, bob]) {
      const { ts, ...chat } = await client.next();
      assert.ok(Math.abs(Date.now() - ts) < DEADLINE);
      assert.deepEqual(chat, { type: "chat", room: "r", userId: aliceId, text, id: `c${seq}`, seq });
    }
  }
  await checkRefusals(bob);

  bob.socket.ping("p");
  assert.equal(String((await once(bob.socket, "pong"))[0]), "p");
  bob.socket.close(1000);
  assert.equal((await once(bob.socket, "close"))[0], 1000);
  assert.deepEqual(await alice.next(), { type: "presence", room: "r", userId: bobId, status: "offline" });
  alice.socket.terminate();
}

async function checkRefusals(client) {
  const bad = ["no JSON", "null", "[]", { type: "dance" }, { type: "join" }, { type: "join", room: "r" }, { type: "join", room: 1 },
    { type: "chat", room: "r", text: "" }, { type: "chat", room: "elsewhere", text: "hello" }];
  for (const message of bad) {
    client.say(message);
    const { type, code } = await client.next();
    assert.deepEqual([type, code], ["error", "bad_message"]);
  }
}

// Each of a crowd gets every message in order; above 200 nobody is told who comes and goes.
async function checkCrowd(address) {
  const clients = [];
  for (let i = 1; i <= CROWD; i += 1) {
    const client = new Client(address);
    clients.push(client);
    await client.next();
    client.say({ type: "join", room: "crowd" });
    assert.equal((await client.next()).count, i);
  }
  clients[0].received.length = 0;
  clients[0].say({ type: "join", room: "aside" });
  const counts = [];
  for (let i = 0; i < 10; i += 1) for (const client of clients.slice(0, 10)) client.say({ type: "chat", room: "crowd", text: "hello" });
  for (const client of clients) {
    let seq = 0;
    let presence = 0;
    while (seq < 100) {
      const message = await client.next();
      if (message.type === "presence" && message.room === "crowd") presence += 1;
      if (message.type === "chat") assert.equal(message.seq, (seq += 1));
    }
    counts.push(presence);
  }
  assert.deepEqual([counts[1], counts[199], counts[200], counts[CROWD - 1]], [199, 1, 0, 0]);
  for (const client of clients) client.socket.terminate();
}

async function check(command, port) {
  const address = `127.0.0.1:${port}`;
  const [program, ...words] = command.replace("{address}", address).split(" ");
  const server = spawn(program, words, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(server, "exit");
  // Also when the deadline strikes.
  process.once("exit", () => server.kill());
  try {
    assert.equal(String((await once(server.stdout, "data"))[0]), `listening on ${address}\n`);
    await checkTalk(address);
    await checkCrowd(address);
  } finally {
    server.kill("SIGTERM");
    assert.deepEqual(await ended, [0, null]);
  }
}

process.chdir(new URL("../..", import.meta.url).pathname);
let port = Number(process.argv[2] ?? 18200);
let checked = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const [name, command] = line.split(/=(.*)/s);
  const late = new Promise((_, reject) => setTimeout(reject, DEADLINE, new Error(`${name}: nothing for ${DEADLINE} ms`)).unref());
  await Promise.race([check(command, port), late]);
  console.log(`${name}: ok`);
  port += 1;
  checked += 1;
}
assert.ok(checked > 0, "no peers");
