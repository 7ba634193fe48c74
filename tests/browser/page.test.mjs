// What the page does for people, and how it looks: at three sizes, in both themes, with the rules of axe-core.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { buildPage, built, servedTexts } from '../../src/page/build.mjs';
import { API_FLAGS, command, eventually, joinRoom, message, openTab, say, screenshot, startBrowser, startRedis, startServer, state, texts } from './harness.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SIZES = { desktop: [1280, 800], tablet: [820, 1100], phone: [390, 844] };
const ROOMS = { desktop: 'design', tablet: 'support', phone: 'garden' };
const WEIGHT_MAX = 64_000;
const GZIPPED_MAX = 22_000;

// Without ALL_VIEWS, what seldom is in view is checked on the smallest and on the largest screen alone.
const ALL_LOOKS = ['light', 'dark'].flatMap((colorScheme) => Object.keys(SIZES).map((size) => [size, colorScheme]));
const RARE_LOOKS = process.env.ALL_VIEWS ? ALL_LOOKS : [['desktop', 'light'], ['phone', 'dark']];

let browser;
let server;
let context;

before(async () => {
  server = await startServer({ flags: API_FLAGS });
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});
beforeEach(async () => { context = await browser.newContext({ viewport: { width: 1180, height: 760 } }); });
afterEach(() => context.close());

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

/** A browser of this size and theme, in which nothing moves. */
function newLook(size, colorScheme) {
  const [width, height] = SIZES[size];
  return browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: 'reduce' });
}

test('what the server serves is built from the sources, compressed as well, and light', async () => {
  const again = 'run src/page/build.mjs after a change of src/page or client/js';
  const page = await buildPage();
  for (const [name, text] of Object.entries(page)) assert.equal(readFileSync(built(name), 'utf8'), text, again);
  for (const [name, text] of Object.entries(servedTexts(page))) {
    // Versions of zlib differ in how they compress, not in what.
    const [gzipped, brotli] = ['gz', 'br'].map((end) => readFileSync(built(`${name}.${end}`)));
    for (const decoded of [gunzipSync(gzipped), brotliDecompressSync(brotli)]) assert.ok(decoded.equals(Buffer.from(text)), `${name}: ${again}`);
    assert.ok(gzipped.length <= GZIPPED_MAX, `${name} has ${gzipped.length} bytes compressed; ${GZIPPED_MAX} are allowed`);
    assert.ok(brotli.length < gzipped.length);
  }
  const { length } = await (await fetch(server.url)).text();
  assert.ok(length <= WEIGHT_MAX, `the page has ${length} characters; ${WEIGHT_MAX} are allowed`);
});

for (const [size, colorScheme] of ALL_LOOKS) {
  test(`every view fits a ${size} and is accessible in the ${colorScheme} theme`, async () => {
    const own = await newLook(size, colorScheme);
    try {
      const room = colorScheme === 'dark' ? `${ROOMS[size]}-at-night` : ROOMS[size];
      const view = (name) => `${name}-${size}-${colorScheme}`;
      const bob = await openTab(own, server.url, { room, introduced: false });
      assert.equal(await bob.textContent('#settings-intro'), 'Nobody checks names here: everybody is who they say they are.');
      await assertFit(bob, view('welcome'));
      await bob.fill('#name', 'Bob Müller');
      await bob.locator('#name-hint', { hasText: 'Others see “Bob Müller”, and write @Bob-Müller to mention you.' }).waitFor();
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
      await command(server, 'delete', { room, seq: Number(await message(bob, 'this was too early').getAttribute('data-seq')) });
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
      await bob.keyboard.press('Escape');
      await command(server, 'ban', { userId: 'Bob-Müller', reason: 'a test' });
      await state(bob, 'closed');
      await assertFit(bob, view('banned'));
      await command(server, 'unban', { userId: 'Bob-Müller' });
      assert.deepEqual(bob.complaints, []);
    } finally {
      await own.close();
    }
  });
}

