// The connection, the composer and the dialogs. What goes over the wire is the business of `Roomcast`.

const TOKEN_NEEDED = document.documentElement.dataset.tokens === 'needed';
const STATUS = { connecting: 'Connecting…', online: 'Online', offline: 'Offline', closed: 'Disconnected' };
const WAITING = 'What you write waits here until it can be sent.';
const OUTAGES = {
  network: `You are offline. ${WAITING}`,
  unreachable: `The server cannot be reached. ${WAITING}`,
  lost: `The connection was lost. ${WAITING}`,
  unavailable: `The server is restarting or too busy. ${WAITING}`,
  too_many: `The server takes no more connections from here at the moment. ${WAITING}`,
  not_found: `There is no chat at this address at the moment. ${WAITING}`,
  no_upgrade: 'A proxy between you and the server does not let the chat through.',
  token_expired: `Your token has expired. ${WAITING}`,
  origin: 'This page is not allowed to use the server: its address is not among those that the server accepts.',
};

const log = $('log');

let chat = null;
let hasEntered = false; // this person is known well enough to join rooms
let isWelcome = false; // the server has let us in since the token was changed
let ending = ''; // why the server has closed the connection for good
let myName = '';
let isReturning = false; // under a name that was given in an earlier tab
let retryAt = 0;

// ---- The connection ----

/** Connects as the person of this name, or as a guest without one. */
function start(name) {
  endConnection();
  hasEntered = false;
  ending = '';
  const token = recall('sessionStorage', 'roomcast.token');
  const userId = nameFrom(name);
  // A name without spaces is the user id, and need not be told twice.
  const mine = chat = new Roomcast('/ws', TOKEN_NEEDED ? { token } : { userId, name: name === userId ? '' : name });
  const on = (type, handle) => mine.on(type, (detail) => { if (mine === chat) handle(detail); });
  const inRoom = (type, handle) => on(type, (detail) => {
    const view = rooms.get(detail.room);
    if (view) handle(view, detail);
  });
  on('status', showStatus);
  on('welcome', welcome);
  on('error', serverError);
  on('typing', showTyping);
  on('members', ({ room, count, users }) => { if (room === current.name) showMembers(count, users); });
  inRoom('joined', (view, detail) => {
    view.joined(detail);
    if (view === current) greet();
  });
  inRoom('chat', (view, detail) => view.received(detail));
  inRoom('sent', (view, detail) => view.entries.sent(detail));
  inRoom('failed', (view, detail) => view.entries.failed(detail));
  inRoom('deleted', (view, detail) => view.deleted(detail));
  inRoom('presence', (view, detail) => view.presence(detail));
  inRoom('left', (view, detail) => view.left(detail));
  if (TOKEN_NEEDED || userId) enterRooms();
  if (TOKEN_NEEDED && !token) return askForToken();
  chat.connect();
}

/** Somebody else speaks from now on. What the former name could not send may be sent again. */
function endConnection() {
  if (!chat) return;
  for (const view of rooms.values()) {
    const unsent = chat.unsent(view.name);
    chat.leave(view.name); // an absence at once, where a closed connection would have a grace
    for (const { id } of unsent) view.entries.failed({ id, message: 'your name was changed before it was sent' });
    view.entries.clear();
    view.epoch = null;
  }
  const former = chat;
  chat = null;
  former.close();
}

function enterRooms() {
  hasEntered = true;
  for (const view of rooms.values()) view.join();
}

function welcome({ userId, name }) {
  myName = name ?? userId;
  setText($('me'), myName);
  $('me-avatar').replaceChildren(avatar(userId, name));
  isWelcome = true;
  if (hasEntered) return rememberUser();
  if (userId.startsWith('guest-')) return openSettings();
  rememberUser(); // a back-end knows who this is
  queueMicrotask(enterRooms); // joins come after the welcome
}

