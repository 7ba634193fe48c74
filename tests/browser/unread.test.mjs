// What is new in a room, for people who were elsewhere: in another room, in another tab, or away.
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { API_FLAGS, command, eventually, joinRoom, message, openTab, say, startBrowser, startServer, state, texts } from './harness.mjs';

let browser;
let server;
let context;
let others; // the browser of other people

before(async () => {
  server = await startServer({ flags: API_FLAGS });
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});
beforeEach(async () => {
  context = await browser.newContext({ viewport: { width: 1180, height: 760 } });
  others = await browser.newContext();
});
afterEach(() => Promise.all([context.close(), others.close()]));

const line = (tab) => tab.locator('.new');
const badge = (tab, room) => tab.locator(`#rooms [data-room="${room}"] .badge`);
const badges = (tab) => tab.locator('#rooms .badge').count();

/** The texts under the line, or null if there is none. */
function underLine(tab) {
  return tab.evaluate(() => {
    const first = document.querySelector('.message:has(> .new)');
    if (!first) return null;
    const all = [...document.querySelectorAll('.message')];
    return all.slice(all.indexOf(first)).map((element) => element.querySelector('.text').textContent);
  });
}

/** Says it, and waits until the server has it. */
async function sayAll(tab, ...all) {
  for (const text of all) await say(tab, text);
  await message(tab, all.at(-1)).waitFor();
}

/** Has a back-end say so many things, one after the other; their texts. */
async function publish(room, count) {
  const all = Array.from({ length: count }, (_, index) => `news ${index}`);
  for (const text of all) await command(server, 'publish', { room, userId: 'shop', text });
  return all;
}

