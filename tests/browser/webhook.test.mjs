// A back-end that knows people by their cookies: the page stays with it, and gives way to a newer tab of the same person.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually, openTab, startBackEnd, startBrowser, startServer, state } from './harness.mjs';

let browser;
let backEnd;
let life; // milliseconds that an identity is good for, or null
let asked = []; // what the back-end was asked

before(async () => {
  browser = await startBrowser();
  backEnd = createServer(async (request, response) => {
    const question = JSON.parse(await new Response(request).text());
    asked.push(question);
    const user = /session=(\w+)/.exec(question.cookie ?? '')?.[1];
    response.statusCode = user ? 200 : 401;
    response.end(JSON.stringify(user ? { user, ...(life && { expiresAt: Date.now() + life }) } : { message: 'log in first' }));
  });
  await new Promise((done) => { backEnd.listen(0, '127.0.0.1', done); });
});
after(async () => {
  await browser?.close();
  backEnd?.close();
});

async function setUp(flags) {
  asked = [];
  const server = await startServer({ flags: ['--auth-url', `http://127.0.0.1:${backEnd.address().port}/`, ...flags] });
  const context = await browser.newContext();
  await context.addCookies([{ name: 'session', value: 'alice', url: server.url }]);
  const end = async () => {
    await context.close();
    await server.stop();
  };
  return { server, context, end };
}

test('a page whose identity ends comes back through the back-end', async () => {
  life = 2000;
  const { server, context, end } = await setUp([]);
  try {
    const tab = await openTab(context, server.url);
    await tab.locator('#members [data-user="alice"]').waitFor({ state: 'attached' });
    await eventually(() => tab.evaluate(() => window.sockets.length), (count) => count >= 2, 'it connects again');
    life = null;
    await eventually(() => asked.length, (count) => count >= 2, 'the back-end is asked again');
    await state(tab, 'online');
    assert.ok(asked.every(({ cookie, origin }) => cookie === 'session=alice' && `${origin}/` === server.url), JSON.stringify(asked));
    assert.deepEqual(tab.complaints, []);
  } finally {
    await end();
  }
});

test('the example of a back-end logs people in, and keeps others out', async () => {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const example = await startBackEnd('node examples/auth-webhook/back-end.mjs', root);
  const server = await startServer({ flags: ['--auth-url', `${example.url}decide`] });
  const context = await browser.newContext();
  try {
    await openTab(context, server.url, { wanted: 'closed' });
    const login = await context.newPage();
    // It leads to the page of a server at the usual place, where none is.
    await login.goto(`${example.url}login?user=alice`).catch(() => {});
    const tab = await openTab(context, server.url);
    await tab.locator('#members [data-user="alice"]').waitFor({ state: 'attached' });
  } finally {
    await context.close();
    await server.stop();
    await example.stop();
  }
});

test('a tab gives way to a newer one of the same user, and does not come back by itself', async () => {
  life = null;
  const { server, context, end } = await setUp(['--connections-per-user=1']);
  try {
    const older = await openTab(context, server.url);
    const newer = await openTab(context, server.url);
    await state(older, 'closed');
    await older.locator('#outage-text', { hasText: 'replaced by a newer connection of the same user' }).waitFor();
    assert.match(await older.textContent('#outage-text'), /\(4504\)/);
    await state(newer, 'online');
    assert.equal(asked.length, 2);
  } finally {
    await end();
  }
});
