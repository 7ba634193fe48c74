// What the parts of the page stand on. All scripts of the page are put into one function, in the order that page.rs names.
// Text from others enters the document through text nodes only.

const HUES = 12;
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
const FULL_DATE = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
// Addresses, and names behind an @, which may have the characters of a user id.
const SPECIAL = /(https?:\/\/[^\s<>"]+)|(@[\p{Alphabetic}\p{N}\-_.:@~+#=/]+)/giu;

function $(id) {
  return document.getElementById(id);
}

function make(tag, className = '', ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children); // strings become text nodes
  return element;
}

function action(label, run) {
  const button = make('button', 'plain', label);
  button.type = 'button';
  button.addEventListener('click', run);
  return button;
}

/** Writes only what has changed: a live region is read aloud again by every write. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Storage is refused where cookies are: the page works without, and forgets.
function store(where, key, value) {
  try {
    if (value === '') window[where].removeItem(key);
    else window[where].setItem(key, value);
  } catch { /* forgotten at the next visit */ }
}

function recall(where, key) {
  try { return window[where].getItem(key) ?? ''; } catch { return ''; }
}

/** What was stored as JSON; null if there is nothing, or something that another program or version has stored. */
function recallJson(key) {
  try { return JSON.parse(recall('localStorage', key)); } catch { return null; }
}

/** A display name, from what a person has typed. */
function shownFrom(text) {
  return text.trim().replace(/\s+/gu, ' ').normalize('NFC');
}

/** A user id or the name of a room: they have no spaces. */
function nameFrom(text) {
  return shownFrom(text).replaceAll(' ', '-');
}

// ---- People ----

function hueOf(userId) {
  let hash = 0;
  for (const character of userId) hash = (hash * 31 + character.codePointAt(0)) % 9973;
  return hash % HUES;
}

function avatar(userId, name) {
  const [initial] = (name || userId).replace(/^guest-(?=.)/u, ''); // a user may be called just that
  const element = make('span', 'avatar', initial.toUpperCase());
  element.dataset.hue = hueOf(userId);
  element.ariaHidden = 'true';
  return element;
}

function byName(a, b) {
  return (a.name ?? a.userId).localeCompare(b.name ?? b.userId);
}

function listed(names) {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

// ---- Text ----

/** The nodes of a text: addresses become links, and the names of `mine` are marked. */
function nodesOf(text, mine) {
  const nodes = [];
  let end = 0;
  for (const { 0: found, 1: address, index } of text.matchAll(SPECIAL)) {
    const core = address ? withoutEnd(found) : found;
    const node = address ? link(core) : mention(core, mine);
    if (!node) continue;
    nodes.push(text.slice(end, index), node);
    end = index + node.textContent.length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== '');
}

/** The full stop after an address ends the sentence, and a bracket closes one that was open before it. */
function withoutEnd(address) {
  const core = address.replace(/[.,;:!?'’”*_]+$/u, '');
  return core.endsWith(')') && !core.includes('(') ? withoutEnd(core.slice(0, -1)) : core;
}

function link(address) {
  if (!URL.canParse(address)) return null;
  const element = make('a', '', address);
  Object.assign(element, { href: address, target: '_blank', rel: 'noopener noreferrer' });
  return element;
}

function mention(found, mine) {
  const called = found.slice(1).toLowerCase();
  const name = mine.find((one) => called === one || (called.startsWith(one) && /^[.:/]+$/.test(called.slice(one.length))));
  return name ? make('mark', '', found.slice(0, name.length + 1)) : null;
}