/** As if the person looked at another tab of the window, or came back. */
function setHidden(tab, isHidden) {
  return tab.evaluate((value) => {
    Object.defineProperty(document, 'hidden', { get: () => value, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, isHidden);
}

test('a line says what is new in a room that one comes back to, and is gone the next time', async () => {
  const bob = await openTab(context, server.url, { name: 'bob', room: 'tea' });
  const ada = await openTab(others, server.url, { name: 'ada', room: 'tea' });
  await sayAll(ada, 'seen');
  await message(bob, 'seen').waitFor();
  assert.equal(await line(bob).count(), 0, 'nothing is new to somebody who looks');
  await joinRoom(bob, 'milk');
  await sayAll(ada, 'one', 'two');
  await badge(bob, 'tea').getByText('2').waitFor();
  await bob.click('#rooms [data-room="tea"]');
  assert.deepEqual(await underLine(bob), ['one', 'two']);
  assert.equal(await badges(bob), 0);
  await sayAll(ada, 'three');
  await message(bob, 'three').waitFor();
  assert.deepEqual(await underLine(bob), ['one', 'two', 'three'], 'the line stays where it is');
  await bob.click('#rooms [data-room="milk"]');
  await bob.click('#rooms [data-room="tea"]');
  assert.equal(await line(bob).count(), 0);
  // Saying something means having read the rest.
  await bob.click('#rooms [data-room="milk"]');
  await sayAll(ada, 'four');
  await badge(bob, 'tea').waitFor();
  await bob.click('#rooms [data-room="tea"]');
  assert.deepEqual(await underLine(bob), ['four']);
  await sayAll(bob, 'five');
  assert.equal(await line(bob).count(), 0);
  assert.deepEqual([...ada.complaints, ...bob.complaints], []);
});

test('what comes while the tab is hidden is counted, and has its line; who comes back begins to read there', async () => {
  const bob = await openTab(context, server.url, { name: 'bob', room: 'hidden' });
  await sayAll(bob, 'seen');
  await setHidden(bob, true);
  const all = await publish('hidden', 30);
  await message(bob, 'news 29').waitFor({ state: 'attached' });
  assert.equal(await bob.title(), '(30) hidden · Roomcast');
  await setHidden(bob, false);
  assert.equal(await bob.title(), 'hidden · Roomcast');
  assert.deepEqual(await underLine(bob), all);
  const [top, bottom] = await bob.evaluate(() => ['.new', '#log'].map((selector) => document.querySelector(selector).getBoundingClientRect().top));
  assert.ok(top >= bottom && top < bottom + 120, `the line is at ${top}, the log at ${bottom}`);
  assert.ok(await bob.locator('#to-newest').isVisible());
});

test('unread messages are counted after a reload, too, also those that came meanwhile', async () => {
  const bob = await openTab(context, server.url, { name: 'bob', room: 'garden' });
  const ada = await openTab(others, server.url, { name: 'ada', room: 'garden' });
  await sayAll(ada, 'seen');
  await message(bob, 'seen').waitFor();
  await joinRoom(bob, 'shed');
  await sayAll(ada, 'before the reload');
  await badge(bob, 'garden').waitFor();
  await bob.close();
  await sayAll(ada, 'meanwhile, @bob', 'and more');
  const again = await openTab(context, server.url, { room: 'shed' });
  await badge(again, 'garden').getByText('@ 3').waitFor();
  assert.equal(await again.title(), '(3) shed · Roomcast');
  await again.click('#rooms [data-room="garden"]');
  assert.deepEqual(await underLine(again), ['before the reload', 'meanwhile, @bob', 'and more']);
  await again.reload();
  await state(again, 'online');
  await message(again, 'and more').waitFor();
  assert.deepEqual([await badges(again), await line(again).count()], [0, 0], 'they were read before the second reload');
  // In the room in view nothing is counted; the line is there.
  await again.close();
  await sayAll(ada, 'later');
  const third = await openTab(context, server.url, { room: 'garden' });
  await message(third, 'later').waitFor();
  assert.deepEqual([await underLine(third), await badges(third)], [['later'], 0]);
});

test('nothing is new on a first visit, and never what one has said oneself', async () => {
  const ada = await openTab(others, server.url, { name: 'ada', room: 'first' });
  await sayAll(ada, 'long ago');
  const bob = await openTab(context, server.url, { name: 'bob', room: 'first' });
  await message(bob, 'long ago').waitFor();
  assert.equal(await line(bob).count(), 0);
  await joinRoom(bob, 'second');
  const phone = await openTab(context, server.url, { room: 'first' });
  await sayAll(phone, 'from my phone');
  await sayAll(ada, 'an answer');
  await badge(bob, 'first').getByText('1').waitFor();
  await bob.click('#rooms [data-room="first"]');
  assert.deepEqual(await underLine(bob), ['an answer']);
  assert.equal(await line(ada).count(), 0);
});

test('more news than a page: the count says so, and the line goes up as older messages come', async () => {
  const bob = await openTab(context, server.url, { name: 'bob', room: 'busy' });
  await sayAll(bob, 'seen');
  await joinRoom(bob, 'calm');
  await bob.close();
  const all = await publish('busy', 70);
  const again = await openTab(context, server.url, { room: 'calm' });
  await badge(again, 'busy').getByText('50+').waitFor();
  await again.click('#rooms [data-room="busy"]');
  await message(again, 'seen').waitFor({ state: 'attached' }); // older messages come by themselves near the top
  assert.deepEqual(await underLine(again), all);
});

test('a new epoch begins with new messages, whatever their numbers', async (t) => {
  let mortal = await startServer();
  t.after(() => mortal.stop());
  const bob = await openTab(context, mortal.url, { name: 'bob', room: 'born-again' });
  let ada = await openTab(others, mortal.url, { name: 'ada', room: 'born-again' });
  await sayAll(ada, 'one', 'two', 'three');
  await message(bob, 'three').waitFor();
  await joinRoom(bob, 'aside');
  await Promise.all([bob.close(), ada.close()]);
  await mortal.stop();
  mortal = await startServer({ port: mortal.port });
  ada = await openTab(others, mortal.url, { room: 'born-again' });
  await sayAll(ada, 'again one', 'again two');
  const again = await openTab(context, mortal.url, { room: 'aside' });
  await badge(again, 'born-again').getByText('2').waitFor();
  await again.click('#rooms [data-room="born-again"]');
  assert.deepEqual(await underLine(again), ['again one', 'again two']);
  // The same while the page is open, and in a room that nobody looks at.
  await again.click('#rooms [data-room="aside"]');
  await mortal.stop();
  await state(again, 'offline');
  mortal = await startServer({ port: mortal.port });
  for (const tab of [ada, again]) {
    await eventually(async () => { await tab.locator('#retry').click({ timeout: 100 }).catch(() => {}); return tab.locator('#status').getAttribute('data-state'); }, (now) => now === 'online', 'it is back');
  }
  await sayAll(ada, 'third life');
  await badge(again, 'born-again').getByText('1').waitFor();
  await again.click('#rooms [data-room="born-again"]');
  assert.deepEqual(await underLine(again), ['third life']);
  assert.deepEqual(await texts(again, '.message.before .text'), ['again one', 'again two']);
});

test('what is remembered is bounded, and what another program has stored does no harm', async () => {
  const bob = await openTab(context, server.url, { name: 'bob', room: 'bounds' });
  const ada = await openTab(others, server.url, { name: 'ada', room: 'bounds' });
  const stored = () => bob.evaluate(() => JSON.parse(localStorage.getItem('roomcast.seen')));
  for (const garbage of ['{', '{"a": 1}', '[1, null, ["x"], ["y", {"epoch": 5}], ["z", null]]']) {
    await bob.evaluate((text) => localStorage.setItem('roomcast.seen', text), garbage);
    await sayAll(ada, `after ${garbage}`);
    await message(bob, `after ${garbage}`).waitFor();
    await eventually(stored, (all) => all.length === 1 && all[0][0] === 'bounds', 'only what is right is kept');
  }
  const many = Array.from({ length: 64 }, (_, index) => [`room-${index}`, { epoch: 'e', seq: index }]);
  await bob.evaluate((all) => localStorage.setItem('roomcast.seen', JSON.stringify(all)), many);
  await sayAll(ada, 'one more');
  await message(bob, 'one more').waitFor();
  const all = await eventually(stored, (entries) => entries.at(-1)[0] === 'bounds', 'the room in view comes last');
  assert.deepEqual([all.length, all[0][0]], [64, 'room-1'], 'the one that was looked at longest ago has gone');
  // Leaving a room forgets it.
  await joinRoom(bob, 'other');
  await bob.click('#leave');
  assert.ok(!(await stored()).some(([room]) => room === 'other'));
  assert.deepEqual(bob.complaints, []);
});
