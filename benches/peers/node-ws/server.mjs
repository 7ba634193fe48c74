// A chat server on Node and ws, the way their documentation shows it: a set of members a room, each message encoded once
// and the same buffer sent to all.
import { createServer } from "node:http";
import { randomUUID } from "node:crypto";
import { WebSocketServer } from "ws";

const MESSAGE_BYTES_MAX = 16 * 1024;
// ws queues without a bound. A client that has this much waiting is dropped, as the other peers drop at 256 messages.
const WAITING_BYTES_MAX = 1024 * 1024;
const PING_INTERVAL = 25_000;
// In bigger rooms nobody is told who comes and goes.
const PRESENCE_MEMBERS_MAX = 200;

const rooms = new Map();
// The sockets that were written to in this turn of the event loop.
const corked = [];

const encode = (message) => Buffer.from(JSON.stringify(message));

// Compression is off for all, so nothing is compressed for one either; a Buffer would go out as binary if not told.
const TEXT = { binary: false };

// Corked until the end of the turn, so that what a member is sent in one turn is one system call, not one a message.
function send(client, bytes) {
  if (client.bufferedAmount > WAITING_BYTES_MAX) {
    client.terminate();
    return;
  }
  if (!client.corked) {
    client.corked = true;
    client.stream.cork();
    if (corked.push(client) === 1) setImmediate(uncork);
  }
  client.send(bytes, TEXT);
}

function uncork() {
  for (const client of corked) {
    client.corked = false;
    client.stream.uncork();
  }
  corked.length = 0;
}

function broadcast(room, bytes) {
  for (const member of room.members) send(member, bytes);
}

function refuse(client, message) {
  send(client, encode({ type: "error", code: "bad_message", message }));
}

function join(client, name) {
  if (typeof name !== "string" || name === "") return refuse(client, "room is missing");
  if (client.rooms.has(name)) return refuse(client, "already joined");
  let room = rooms.get(name);
  if (!room) rooms.set(name, (room = { members: new Set(), seq: 0 }));
  room.members.add(client);
  client.rooms.set(name, room);
  send(client, encode({ type: "joined", room: name, count: room.members.size }));
  if (room.members.size <= PRESENCE_MEMBERS_MAX) {
    broadcast(room, encode({ type: "presence", room: name, userId: client.userId, status: "online" }));
  }
}

function chat(client, { room: name, text, id }) {
  const room = client.rooms.get(name);
  if (!room) return refuse(client, "not joined");
  if (typeof text !== "string" || text === "") return refuse(client, "text is empty");
  room.seq += 1;
  // An id that is undefined is left out.
  const message = { type: "chat", room: name, userId: client.userId, text, id, ts: Date.now(), seq: room.seq };
  broadcast(room, encode(message));
}

function leave(client) {
  for (const [name, room] of client.rooms) {
    const told = room.members.size <= PRESENCE_MEMBERS_MAX;
    room.members.delete(client);
    if (room.members.size === 0) rooms.delete(name);
    else if (told) broadcast(room, encode({ type: "presence", room: name, userId: client.userId, status: "offline" }));
  }
  client.rooms.clear();
}

function receive(client, bytes) {
  let message;
  try {
    message = JSON.parse(bytes);
  } catch {
    return refuse(client, "not JSON");
  }
  if (message?.type === "join") join(client, message.room);
  else if (message?.type === "chat") chat(client, message);
  else refuse(client, "unknown type");
}

const [host, port] = splitAddress(process.argv[2]);
const server = createServer((_request, response) => response.writeHead(404).end());
const sockets = new WebSocketServer({ server, path: "/ws", perMessageDeflate: false, maxPayload: MESSAGE_BYTES_MAX });

sockets.on("connection", (client, request) => {
  client.stream = request.socket;
  client.corked = false;
  client.alive = true;
  client.rooms = new Map();
  client.userId = `guest-${randomUUID()}`;
  client.on("message", (bytes) => receive(client, bytes));
  client.on("pong", () => (client.alive = true));
  client.on("close", () => leave(client));
  // A broken connection is closed right after, which is all there is to do.
  client.on("error", () => {});
  send(client, encode({ type: "welcome", userId: client.userId, pingInterval: PING_INTERVAL }));
});

setInterval(() => {
  for (const client of sockets.clients) {
    if (!client.alive) {
      client.terminate();
      continue;
    }
    client.alive = false;
    client.ping();
  }
}, PING_INTERVAL);

for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
server.listen({ host, port, backlog: 4096 }, () => console.log(`listening on ${process.argv[2]}`));

function splitAddress(address) {
  const colon = address?.lastIndexOf(":") ?? -1;
  if (colon < 0) {
    console.error("usage: node server.mjs ADDRESS");
    process.exit(2);
  }
  return [address.slice(0, colon).replace(/^\[|\]$/g, ""), Number(address.slice(colon + 1))];
}
