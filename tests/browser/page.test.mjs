// What the page does for people, and how it looks: at three sizes, in both themes, with the rules of axe-core.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { buildPage, built } from '../../src/page/build.mjs';
import { eventually, joinRoom, message, openTab, say, screenshot, startBrowser, startServer, state, texts } from './harness.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const KEY = 'a-key-of-the-test-0123456789';
const SIZES = { desktop: [1280, 800], tablet: [820, 1100], phone: [390, 844] };
const ROOMS = { desktop: 'design', tablet: 'support', phone: 'garden' };
const WEIGHT_MAX = 60_000;

let browser;
let server;
let context;

before(async () => {
  server = await startServer({ flags: ['--api-key', KEY] });
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});
beforeEach(async () => { context = await browser.newContext({ viewport: { width: 1180, height: 760 } }); });
afterEach(() => context.close());

async function command(path, body) {
  const headers = { Authorization: `Bearer ${KEY}`, 'Content-Type': 'application/json' };
  const response = await fetch(`${server.url}api/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  assert.equal(response.status, 200, `${path}: ${await response.clone().text()}`);
}

const fromBottom = (tab) => tab.locator('#log').evaluate((log) => log.scrollHeight - log.scrollTop - log.clientHeight);

/** Asks axe-core, and looks whether anything sticks out to the side. */
async function assertFit(tab, view) {
  const overflow = await tab.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(overflow, 0, `${view} scrolls sideways`);
  // Not as a script element: the page's Content-Security-Policy refuses that.
  await tab.evaluate(AXE);
  const { violations } = await tab.evaluate(() => window.axe.run());
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} ${node.failureSummary}`).join('; ')}`);
  assert.deepEqual(found, [], view);
  await screenshot(tab, view);
}

test('what the server inlines is built from the sources, and light', async () => {
  for (const [name, text] of Object.entries(await buildPage())) {
    assert.equal(readFileSync(built(name), 'utf8'), text, 'run src/page/build.mjs after a change of src/page');
  }
  const page = await (await fetch(server.url)).arrayBuffer();
  assert.ok(page.byteLength <= WEIGHT_MAX, `the page has ${page.byteLength} bytes; ${WEIGHT_MAX} are allowed`);
});

for (const colorScheme of ['light', 'dark']) {
  for (const [size, [width, height]] of Object.entries(SIZES)) {
    test(`every view fits a ${size} and is accessible in the ${colorScheme} theme`, async () => {
      const own = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: 'reduce' });
      try {
        const room = colorScheme === 'dark' ? `${ROOMS[size]}-at-night` : ROOMS[size];
        const view = (name) => `${name}-${size}-${colorScheme}`;
        const bob = await openTab(own, server.url, { room, introduced: false });
        await assertFit(bob, view('welcome'));
        await bob.fill('#name', 'Bob Müller');
        await bob.locator('#name-hint', { hasText: 'This becomes Bob-Müller' }).waitFor();
        await bob.click('#settings-save');
        await bob.locator('#empty').waitFor();
        await assertFit(bob, view('empty'));

        const ada = await openTab(context, server.url, { name: 'ada', room });
        await say(ada, 'Morning! The new build is up: https://example.com/builds/241 (staging only).');
        await say(ada, 'Could somebody look at the search page?');
        await message(bob, 'Could somebody look at the search page?').waitFor();
        await say(bob, 'On it.');
        await message(ada, 'On it.').waitFor();
        await say(ada, '@Bob-Müller, thanks!');
        await bob.locator('.mention').waitFor();
        await say(ada, 'this was too early');
        await message(bob, 'this was too early').waitFor();
        await command('delete', { room, seq: Number(await message(bob, 'this was too early').getAttribute('data-seq')) });
        await bob.locator('.deleted').waitFor();
        await bob.fill('#text', 'Half a sen');
        await assertFit(bob, view('conversation'));
        if (size !== 'desktop') {
          await bob.click('#members-button');
          await bob.locator('#members [data-user="ada"]').waitFor();
          await assertFit(bob, view('members'));
          await bob.keyboard.press('Escape');
        }
        await joinRoom(bob, 'releases');
        if (size === 'phone') await bob.click('#rooms-button');
        await bob.locator('#rooms [aria-current]', { hasText: 'releases' }).waitFor();
        await say(ada, 'Lunch?');
        await bob.locator('#rooms .badge').waitFor();
        await assertFit(bob, view('rooms'));
        await command('ban', { userId: 'Bob-Müller', reason: 'a test' });
        await state(bob, 'closed');
        await assertFit(bob, view('banned'));
        await command('unban', { userId: 'Bob-Müller' });
        assert.deepEqual(bob.complaints, []);
      } finally {
        await own.close();
      }
    });
  }
}

test('older messages come when one scrolls to the top, and what is being read stays in its place', async () => {
  const bob = await openTab(context, server.url, { name: 'bob', room: 'deep' });
  for (let index = 1; index <= 120; index++) await command('publish', { room: 'deep', userId: 'shop', text: `line ${index}` });
  const ada = await openTab(context, server.url, { name: 'ada', room: 'deep' });
  await message(ada, 'line 120').waitFor();
  assert.equal((await texts(ada)).length, 50);
  assert.ok(await fromBottom(ada) < 2);
  const place = () => ada.evaluate(() => {
    const line = [...document.querySelectorAll('.text')].find((element) => element.textContent === 'line 71');
    return Math.round(line.getBoundingClientRect().top);
  });
  await ada.locator('#log').evaluate((log) => { log.scrollTop = 0; });
  const before = await place();
  await message(ada, 'line 21').waitFor({ state: 'attached' });
  assert.ok(Math.abs(await place() - before) < 3, `from ${before} to ${await place()}`);
  await ada.locator('#log').evaluate((log) => { log.scrollTop = 0; });
  await message(ada, 'line 1').waitFor({ state: 'attached' });
  await eventually(() => ada.locator('#older').isHidden(), (hidden) => hidden, 'there is nothing older');
  assert.deepEqual(await texts(ada), Array.from({ length: 120 }, (_, index) => `line ${index + 1}`));
  await ada.click('#to-newest');
  assert.ok(await fromBottom(ada) < 2);
  assert.deepEqual([...ada.complaints, ...bob.complaints], []);
});

test('a draft belongs to its room, and survives a reload', async () => {
  const ada = await openTab(context, server.url, { name: 'ada', room: 'draft' });
  await ada.fill('#text', 'for later');
  await joinRoom(ada, 'another');
  assert.equal(await ada.inputValue('#text'), '');
  await ada.reload();
  await state(ada, 'online');
  await ada.click('#rooms [data-room="draft"]');
  assert.equal(await ada.inputValue('#text'), 'for later');
  await ada.press('#text', 'Enter');
  await message(ada, 'for later').waitFor();
  await ada.reload();
  await state(ada, 'online');
  assert.equal(await ada.inputValue('#text'), '');
});

test('addresses become links, and nothing else does', async () => {
  const ada = await openTab(context, server.url, { name: 'ada', room: 'links' });
  const text = 'See https://example.com/a_(b)?c=d#e. Not javascript:alert(1), but (http://example.org/x), and https://.';
  await say(ada, text);
  await message(ada, text).waitFor();
  const links = await ada.locator('.text a').evaluateAll((all) => all.map(({ href, rel, target }) => [href, rel, target].join(' ')));
  assert.deepEqual(links, ['https://example.com/a_(b)?c=d#e noopener noreferrer _blank', 'http://example.org/x noopener noreferrer _blank']);
});

test('people who come together share one line', async () => {
  const ada = await openTab(context, server.url, { name: 'ada', room: 'crowd' });
  await ada.evaluate(() => {
    window.crowd = Array.from({ length: 12 }, (_, index) => new WebSocket(`ws://${location.host}/ws?userId=p${index}`));
    for (const socket of window.crowd) socket.onopen = () => socket.send(JSON.stringify({ type: 'join', room: 'crowd' }));
  });
  await ada.locator('.notice[data-kind="presence"]', { hasText: '12 people joined' }).waitFor();
  assert.equal(await ada.locator('.notice').count(), 1);
});

test('a message that the server refuses can be tried again', async () => {
  const ada = await openTab(context, server.url, { name: 'ada', room: 'refused' });
  await command('mute', { userId: 'ada', room: 'refused', ttlSeconds: 3600 });
  await say(ada, 'hear me');
  await ada.locator('.message[data-state="failed"]').waitFor();
  await command('unmute', { userId: 'ada', room: 'refused' });
  await ada.getByText('Try again').click();
  await message(ada, 'hear me').waitFor();
  assert.deepEqual(await texts(ada), ['hear me']);
});

test('the keyboard is enough', async () => {
  const ada = await openTab(context, server.url, { name: 'ada', room: 'keys' });
  await ada.focus('.skip');
  await ada.keyboard.press('Enter');
  await ada.keyboard.type('two');
  await ada.keyboard.press('Shift+Enter');
  await ada.keyboard.type('lines');
  await ada.keyboard.press('Enter');
  await message(ada, 'two\nlines').waitFor();
  await joinRoom(ada, 'more-keys');
  await ada.keyboard.press('Alt+ArrowUp');
  await eventually(() => ada.textContent('#room-name'), (name) => name === 'keys', 'the room above');
});
