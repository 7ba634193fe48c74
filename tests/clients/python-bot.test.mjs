// The bot of the examples, in a room with a person.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually, startServer } from '../browser/harness.mjs';
import { PYTHON } from './python.mjs';
import { Client } from './stage.mjs';

const BOT = fileURLToPath(new URL('../../examples/python-bot/bot.py', import.meta.url));
const DRIVER = fileURLToPath(new URL('python-driver.py', import.meta.url));
const KEY = 'a-key-of-the-test-0123456789';

let server;
let alice;

before(async () => {
  server = await startServer({ flags: ['--api-key', KEY] });
  alice = new Client([PYTHON, DRIVER]);
  await alice.connect(`${server.url.replace('http', 'ws')}ws`, 'alice');
  await alice.join('lobby');
});
after(async () => {
  await alice?.end();
  await server?.stop();
});

async function startBot() {
  const bot = spawn(PYTHON, [BOT, `${server.url}ws`, 'lobby'], { stdio: ['ignore', 'pipe', 'pipe'] });
  const exited = new Promise((done) => { bot.once('exit', done).once('error', done); });
  const lines = [];
  for (const output of [bot.stdout, bot.stderr]) createInterface({ input: output }).on('line', (line) => lines.push(line));
  await eventually(() => lines, (found) => found.includes('listening in lobby'), 'the bot listens');
  return { bot, exited, lines };
}

test('the bot of the examples has at most 60 lines', () => {
  assert.ok(readFileSync(BOT, 'utf8').trimEnd().split('\n').length <= 60);
});

test('the bot repeats what it is asked to repeat, and ends quietly when it is told to', async () => {
  const { bot, exited } = await startBot();
  for (const text of ['hello', 'echo echo for ever', 'echo hello yourself']) alice.say('lobby', text);
  await eventually(() => alice.texts('lobby'), (texts) => texts.includes('hello yourself'), 'the bot answers');
  const answers = alice.views.get('lobby').filter(({ userId }) => userId === 'echo-bot').map(({ text }) => text);
  assert.deepEqual(answers, ['hello yourself']);
  bot.kill('SIGTERM');
  assert.equal(await exited, 0);
});

test('a bot that is banned says so and ends', async () => {
  const { exited, lines } = await startBot();
  const headers = { Authorization: `Bearer ${KEY}`, 'Content-Type': 'application/json' };
  const body = JSON.stringify({ userId: 'echo-bot', reason: 'too chatty' });
  assert.equal((await fetch(`${server.url}api/ban`, { method: 'POST', headers, body })).status, 200);
  assert.equal(await exited, 1);
  assert.ok(lines.includes('the bot has ended: banned: too chatty'), lines.join('\n'));
});