/** For this tab only, so that a reload is the same person, and a second tab may be somebody else. */
function rememberUser() {
  const { userId } = chat;
  store('sessionStorage', 'roomcast.user', nameFrom(myName) === userId ? myName : userId);
}

/** A second tab, or a later visit, begins under the name of the last one. */
function greet() {
  if (!isReturning) return;
  isReturning = false;
  const other = action('Use another name in this tab', () => openSettings(true));
  current.notice('hello', make('span', '', `You are ${myName}, as before. `, other));
}

function myNames() {
  return [chat.userId, nameFrom(myName)].filter(Boolean).map((name) => name.toLowerCase());
}

function serverError({ code, message, temporary, room, id, retryAfterMs: wait }) {
  const view = rooms.get(room) ?? current;
  if (code === 'muted') {
    const until = wait ? ` until ${new Date(Date.now() + wait).toLocaleString()}` : '';
    return view.notice('error', `You are ${message}. Nobody here sees what you write${until}.`);
  }
  if (!id?.startsWith('join-')) return view.notice('error', `The server says: ${message} (${code}).`);
  // A join that is refused for good is told by its promise.
  if (temporary) view.notice('error', `This room cannot be joined yet: ${message}. It is tried again.`);
}

function showStatus({ status, retryAt: at, code, cause, reason }) {
  if (status === 'closed' && !cause) return; // by `start`, which connects again
  $('status').dataset.state = status;
  setText($('status-text'), STATUS[status]);
  ending = status === 'closed' ? endingOf(cause, code, reason) : '';
  if (status === 'closed' || status === 'offline') {
    setText($('outage-text'), ending || OUTAGES[cause] || `There is no connection. ${WAITING}`);
    setText($('retry'), ending ? 'Connect again' : 'Try now');
    $('retry').hidden = TOKEN_NEEDED && cause === 'token_needed'; // it would be refused again
    setText($('change-token'), $('retry').hidden ? 'Enter a token' : 'Change token');
  }
  // The line stays during further attempts, so that the page does not jump with each of them.
  if (status !== 'connecting') $('outage').hidden = status === 'online';
  retryAt = at ?? 0;
  showWait();
  if (!current) return;
  showComposer();
  showEdges();
}

function endingOf(cause, code, reason) {
  if (cause === 'token_refused') return isWelcome ? 'Your token has expired.' : 'Your token is wrong or has expired.';
  if (cause === 'token_needed') return TOKEN_NEEDED ? 'This server asks for a token.' : `The server does not know you: ${reason || 'log in first'}.`;
  if (cause === 'banned') return `You are banned from this server${reason && reason !== 'banned' ? `: ${reason}` : ''}.`;
  if (cause === 'replaced') return `This tab was disconnected: ${reason} (${code}).`;
  return OUTAGES[cause] ?? `The server has put you out${reason ? `: ${reason}` : ` (${code})`}.`;
}

function showWait() {
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  setText($('outage-wait'), seconds > 0 ? `Next try in ${seconds} s.` : '');
}

// ---- Writing ----

function showComposer() {
  const isOut = Boolean(ending || current.problem || !hasEntered);
  $('text').disabled = $('send').disabled = isOut;
  $('text').placeholder = isOut ? 'You cannot write here now' : `Message #${current.name}`;
}

function say(text, view = current) {
  const answer = chat.say(view.name, text);
  const { id } = answer;
  answer.catch((error) => { if (!id) setText($('composer-error'), `Not sent: ${error.message}.`); });
  if (!id) return false;
  view.addPending({ id, text });
  setText($('composer-error'), '');
  return true;
}

function submit(event) {
  event.preventDefault();
  const field = $('text');
  if (field.value.trim() !== '' && say(field.value)) {
    field.value = '';
    storeDraft();
  }
  field.focus();
}

function storeDraft() {
  store('sessionStorage', `roomcast.draft.${current.name}`, $('text').value);
}

// ---- Dialogs ----

