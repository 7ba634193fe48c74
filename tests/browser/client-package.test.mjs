// The package of the client: what is built, what `npm pack` puts in it, and its types.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { CLASSIC, buildClassic } from '../../client/js/build.mjs';
import { Room, Roomcast, RoomcastError } from '../../client/js/src/index.js';

const PACKAGE = fileURLToPath(new URL('../../client/js', import.meta.url));
const GZIPPED_BYTES_MAX = 8192;

let project; // a project of somebody else that has installed the package
let files; // what the package contains

before(() => {
  project = mkdtempSync(join(tmpdir(), 'roomcast-package-'));
  const packed = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', project], { cwd: PACKAGE, stdio: ['ignore', 'pipe', 'ignore'] });
  const [found] = Object.values(JSON.parse(packed));
  files = found.files.map(({ path }) => path).sort();
  mkdirSync(join(project, 'node_modules/roomcast'), { recursive: true });
  execFileSync('tar', ['-xzf', join(project, found.filename), '-C', join(project, 'node_modules/roomcast'), '--strip-components=1']);
  writeFileSync(join(project, 'package.json'), '{"type": "module"}');
});
after(() => rmSync(project, { recursive: true }));

/** Runs a program of that project. */
function run(text) {
  writeFileSync(join(project, 'main.mjs'), text);
  return execFileSync(process.execPath, ['main.mjs'], { cwd: project }).toString().trim();
}

test('the classic script is what the module is built to, and is small', async () => {
  const text = readFileSync(CLASSIC, 'utf8');
  assert.equal(text, await buildClassic(), 'run client/js/build.mjs after a change of client/js/src');
  const bytes = gzipSync(text, { level: 9 }).length;
  assert.ok(bytes <= GZIPPED_BYTES_MAX, `${bytes} bytes minified and gzipped; ${GZIPPED_BYTES_MAX} are allowed`);
});

test('the package has the module, its types and the classic script, and depends on nothing', () => {
  const manifest = JSON.parse(readFileSync(join(project, 'node_modules/roomcast/package.json'), 'utf8'));
  assert.deepEqual([manifest.dependencies, manifest.peerDependencies], [undefined, undefined]);
  assert.deepEqual(files.filter((path) => !path.startsWith('src/')), ['README.md', 'dist/roomcast.js', 'index.d.ts', 'package.json']);
  const make = 'new Roomcast("ws://localhost/ws", { WebSocket: class {} }).status';
  assert.equal(run(`import { Roomcast, Room, RoomcastError } from 'roomcast'; console.log(${make}, typeof Room, typeof RoomcastError)`), 'closed function function');
  assert.equal(run(`import 'roomcast/classic'; const { Roomcast } = globalThis; console.log(${make})`), 'closed');
});

test('its version is that of the server', () => {
  const version = /^version = "(.*)"/m.exec(readFileSync(join(PACKAGE, '../../Cargo.toml'), 'utf8'))[1];
  assert.equal(JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8')).version, version);
});

const RIGHT = `
import { Roomcast, RoomcastError, type Message, type Cause } from 'roomcast';
const chat = new Roomcast('wss://chat.example/ws', { userId: 'alice', token: async () => 'token', queueMax: 10, fetch: null });
const shown: Message[] = [];
const off: () => void = chat.on('joined', ({ replace, messages }) => { if (replace) shown.length = 0; shown.push(...messages); });
chat.on('status', ({ cause, retryAt }) => { const why: Cause | undefined = cause; console.log(why, retryAt?.toFixed()); });
const { userId } = await chat.connect();
const room = await chat.join('lobby', { history: 50 });
room.on('deleted', ({ seqs }) => seqs.map((seq) => seq.toFixed()));
const sending = room.say('hello', { mood: 'calm' });
const id: string | undefined = sending.id;
await sending.then(({ seq }) => seq.toFixed(), (error: RoomcastError) => error.code + error.retryAfterMs);
const { messages, more, before } = await room.history({ before: 5, limit: 10 });
console.log(userId, id, messages[0]?.text.length, more, before, room.users?.length, Roomcast.nameProblem('x'));
off();
`;

const WRONG = [
  `chat.on('message', () => {});`,
  `chat.on('chat', ({ body }) => body);`,
  `room.on('welcome', () => {});`,
  `chat.status = 'online';`,
  `new Roomcast('/ws', { user: 'alice' });`,
  `new Room(chat, 'lobby');`,
];

test('the types accept what is right, and refuse what is wrong', () => {
  writeFileSync(join(project, 'right.ts'), RIGHT);
  // Each line has to be an error of its own.
  const lines = WRONG.map((line) => `// @ts-expect-error\n${line}`).join('\n');
  writeFileSync(join(project, 'wrong.ts'), `import { Roomcast, Room } from 'roomcast';\nconst chat = new Roomcast();\nconst room = chat.room('lobby');\n${lines}\n`);
  const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022', '--lib', 'es2022,dom', '--types', ''];
  const tsc = join(PACKAGE, 'node_modules/.bin/tsc');
  try {
    execFileSync(tsc, [...options, 'right.ts', 'wrong.ts'], { cwd: project, stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    assert.fail(`${error.stdout}${error.stderr}`);
  }
});

test('the types name all that there is', () => {
  const types = readFileSync(join(PACKAGE, 'index.d.ts'), 'utf8');
  const body = (name) => new RegExp(`class ${name} extends \\w+ \\{\n([^]*?)\n\\}`).exec(types)[1];
  const declared = (name) => [...body(name).matchAll(/^ {2}(?:readonly )?(\w+)[(<:?]/gm)].map(([, member]) => member).filter((member) => member !== 'constructor');
  const chat = new Roomcast('ws://localhost/ws', { WebSocket: class {} });
  const actual = (prototype, object) => [...Object.getOwnPropertyNames(prototype), ...Object.keys(object)].filter((member) => member !== 'constructor');
  assert.deepEqual([...new Set(declared('Roomcast'))].sort(), [...actual(Roomcast.prototype, chat), 'on'].sort());
  assert.deepEqual([...new Set(declared('Room'))].sort(), [...actual(Room.prototype, chat.room('lobby')), 'on'].sort());
  assert.ok(new RoomcastError('x', 'y') instanceof Error);
  // Asking for an event that does not exist names those that do.
  const events = (text) => /there are (.*)$/.exec(text)[1].split(', ').sort();
  const inTypes = (name) => [...new RegExp(`interface ${name} [^{]*\\{\n([^]*?)\n\\}`).exec(types)[1].matchAll(/^ {2}(\w+):/gm)].map(([, type]) => type);
  const tell = (target) => { try { return target.on('', () => {}); } catch (error) { return error.message; } };
  assert.deepEqual(events(tell(chat.room('lobby'))), inTypes('RoomEvents').sort());
  assert.deepEqual(events(tell(chat)), [...inTypes('RoomEvents'), ...inTypes('Events')].sort());
});