for (const [size, colorScheme] of RARE_LOOKS) {
  test(`what goes wrong is told well on a ${size} in the ${colorScheme} theme`, async (t) => {
    let mortal = await startServer({ flags: API_FLAGS });
    t.after(() => mortal.stop());
    const own = await newLook(size, colorScheme);
    t.after(() => own.close());
    const view = (name) => `${name}-${size}-${colorScheme}`;
    const bob = await openTab(own, mortal.url, { name: 'bob', room: 'harbour' });
    const ada = await openTab(context, mortal.url, { name: 'ada', room: 'harbour' });
    await say(bob, 'The ferry leaves at nine.');
    await say(ada, 'I will be there.');
    await message(bob, 'I will be there.').waitFor();

    await command(mortal, 'kick', { room: 'harbour', userId: 'bob' });
    await bob.locator('.notice[data-kind="removed"]').waitFor();
    await assertFit(bob, view('kicked'));
    await bob.getByText('Join again').click();
    await message(bob, 'I will be there.').waitFor();

    await command(mortal, 'disconnect', { userId: 'bob', reason: 'the harbour closes' });
    await bob.locator('#outage-text', { hasText: 'The server has put you out: the harbour closes.' }).waitFor();
    // It is closed for good: nothing is tried by itself, and nothing can be written that would wait for ever.
    assert.deepEqual([await bob.textContent('#status-text'), await bob.textContent('#retry')], ['Disconnected', 'Connect again']);
    assert.ok(await bob.isDisabled('#text') && await bob.isDisabled('#send'));
    assert.equal(await bob.textContent('#outage-wait'), '');
    await assertFit(bob, view('put-out'));
    await bob.click('#retry');
    await state(bob, 'online');

    await own.setOffline(true);
    await state(bob, 'offline');
    await bob.locator('#outage-text', { hasText: 'You are offline.' }).waitFor();
    await say(bob, 'Is anybody there?');
    await assertFit(bob, view('offline'));
    await own.setOffline(false);
    await state(bob, 'online');
    await message(ada, 'Is anybody there?').waitFor();

    await mortal.stop('SIGKILL');
    await state(bob, 'offline');
    await assertFit(bob, view('server-away'));
    mortal = await startServer({ port: mortal.port, flags: API_FLAGS });
    await comeBack(bob);
    await bob.locator('.message.before').first().waitFor();
    await comeBack(ada);
    await say(ada, 'What was that?');
    await message(bob, 'What was that?').waitFor();
    await assertFit(bob, view('after-restart'));

    await joinRoom(bob, 'quay');
    await say(ada, 'Somebody has left a hat here.');
    if (size === 'phone') await bob.click('#rooms-button');
    await bob.locator('#rooms .badge').waitFor();
    await bob.click('#rooms [data-room="harbour"]');
    await bob.locator('.new').waitFor();
    await assertFit(bob, view('new-messages'));
  });

  test(`a token is asked for on a ${size} in the ${colorScheme} theme`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'roomcast-token-'));
    t.after(() => rmSync(folder, { recursive: true }));
    writeFileSync(join(folder, 'secret'), 'a secret that is long enough for the browser');
    const strict = await startServer({ flags: ['--token-secret-file', join(folder, 'secret')] });
    t.after(() => strict.stop());
    const own = await newLook(size, colorScheme);
    t.after(() => own.close());
    const bob = await openTab(own, strict.url, { wanted: 'closed' });
    await bob.getByText('Whoever runs it gives you one').waitFor();
    await assertFit(bob, `token-${size}-${colorScheme}`);
    await bob.click('#settings-cancel');
    assert.equal(await bob.textContent('#outage-text'), 'This server asks for a token.');
    await assertFit(bob, `without-token-${size}-${colorScheme}`);
    await bob.click('#change-token');
    assert.ok(await bob.isVisible('#token'));
  });
}

/** Tries again until the server is there. */
function comeBack(tab) {
  const look = async () => {
    await tab.locator('#retry').click({ timeout: 100 }).catch(() => {});
    return tab.getAttribute('#status', 'data-state');
  };
  return eventually(look, (found) => found === 'online', 'it is back');
}

test('the picture of the README', async (t) => {
  const own = await newLook('desktop', 'light');
  t.after(() => own.close());
  const bob = await openTab(own, server.url, { name: 'Bob Müller', room: 'website' });
  await joinRoom(bob, 'releases');
  await joinRoom(bob, 'support');
  await bob.click('#rooms [data-room="website"]');
  const ada = await openTab(context, server.url, { name: 'Ada Lovelace', room: 'website' });
  const chiara = await openTab(context, server.url, { name: 'Chiara Rossi', room: 'website' });
  await say(ada, 'Morning! The new build is up: https://example.com/builds/241');
  await say(ada, 'Could somebody look at the search page before lunch?');
  await message(bob, 'Could somebody look at the search page before lunch?').waitFor();
  await say(bob, 'On it.');
  await message(chiara, 'On it.').waitFor();
  await bob.click('#rooms [data-room="support"]');
  await say(chiara, 'Safari cut the last line off yesterday, please try that, too.');
  await message(ada, 'Safari cut the last line off yesterday, please try that, too.').waitFor();
  await say(ada, '@Bob-Müller, thank you!');
  await bob.locator('#rooms .badge', { hasText: '@ 2' }).waitFor();
  await bob.click('#rooms [data-room="website"]');
  for (const text of ['2.4 is tagged.', 'The notes are written.', '@Bob-Müller, do you press the button?']) {
    await command(server, 'publish', { room: 'releases', userId: 'Ada-Lovelace', text });
  }
  await bob.locator('#rooms [data-room="releases"] .badge', { hasText: '@ 3' }).waitFor();
  await bob.fill('#text', 'It looks right in ');
  await chiara.type('#text', 'I');
  await bob.locator('#typing', { hasText: 'Chiara Rossi is typing…' }).waitFor();
  await assertFit(bob, 'readme');
});

