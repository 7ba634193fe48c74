// The chat page: what the person sees and does. What goes over the wire is the business of `Roomcast`.
// Text from others enters the document through `textContent` only.
(() => {
  'use strict';

  const HISTORY = 50;
  const ENTRIES_MAX = 500; // messages and notices in the document; older ones are dropped
  const GROUP_MS = 5 * 60_000; // messages of one person within this time share one heading
  const PRESENCE_MAX = 6; // comings and goings on one line
  const BOTTOM_PX = 60; // nearer than this counts as being at the bottom
  const CLOCK = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
  const DAY_CLOCK = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', hour: 'numeric', minute: '2-digit' });
  const FULL_DATE = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });

  const TOKEN_NEEDED = document.documentElement.dataset.tokens === 'needed';

  const $ = (id) => document.getElementById(id);
  const log = $('log');
  const byId = new Map(); // message id -> its element, for our own messages only

  let chat = null;
  let room = '';
  let unread = 0;
  let following = true; // the newest message is in view, and is to stay so
  let retryAt = 0;
  let isWelcome = false; // the server has let us in since the token was changed
  let membersTimer = 0;

  // ---- The connection ----

  function start(userId, name) {
    clearLog();
    chat?.leave(room); // an absence at once, where a closed connection would have a grace
    chat?.close();
    showRoom(name);
    const token = recall('sessionStorage', 'roomcast.token');
    chat = new Roomcast('/ws', TOKEN_NEEDED ? { token } : { userId });
    chat.on('status', showStatus);
    chat.on('welcome', welcome);
    const here = (handle) => (detail) => { if (detail.room === room) handle(detail); };
    chat.on('joined', here(joined));
    chat.on('chat', here(received));
    chat.on('sent', here(sent));
    chat.on('failed', failed);
    chat.on('presence', here(presence));
    chat.on('members', here(members));
    chat.on('typing', here(typing));
    chat.on('left', here(removed));
    chat.on('error', serverError);
    chat.join(room, { history: HISTORY });
    if (TOKEN_NEEDED && !token) return askForToken();
    chat.connect();
  }

  function serverError({ code, message, retryAfterMs: wait }) {
    if (code !== 'muted') return notice(`The server says: ${message} (${code}).`, 'error');
    const until = wait ? ` until ${new Date(Date.now() + wait).toLocaleString()}` : '';
    notice(`You are ${message}. Nobody here sees what you write${until}.`, 'error');
  }

  function askForToken() {
    $('status').dataset.state = 'closed';
    setText($('status-text'), 'Token needed');
    openSettings($('token'));
  }

  function welcome({ userId, name }) {
    // For this tab only, so that a reload is the same person, and a second tab may be somebody else.
    store('sessionStorage', 'roomcast.user', userId);
    $('me').textContent = name ?? userId;
    $('me-avatar').replaceChildren(avatar(userId, name));
  }

  function showStatus({ status, retryAt: at, code, cause, reason }) {
    if (status === 'closed' && !cause) return; // by `start`, which connects again
    const words = { connecting: 'Connecting…', online: 'Online', offline: 'Offline', closed: 'Disconnected' };
    $('status').dataset.state = status;
    setText($('status-text'), words[status]);
    // The line stays during further attempts, so that the page does not jump with each of them.
    if (status === 'online') isWelcome = true;
    if (status === 'online') $('outage').hidden = true;
    else if (status !== 'connecting') $('outage').hidden = false;
    if (status === 'closed' && cause === 'token_refused') {
      setText($('outage-text'), isWelcome ? 'Your token has expired.' : 'Your token is wrong or has expired.');
    } else if (status === 'closed' && cause === 'banned') {
      setText($('outage-text'), `You are banned from this server${reason && reason !== 'banned' ? `: ${reason}` : ''}.`);
    } else if (status === 'closed') {
      setText($('outage-text'), `The server has closed the connection for good${reason ? `: ${reason}` : ''} (${code}).`);
    } else {
      setText($('outage-text'), 'No connection. Your messages wait until it is back.');
    }
    retryAt = at ?? 0;
    showWait();
  }

  function showWait() {
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    setText($('outage-wait'), seconds > 0 ? `Next try in ${seconds} s.` : '');
  }

  // ---- The room ----

  function enter(name) {
    if (name === room) return;
    const left = room;
    showRoom(name);
    clearLog();
    chat.leave(left); // what it had not sent yet is reported in the new room
    chat.join(room, { history: HISTORY });
  }

  function showRoom(name) {
    room = name;
    allowWriting(true);
    $('room-name').textContent = name;
    const hash = `#${encodeURIComponent(name)}`;
    if (location.hash !== hash) history.replaceState(null, '', hash);
    showTitle();
  }

  /** Not joined again by itself: whoever did this had a reason. */
  function removed({ message }) {
    allowWriting(false);
    members({ count: 0, users: [] });
    const again = action('Join again', () => chat.join(room, { history: HISTORY }));
    notice(make('span', '', `You are not in this room any more: ${message}. `, again), 'removed');
  }

  function allowWriting(allowed) {
    $('text').disabled = $('send').disabled = !allowed;
  }

  function joined({ messages, replace, resumed }) {
    allowWriting(true);
    log.setAttribute('aria-busy', 'true');
    if (replace) {
      clearLog();
      if (resumed) notice('You were away too long, or the server was restarted: some messages may be missing here.', 'gap');
    }
    messages.slice(-ENTRIES_MAX).forEach(received);
    if (replace) {
      for (const message of chat.unsent(room)) addMessage({ ...message, userId: chat.userId, own: true, state: 'pending' });
      toBottom();
    }
    log.setAttribute('aria-busy', 'false');
  }

  function received(message) {
    const mine = message.own && byId.get(message.id);
    if (mine) return confirm(mine, message);
    keepingBottom(message.own, () => addMessage({ ...message, state: 'sent' }));
    if (document.hidden) {
      unread++;
      showTitle();
    }
  }

  /** Our own message takes its place among those of the others, before those that still wait. */
  function confirm(element, { ts, seq }) {
    setState(element, 'sent');
    element.dataset.seq = seq;
    setTime(element, ts);
    const place = firstPending();
    if (place && element.compareDocumentPosition(place) & Node.DOCUMENT_POSITION_PRECEDING) insert(element, place);
  }

  function sent({ id, seq }) {
    const element = byId.get(id);
    if (!element) return;
    setState(element, 'sent');
    element.dataset.seq = seq;
  }

  function failed({ room: where, id, text, message }) {
    const element = byId.get(id);
    if (where !== room || !element) return notice(`Not sent to ${where}: “${text}”`, 'error');
    setState(element, 'failed', message);
  }

  function presence({ userId, name, status }) {
    if (userId === chat.userId) return;
    const words = make('span', '', `${name ?? userId} ${status === 'online' ? 'joined' : 'left'}`);
    const place = firstPending();
    const last = place ? place.previousElementSibling : log.lastElementChild;
    if (last?.dataset.kind !== 'presence' || last.childElementCount >= PRESENCE_MAX) return notice(words, 'presence');
    keepingBottom(false, () => last.append(words));
  }

  function typing({ userIds }) {
    const [first, second] = userIds;
    const words = ['', `${first} is typing…`, `${first} and ${second} are typing…`];
    $('typing').textContent = words[userIds.length] ?? 'Several people are typing…';
  }

  function members({ count, users }) {
    $('members-count').textContent = $('members-total').textContent = count;
    $('members-note').textContent = users ? '' : `${count} people are here: too many to list.`;
    // A crowd that arrives together is drawn once.
    clearTimeout(membersTimer);
    membersTimer = setTimeout(() => $('members').replaceChildren(...(users ?? []).sort(byName).map(memberRow)), 30);
  }

  function memberRow({ userId, name }) {
    const label = `${name ?? userId}${userId === chat.userId ? ' (you)' : ''}`;
    const row = make('li', '', avatar(userId, name), make('span', '', label));
    row.dataset.user = userId;
    row.title = userId;
    return row;
  }

  // ---- The log ----

  function addMessage({ id, seq, userId, name, text, ts = Date.now(), own, state }) {
    const author = make('span', 'author', name ?? userId);
    const body = make('div', 'body', make('div', 'head', author, make('time')), make('div', 'text', text), make('div', 'delivery'));
    const element = make('div', own ? 'message own' : 'message', avatar(userId, name), body);
    author.dir = body.children[1].dir = 'auto';
    Object.assign(element.dataset, { id: id ?? '', seq: seq ?? '', user: userId });
    setTime(element, ts);
    if (own && id) byId.set(id, element);
    setState(element, state);
    insert(element, state === 'pending' ? null : firstPending());
    trim();
    return element;
  }

  function notice(content, kind = 'note') {
    const element = make('div', 'notice', content);
    element.dataset.kind = kind;
    keepingBottom(false, () => insert(element, firstPending()));
    trim();
  }

  function insert(element, before) {
    const follower = element.nextElementSibling;
    log.insertBefore(element, before);
    [follower, element, element.nextElementSibling].forEach(group);
  }

  /** A message right after one of the same person needs no heading of its own. */
  function group(element) {
    const above = element?.previousElementSibling;
    const follows = above?.dataset.user === element?.dataset.user && element?.dataset.ts - above?.dataset.ts < GROUP_MS;
    element?.classList.toggle('follows', Boolean(follows && element.dataset.user));
  }

  function setState(element, state, problem) {
    element.dataset.state = state;
    const delivery = element.querySelector('.delivery');
    if (state === 'sent') return delivery.replaceChildren();
    if (state === 'pending') return delivery.replaceChildren('Sending…');
    delivery.replaceChildren(`Not sent: ${problem}`, action('Try again', () => {
      const text = element.querySelector('.text').textContent;
      if (say(text)) discard(element);
    }), action('Discard', () => discard(element)));
  }

  function setTime(element, ts) {
    const date = new Date(ts);
    const today = date.toDateString() === new Date().toDateString();
    const time = element.querySelector('time');
    element.dataset.ts = ts;
    time.dateTime = date.toISOString();
    time.textContent = (today ? CLOCK : DAY_CLOCK).format(date);
    element.querySelector('.body').title = time.title = FULL_DATE.format(date);
  }

  function discard(element) {
    byId.delete(element.dataset.id);
    const follower = element.nextElementSibling;
    element.remove();
    group(follower);
  }

  function trim() {
    while (log.childElementCount > ENTRIES_MAX) discard(log.firstElementChild);
    group(log.firstElementChild);
  }

  function clearLog() {
    byId.clear();
    log.replaceChildren();
    $('typing').textContent = '';
    $('to-newest').hidden = true;
  }

  function firstPending() {
    return log.querySelector('[data-state=pending]');
  }

  function atBottom() {
    return log.scrollHeight - log.scrollTop - log.clientHeight < BOTTOM_PX;
  }

  function toBottom() {
    log.scrollTop = log.scrollHeight;
    following = true;
    $('to-newest').hidden = true;
  }

  function scrolled() {
    following = atBottom();
    if (following) $('to-newest').hidden = true;
  }

  /** Who reads older messages is not torn away from them; our own message always comes into view. */
  function keepingBottom(always, change) {
    const follow = always || atBottom();
    change();
    if (follow) toBottom();
    else $('to-newest').hidden = false;
  }

  // ---- Writing ----

  function say(text) {
    const answer = chat.say(room, text);
    const { id } = answer;
    answer.catch((error) => { if (!id) setText($('composer-error'), `Not sent: ${error.message}.`); });
    if (!id) return false;
    keepingBottom(true, () => byId.get(id) ?? addMessage({ id, text, userId: chat.userId || 'you', own: true, state: 'pending' }));
    setText($('composer-error'), '');
    return true;
  }

  function submit(event) {
    event.preventDefault();
    const field = $('text');
    if (field.value.trim() !== '' && say(field.value)) field.value = '';
    field.focus();
  }

  function keyDown(event) {
    // During the composition of a character (Japanese, Chinese …) Enter belongs to the input method.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    submit(event);
  }

  // ---- Settings ----

  function openSettings(field) {
    const current = recall('sessionStorage', 'roomcast.user');
    $('room').value = room;
    $('name').value = current.startsWith('guest-') ? '' : current;
    $('token').value = recall('sessionStorage', 'roomcast.token');
    setText($('settings-error'), '');
    $('settings').showModal();
    field.select();
  }

  function saveSettings(event) {
    event.preventDefault();
    const [newRoom, name] = [nameFrom($('room').value), nameFrom($('name').value)];
    const problem = Roomcast.nameProblem(newRoom) || (name && Roomcast.nameProblem(name));
    setText($('settings-error'), problem);
    if (problem) return;
    if (TOKEN_NEEDED && !$('token').value.trim()) return setText($('settings-error'), 'This server asks for a token.');
    $('settings').close();
    if (TOKEN_NEEDED) return changeToken($('token').value.trim(), newRoom);
    store('localStorage', 'roomcast.name', name);
    const current = recall('sessionStorage', 'roomcast.user');
    if (name === current || (name === '' && current.startsWith('guest-'))) return enter(newRoom);
    store('sessionStorage', 'roomcast.user', name);
    start(name, newRoom);
  }

  function changeToken(token, newRoom) {
    if (token === recall('sessionStorage', 'roomcast.token') && chat.status === 'online') return enter(newRoom);
    // For this tab only, as the user is.
    store('sessionStorage', 'roomcast.token', token);
    isWelcome = false;
    start('', newRoom);
  }

  function nameFrom(text) {
    return text.trim().replace(/\s+/gu, '-').normalize('NFC');
  }

  function roomFromAddress() {
    let name = '';
    try {
      name = nameFrom(decodeURIComponent(location.hash.slice(1)));
    } catch { /* a stray % in the address: as if there were none */ }
    return Roomcast.nameProblem(name) ? 'lobby' : name;
  }

  // ---- Small helpers ----

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

  function avatar(userId, name) {
    const [initial] = (name || userId).replace(/^guest-(?=.)/u, ''); // a user may be called just that
    const element = make('span', 'avatar', initial.toUpperCase());
    let hash = 0;
    for (const character of userId) hash = (hash * 31 + character.codePointAt(0)) % 9973;
    element.dataset.hue = hash % 8;
    element.ariaHidden = 'true';
    return element;
  }

  function byName(a, b) {
    return (a.name ?? a.userId).localeCompare(b.name ?? b.userId);
  }

  /** Writes only what has changed: a live region is read aloud again by every write. */
  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function showTitle() {
    document.title = `${unread > 0 ? `(${unread}) ` : ''}${room} · Roomcast`;
  }

  // Storage is refused where cookies are: the page works without, and forgets.
  function store(where, key, value) {
    try { window[where].setItem(key, value); } catch { /* forgotten at the next visit */ }
  }

  function recall(where, key) {
    try { return window[where].getItem(key) ?? ''; } catch { return ''; }
  }

  function toggleMembers(open) {
    $('members-panel').toggleAttribute('data-open', open);
    $('members-button').ariaExpanded = String(open);
  }

  // ---- Start ----

  // A token says who somebody is, in place of a name.
  for (const element of document.querySelectorAll('#name, [for=name]')) element.hidden = TOKEN_NEEDED;
  for (const element of document.querySelectorAll('#token, [for=token], #change-token')) element.hidden = !TOKEN_NEEDED;

  $('composer').addEventListener('submit', submit);
  $('text').addEventListener('keydown', keyDown);
  $('text').addEventListener('input', () => chat.typing(room, $('text').value !== ''));
  $('settings-form').addEventListener('submit', saveSettings);
  $('settings-cancel').addEventListener('click', () => $('settings').close());
  $('room-button').addEventListener('click', () => openSettings($('room')));
  $('me-button').addEventListener('click', () => openSettings($('name')));
  $('members-button').addEventListener('click', () => toggleMembers(!$('members-panel').hasAttribute('data-open')));
  $('conversation').addEventListener('pointerdown', () => toggleMembers(false));
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') toggleMembers(false); });
  $('to-newest').addEventListener('click', toBottom);
  log.addEventListener('scroll', scrolled);
  // A keyboard that slides in, or the line about an outage, must not hide the newest message.
  new ResizeObserver(() => { if (following) toBottom(); }).observe(log);
  $('change-token').addEventListener('click', () => openSettings($('token')));
  $('retry').addEventListener('click', () => (chat.status === 'closed' ? chat.connect() : chat.reconnect()));
  window.addEventListener('hashchange', () => enter(roomFromAddress()));
  document.addEventListener('visibilitychange', () => {
    unread = 0;
    showTitle();
  });
  setInterval(showWait, 1000);

  const known = recall('sessionStorage', 'roomcast.user') || recall('localStorage', 'roomcast.name');
  start(Roomcast.nameProblem(known) ? '' : known, roomFromAddress());
  if (matchMedia('(pointer: fine)').matches) $('text').focus(); // elsewhere it would call up the keyboard
})();