/** Who this person is, asked for the whole browser or for this tab alone. */
function openSettings(isThisTab = false) {
  const user = recall('sessionStorage', 'roomcast.user');
  const isFirst = !TOKEN_NEEDED && !hasEntered;
  setText($('settings-title'), isFirst ? 'Welcome!' : TOKEN_NEEDED ? 'Your token' : 'Your name');
  setText($('settings-intro'), TOKEN_NEEDED
    ? 'This server lets in people who have a token. Whoever runs it gives you one, on a web site or made by “roomcast token”.'
    : 'Nobody checks names here: everybody is who they say they are.');
  setText($('settings-cancel'), isFirst ? 'Stay a guest' : 'Cancel');
  setText($('settings-save'), isFirst ? 'Start chatting' : TOKEN_NEEDED ? 'Log in' : 'Save');
  $('name').value = user.startsWith('guest-') ? '' : user;
  $('token').value = recall('sessionStorage', 'roomcast.token');
  $('this-tab').checked = isThisTab || (user !== '' && user !== recall('localStorage', 'roomcast.name') && !user.startsWith('guest-'));
  setText($('settings-error'), '');
  hintName($('name'), $('name-hint'));
  if (!$('settings').open) $('settings').showModal();
  $(TOKEN_NEEDED ? 'token' : 'name').select();
}

/** What is allowed, or what becomes of the text. */
function hintName(field, hint) {
  const name = nameFrom(field.value);
  const isChanged = name !== field.value && name !== '' && !Roomcast.nameProblem(name);
  const isUser = field.id === 'name';
  const change = isUser ? `Others see “${shownFrom(field.value)}”, and write @${name} to mention you.` : `This becomes ${name}.`;
  setText(hint, isChanged ? change : `Letters, digits, ${isUser ? 'spaces ' : ''}and - _ . : @ ~ + # = / are allowed.`);
}

function saveSettings(event) {
  event.preventDefault();
  if (TOKEN_NEEDED) return saveToken($('token').value.trim());
  const name = shownFrom($('name').value);
  const problem = name && Roomcast.nameProblem(nameFrom(name));
  setText($('settings-error'), problem);
  if (problem) return;
  if (!$('this-tab').checked) store('localStorage', 'roomcast.name', name);
  const user = recall('sessionStorage', 'roomcast.user');
  const isSame = name === user || (name === '' && (user.startsWith('guest-') || !hasEntered));
  if (!isSame) {
    isReturning = false;
    store('sessionStorage', 'roomcast.user', name);
    start(name);
  }
  $('settings').close();
}

function saveToken(token) {
  if (!token) return setText($('settings-error'), 'This server asks for a token.');
  $('settings').close();
  if (token === recall('sessionStorage', 'roomcast.token') && chat.status === 'online') return;
  // For this tab only, as the user is.
  store('sessionStorage', 'roomcast.token', token);
  isWelcome = false;
  start('');
}

function askForToken() {
  showStatus({ status: 'closed', cause: 'token_needed' });
  setText($('status-text'), 'Token needed');
  openSettings();
}

function openRoomDialog() {
  $('room').value = '';
  setText($('room-error'), '');
  hintName($('room'), $('room-hint'));
  $('room-dialog').showModal();
}

function saveRoom(event) {
  event.preventDefault();
  const name = nameFrom($('room').value);
  const problem = Roomcast.nameProblem(name) || (rooms.size >= ROOMS_MAX && !rooms.has(name) ? `You are in ${ROOMS_MAX} rooms: leave one first.` : '');
  setText($('room-error'), problem);
  if (problem) return;
  $('room-dialog').close();
  toggle($('rooms-panel'), $('rooms-button'), false);
  openRoom(name);
  focusText();
}

// ---- Drawers and keys ----

function toggle(panel, button, open) {
  const wasOpen = panel.hasAttribute('data-open');
  panel.toggleAttribute('data-open', open);
  button.ariaExpanded = String(open);
  if (open) panel.querySelector('button')?.focus();
  else if (wasOpen && panel.contains(document.activeElement)) button.focus();
}