test('older messages come when one scrolls to the top, and what is being read stays in its place', async () => {
  const bob = await openTab(context, server.url, { name: 'bob', room: 'deep' });
  for (let index = 1; index <= 120; index++) await command(server, 'publish', { room: 'deep', userId: 'shop', text: `line ${index}` });
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
  await command(server, 'mute', { userId: 'ada', room: 'refused', ttlSeconds: 3600 });
  await say(ada, 'hear me');
  await ada.locator('.message[data-state="failed"]').waitFor();
  await command(server, 'unmute', { userId: 'ada', room: 'refused' });
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

test('a second tab says whose it is, and may be somebody else, whose name has a space', async () => {
  const ada = await openTab(context, server.url, { name: 'ada', room: 'two-people' });
  assert.equal(await ada.locator('.notice[data-kind="hello"]').count(), 0, 'she has just given her name');
  const second = await openTab(context, server.url, { room: 'two-people' });
  await second.locator('.notice[data-kind="hello"]', { hasText: 'You are ada, as before.' }).waitFor();
  await assertFit(second, 'second-tab');
  await second.getByText('Use another name in this tab').click();
  assert.ok(await second.isChecked('#this-tab'));
  await second.fill('#name', ' Bob   Müller ');
  await second.click('#settings-save');
  await ada.locator('#members [data-user="Bob-Müller"]', { hasText: 'Bob Müller' }).waitFor();
  assert.equal(await second.textContent('#me'), 'Bob Müller');
  await second.locator('#empty').waitFor();
  await say(second, 'A name of my own');
  await message(ada, 'A name of my own').waitFor();
  for (const tab of [ada, second]) assert.equal(await tab.locator('.message .author').textContent(), 'Bob Müller');
  await second.type('#text', 'and');
  await ada.locator('#typing', { hasText: 'Bob Müller is typing…' }).waitFor();
  await say(ada, 'Hello, @Bob-Müller!');
  await second.locator('.message.mention').waitFor();
  await second.reload();
  await message(second, 'Hello, @Bob-Müller!').waitFor();
  assert.equal(await second.textContent('#me'), 'Bob Müller', 'this tab keeps its name');
  assert.equal(await second.locator('.notice[data-kind="hello"]').count(), 0);
  await ada.reload();
  await state(ada, 'online');
  assert.equal(await ada.textContent('#me'), 'ada', 'and so does the other one');
  assert.deepEqual([...ada.complaints, ...second.complaints], []);
});

test('the button to the newest message covers neither the composer nor who is typing', async () => {
  const bob = await openTab(context, server.url, { name: 'bob', room: 'pill' });
  for (let index = 1; index <= 40; index++) await command(server, 'publish', { room: 'pill', userId: 'shop', text: `line ${index}` });
  await message(bob, 'line 40').waitFor();
  await bob.locator('#log').evaluate((log) => { log.scrollTop = 0; });
  await bob.locator('#to-newest').waitFor();
  await bob.fill('#text', 'six\n'.repeat(6));
  for (const [size, [width, height]] of Object.entries(SIZES)) {
    await bob.setViewportSize({ width, height });
    const [pill, typing, composer] = await Promise.all(['#to-newest', '#typing', '#composer'].map((selector) => bob.locator(selector).boundingBox()));
    assert.ok(pill.y + pill.height <= Math.min(typing.y, composer.y), `${size}: ${JSON.stringify([pill, typing, composer])}`);
  }
});

test('each day has a heading', async () => {
  const DAY_MS = 24 * 3600 * 1000;
  const ada = await openTab(context, server.url, { name: 'ada', room: 'days' });
  for (const text of ['two days ago', 'yesterday', 'yesterday again', 'today']) {
    await say(ada, text);
    await message(ada, text).waitFor();
  }
  const bob = await context.newPage();
  // The server is asked for nothing else; its times are moved on their way.
  await bob.routeWebSocket(/\/ws/, (socket) => {
    const upstream = socket.connectToServer();
    upstream.onMessage((data) => {
      const parsed = JSON.parse(data);
      const days = /^two days/.test(parsed.text) ? 2 : /^yesterday/.test(parsed.text) ? 1 : 0;
      socket.send(JSON.stringify(days ? { ...parsed, ts: parsed.ts - days * DAY_MS } : parsed));
    });
  });
  await bob.goto(`${server.url}#days`);
  await message(bob, 'today').waitFor();
  const named = (ms) => new Intl.DateTimeFormat('en-US', { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' }).format(ms);
  assert.deepEqual(await texts(bob, '.day'), [named(Date.now() - 2 * DAY_MS), named(Date.now() - DAY_MS), 'Today']);
  assert.deepEqual(await texts(bob, '.message:has(.day) .text'), ['two days ago', 'yesterday', 'today']);
});

test('a message that the server does not confirm is explained within seconds', async (t) => {
  const redis = startRedis();
  const node = await startServer({ flags: ['--redis', redis.url] });
  t.after(() => node.stop('SIGKILL')); // it would wait for Redis
  const ada = await openTab(context, node.url, { name: 'ada', room: 'limbo' });
  await say(ada, 'before');
  await message(ada, 'before').waitFor();
  await redis.stop();
  await say(ada, 'into the void');
  await ada.locator('.message[data-state="pending"] .delivery', { hasText: 'The server has not confirmed this yet.' }).waitFor();
  await state(ada, 'online');
  await screenshot(ada, 'unconfirmed');
});

test('a store that comes back empty is told, and what was read stays', async (t) => {
  const redis = startRedis();
  const node = await startServer({ flags: ['--redis', redis.url] });
  t.after(async () => { await node.stop(); await redis.stop(); });
  const ada = await openTab(context, node.url, { name: 'ada', room: 'amnesia' });
  await say(ada, 'remember this');
  await message(ada, 'remember this').waitFor();
  redis.empty();
  await say(ada, 'a new life');
  await ada.locator('.notice[data-kind="gap"]', { hasText: 'does not have the messages above any more' }).waitFor();
  assert.deepEqual(await texts(ada, '.message.before .text'), ['remember this']);
  await message(ada, 'a new life').waitFor();
});

test('the colours of people can be read and told apart in both themes', async () => {
  for (const colorScheme of ['light', 'dark']) {
    const own = await newLook('desktop', colorScheme);
    try {
      const tab = await openTab(own, server.url, { name: 'bob', room: 'colours' });
      const found = await tab.evaluate(() => {
        const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        const rgb = (color) => {
          canvas.fillStyle = color;
          canvas.fillRect(0, 0, 1, 1);
          return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
        };
        const named = (name) => rgb(getComputedStyle(document.documentElement).getPropertyValue(name));
        const ofHue = (className, property, hue) => {
          const element = document.body.appendChild(document.createElement('span'));
          Object.assign(element, { className }).dataset.hue = hue;
          return rgb(getComputedStyle(element)[property]);
        };
        const hues = Array.from({ length: 12 }, (_, hue) => hue);
        return {
          grounds: [named('--surface'), named('--mention')],
          authors: hues.map((hue) => ofHue('author', 'color', hue)),
          avatars: hues.map((hue) => [ofHue('avatar', 'backgroundColor', hue), ofHue('avatar', 'color', hue)]),
        };
      });
      const pairs = [...found.avatars, ...found.authors.flatMap((author) => found.grounds.map((ground) => [author, ground]))];
      for (const pair of pairs) assert.ok(contrast(...pair) >= 4.5, `${colorScheme}: ${contrast(...pair).toFixed(2)} between ${pair.join(' and ')}`);
      found.authors.forEach((color, hue) => {
        const next = found.authors[(hue + 1) % 12];
        const distance = Math.hypot(...color.map((value, index) => value - next[index]));
        assert.ok(distance >= 30, `${colorScheme}: ${color} and ${next}, the colours of hues ${hue} and ${hue + 1}, are alike`);
      });
    } finally {
      await own.close();
    }
  }
});

/** The contrast of two colours, as WCAG 2 defines it. */
function contrast(...colors) {
  const linear = (value) => (value <= 0.04045 * 255 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const [light, dark] = colors.map(([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)).sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}