function closeDrawers() {
  toggle($('rooms-panel'), $('rooms-button'), false);
  toggle($('members-panel'), $('members-button'), false);
}

function textKey(event) {
  // During the composition of a character (Japanese, Chinese …) Enter belongs to the input method.
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) submit(event);
}

function pageKey(event) {
  if (event.key === 'Escape') return closeDrawers();
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!step || !event.altKey || document.querySelector('dialog[open]')) return;
  event.preventDefault();
  const views = [...rooms.values()];
  showRoom(views.at((views.indexOf(current) + step) % views.length));
}

function focusText() {
  if (matchMedia('(pointer: fine)').matches) $('text').focus(); // elsewhere it would call up the keyboard
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    setText($('copy'), 'Copied');
    setTimeout(() => setText($('copy'), 'Copy link'), 2_000);
  } catch {
    getSelection().selectAllChildren($('invitation')); // not over plain http: the person copies it
  }
}

// ---- Start ----

// A token says who somebody is, in place of a name.
for (const element of document.querySelectorAll('#name, [for=name], #name-hint, [for=this-tab]')) element.hidden = TOKEN_NEEDED;
for (const element of document.querySelectorAll('#token, [for=token], #change-token')) element.hidden = !TOKEN_NEEDED;

$('composer').addEventListener('submit', submit);
$('text').addEventListener('keydown', textKey);
$('text').addEventListener('input', () => {
  storeDraft();
  chat.typing(current.name, $('text').value !== '');
});
$('settings-form').addEventListener('submit', saveSettings);
$('settings-cancel').addEventListener('click', () => $('settings').close());
$('settings').addEventListener('close', () => {
  if (!hasEntered) {
    enterRooms(); // as a guest
    if (isWelcome) rememberUser();
  }
  showComposer();
  focusText();
});
$('room-form').addEventListener('submit', saveRoom);
$('room-cancel').addEventListener('click', () => $('room-dialog').close());
for (const id of ['name', 'room']) $(id).addEventListener('input', () => hintName($(id), $(`${id}-hint`)));
$('room-button').addEventListener('click', openRoomDialog);
$('me-button').addEventListener('click', () => openSettings());
$('leave').addEventListener('click', leaveRoom);
for (const side of ['rooms', 'members']) {
  const [panel, button] = [$(`${side}-panel`), $(`${side}-button`)];
  button.addEventListener('click', () => toggle(panel, button, !panel.hasAttribute('data-open')));
}
$('conversation').addEventListener('pointerdown', closeDrawers);
document.addEventListener('keydown', pageKey);
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault(); // the address names the room
  $('text').focus();
});
$('older').addEventListener('click', () => current.loadOlder());
$('copy').addEventListener('click', copyLink);
$('to-newest').addEventListener('click', toBottom);
log.addEventListener('scroll', scrolled);
// A keyboard that slides in, or the line about an outage, must not hide the newest message.
new ResizeObserver(() => { if (following) toBottom(); }).observe(log);
$('change-token').addEventListener('click', () => openSettings());
$('retry').addEventListener('click', () => (chat.status === 'closed' ? chat.connect() : chat.reconnect()));
window.addEventListener('hashchange', () => openRoom(roomFromAddress() || current.name));
document.addEventListener('visibilitychange', seen);
setInterval(() => {
  showWait();
  for (const view of rooms.values()) view.entries.tellSlow(chat.status === 'online');
}, 1000);

const stored = storedRooms();
const wanted = roomFromAddress() || stored[0] || 'lobby';
const user = recall('sessionStorage', 'roomcast.user');
const known = user || recall('localStorage', 'roomcast.name');
isReturning = !TOKEN_NEEDED && !user && Boolean(known);
for (const name of new Set([...stored, wanted])) rooms.set(name, new RoomView(name));
storeRooms();
start(Roomcast.nameProblem(nameFrom(known)) ? '' : known);
showRoom(rooms.get(wanted));
focusText();
