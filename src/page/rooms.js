// The rooms that this person is in, and the one in view.

const HISTORY = 50;
const BOTTOM_PX = 60; // nearer than this counts as being at the bottom
const NEWS_MARGIN_PX = 48; // of what was read before stays in view above the news
const TOP_PX = 300; // nearer than this to the top, older messages are asked for
const ROOMS_MAX = 64;

const rooms = new Map(); // name -> RoomView, in the order of the list
let current = null; // the RoomView in view
let following = true; // the newest message was in view when one scrolled last, and is to stay so when the window changes
let membersTimer = 0;

class RoomView {
  entries;
  epoch = null;
  seq = 0; // of the newest message
  seen = null; // the epoch and seq up to which this person has looked
  unread = 0;
  hasMoreUnread = false; // older than those that were counted
  mentions = 0;
  problem = ''; // why this person is not in the room
  hasOlder = false;
  before; // where the next page of older messages begins
  isLoading = false;
  olderProblem = ''; // why older messages did not come; they are asked for again by the button only
  scrollTop = null; // where somebody was reading; null at the bottom

  constructor(name) {
    this.name = name;
    this.entries = new Entries(myNames, (text) => say(text, this));
  }

  join() {
    this.problem = '';
    chat.join(this.name, { history: HISTORY }).catch(({ code, message }) => {
      // What the room or the connection tells by itself is not told twice.
      if (code !== 'left' && code !== 'removed' && chat.status === 'online') this.#out(`You cannot join this room: ${message}.`);
    });
    if (current) showComposer();
  }

  joined({ messages, replace, resumed, epoch, seq }) {
    this.problem = '';
    this.seen ??= allSeen().get(this.name) ?? { epoch, seq }; // nothing is new on a first visit
    let hasNews = false;
    this.#change('quietly', () => {
      if (replace) this.#replace(messages, resumed, epoch, seq);
      Object.assign(this, { epoch, seq });
      for (const message of messages) {
        const isKnown = replace && this.entries.forgetBefore(message);
        const isMention = this.entries.add(message);
        if (isKnown || !this.#isNew(message)) continue;
        hasNews = true;
        this.#count(isMention);
      }
      if (hasNews) this.#markNew();
    });
    if (hasNews && this === current && following) toNews();
    if (isLooking(this)) this.look();
    showComposer();
  }

  #replace(messages, resumed, epoch, seq) {
    if (this.epoch !== null && this.epoch !== epoch && this.entries.hasMessages) {
      this.entries.markBefore();
      this.entries.notice('gap', 'The server was restarted and does not have the messages above any more. The conversation goes on from here.');
    } else {
      this.entries.clear();
      this.unread = this.mentions = 0; // those that are new are counted again
      if (resumed) this.entries.notice('gap', 'You were away too long: some messages may be missing here.');
    }
    this.before = messages[0]?.seq;
    this.hasOlder = seq > 0 && this.before !== 1;
    this.hasMoreUnread = this.hasOlder && messages.length > 0 && this.seen.epoch === epoch && this.before > this.seen.seq + 1;
  }

  received(message) {
    this.#change(message.own ? 'to the bottom' : '', () => {
      const isMention = this.entries.add(message);
      this.seq = message.seq;
      if (!this.#isNew(message)) return;
      this.#count(isMention);
      if (this.unread === 1) this.#markNew();
    });
    if (isLooking(this)) this.look();
    if (this.entries.trim(this !== current || atBottom())) {
      this.hasOlder = true;
      this.before = this.entries.oldestSeq;
    }
  }

  /** All that is there has been in view. */
  look() {
    this.unread = this.mentions = 0;
    this.hasMoreUnread = false;
    if (this.epoch === null) return;
    this.seen = { epoch: this.epoch, seq: this.seq };
    storeSeen(this.name, this.seen);
  }

  #isNew({ own, seq }) {
    return !own && (seq > this.seen.seq || this.seen.epoch !== this.epoch);
  }

  /** Where numbers have begun anew, all of them are new. */
  #markNew() {
    this.entries.markNew(this.seen.epoch === this.epoch ? this.seen.seq : 0);
  }

  /** Not joined again by itself: there was a reason. */
  left({ message }) {
    this.#out(`You are not in this room any more: ${message}.`);
  }

  #out(problem) {
    this.problem = problem;
    const again = action('Join again', () => this.join());
    this.notice('removed', make('span', '', problem, ' ', again));
    if (this === current) showMembers(0, []);
    showComposer();
  }

  notice(kind, ...content) {
    this.#change('', () => this.entries.notice(kind, ...content));
  }

  presence(detail) {
    if (detail.userId !== chat.userId) this.#change('', () => this.entries.presence(detail));
  }

  deleted({ seqs }) {
    this.#change('', () => this.entries.delete(seqs));
  }

  #count(isMention) {
    if (isLooking(this)) return;
    this.unread++;
    if (isMention) this.mentions++;
    showRooms();
  }

  async loadOlder() {
    if (!this.hasOlder || this.isLoading || chat.status !== 'online') return;
    this.isLoading = true;
    this.olderProblem = '';
    if (this === current) showEdges();
    const { epoch } = this;
    try {
      const { messages, more, before } = await chat.history(this.name, { before: this.before, limit: HISTORY });
      if (epoch === this.epoch) this.#takeOlder(messages, more, before);
    } catch ({ message }) {
      this.olderProblem = message;
    } finally {
      this.isLoading = false;
    }
    if (this === current) showEdges();
  }

  #takeOlder(messages, more, before) {
    const fromBottom = log.scrollHeight - log.scrollTop;
    quietly(() => this.entries.addOlder(messages));
    this.before = before ?? this.before;
    this.hasOlder = more;
    if (this !== current) return;
    showEdges();
    log.scrollTop = log.scrollHeight - fromBottom; // what was being read stays where it was
  }

  /** Somebody who reads older messages is not torn away from them; our own message always comes into view. */
  #change(manner, change) {
    if (this !== current) return change();
    const follow = manner === 'to the bottom' || atBottom();
    const height = log.scrollHeight;
    if (manner === 'quietly') quietly(change);
    else change();
    showEdges();
    if (follow) toBottom();
    else if (log.scrollHeight > height) $('to-newest').hidden = false;
  }

  addPending(message) {
    this.entries.unmarkNew();
    this.#change('to the bottom', () => this.entries.add({ ...message, userId: chat.userId || 'you', name: myName || undefined, own: true, state: 'pending' }));
  }
}

// ---- Entering and leaving ----

function openRoom(name) {
  if (!rooms.has(name)) {
    const view = new RoomView(name);
    rooms.set(name, view);
    if (hasEntered) view.join();
    storeRooms();
  }
  showRoom(rooms.get(name));
}

function leaveRoom() {
  const { name } = current;
  chat.leave(name);
  rooms.delete(name);
  store('sessionStorage', `roomcast.draft.${name}`, '');
  forgetSeen(name);
  storeRooms();
  showRoom([...rooms.values()][0]);
}

function storeRooms() {
  store('localStorage', 'roomcast.rooms', JSON.stringify([...rooms.keys()]));
}

function storedRooms() {
  const names = recallJson('roomcast.rooms');
  return Array.isArray(names) ? names.filter((name) => !Roomcast.nameProblem(name)).slice(0, ROOMS_MAX) : [];
}

function roomFromAddress() {
  let name = '';
  try {
    name = nameFrom(decodeURIComponent(location.hash.slice(1)));
  } catch { /* a stray % in the address: as if there were none */ }
  return Roomcast.nameProblem(name) ? '' : name;
}

// ---- Showing ----

function showRoom(view) {
  if (view === current) return;
  if (current) {
    current.scrollTop = atBottom() ? null : log.scrollTop;
    current.entries.unmarkNew();
    current.entries.element.remove();
  }
  current = view;
  const hash = `#${encodeURIComponent(view.name)}`;
  if (location.hash !== hash) history.replaceState(null, '', hash);
  setText($('room-name'), view.name);
  quietly(() => log.append(view.entries.element));
  $('text').value = recall('sessionStorage', `roomcast.draft.${view.name}`);
  setText($('typing'), '');
  setText($('composer-error'), '');
  showEdges();
  if (view.scrollTop === null) toBottom();
  else log.scrollTop = view.scrollTop;
  scrolledTo();
  const { count, users } = chat.room(view.name);
  showMembers(view.problem ? 0 : count, view.problem ? [] : users);
  showComposer();
  seen();
}

/** What is above the messages, and in their place if there are none. */
function showEdges() {
  const isEmpty = !current.entries.hasMessages && !current.hasOlder && current.epoch !== null && !current.problem && !ending;
  const { olderProblem, isLoading } = current;
  $('older').hidden = !current.hasOlder;
  setText($('older'), olderProblem ? `No older messages came: ${olderProblem}. Try again` : isLoading ? 'Loading older messages…' : 'Show older messages');
  $('empty').hidden = !isEmpty;
  if (isEmpty) setText($('invitation'), location.href);
}

function showRooms() {
  let [unread, elsewhere] = [0, 0];
  const rows = [...rooms.values()].map((view) => {
    unread += view.unread;
    if (view !== current) elsewhere += view.unread;
    return make('li', '', roomButton(view));
  });
  const focused = document.activeElement?.dataset.room;
  $('rooms').replaceChildren(...rows);
  if (focused) [...$('rooms').querySelectorAll('button')].find((button) => button.dataset.room === focused)?.focus();
  $('elsewhere').hidden = elsewhere === 0;
  setText($('elsewhere'), String(elsewhere));
  $('leave').hidden = rooms.size < 2;
  document.title = `${unread > 0 ? `(${unread}) ` : ''}${current.name} · Roomcast`;
}

function roomButton(view) {
  const label = make('span', 'label', view.name);
  label.dir = 'auto';
  const button = action('', () => {
    showRoom(view);
    toggle($('rooms-panel'), $('rooms-button'), false);
  });
  const hash = make('span', 'hash', '#');
  hash.ariaHidden = 'true';
  button.append(hash, label);
  button.dataset.room = view.name;
  if (view === current) button.setAttribute('aria-current', 'page');
  if (view.unread === 0) return button;
  button.dataset.unread = view.unread;
  const count = `${view.mentions > 0 ? '@ ' : ''}${view.unread}${view.hasMoreUnread ? '+' : ''}`;
  button.append(make('span', 'badge', count, make('span', 'sr', ' unread')));
  return button;
}

function isLooking(view) {
  return view === current && !document.hidden;
}

/** Somebody has come to the room in view, or back to the tab. */
function seen() {
  if (!document.hidden) {
    if (following && current.unread > 0) toNews();
    current.look();
  }
  showRooms();
}

function showMembers(count, users) {
  setText($('members-count'), String(count));
  setText($('members-total'), String(count));
  setText($('members-note'), users ? '' : `${count} people are here: too many to list.`);
  // A crowd that arrives together is drawn once.
  clearTimeout(membersTimer);
  membersTimer = setTimeout(() => $('members').replaceChildren(...[...users ?? []].sort(byName).map(memberRow)), 30);
}

function memberRow({ userId, name }) {
  const row = make('li', '', avatar(userId, name), make('span', '', `${name ?? userId}${userId === chat.userId ? ' (you)' : ''}`));
  row.dataset.user = userId;
  row.title = userId;
  return row;
}

function showTyping({ room, userIds }) {
  if (room !== current.name) return;
  const { users } = chat.room(room);
  const names = userIds.map((userId) => users?.find((user) => user.userId === userId)?.name ?? userId);
  const words = names.length > 2 ? 'Several people are' : `${listed(names)} ${names.length > 1 ? 'are' : 'is'}`;
  setText($('typing'), names.length > 0 ? `${words} typing…` : '');
}

// ---- Scrolling ----

function toBottom() {
  log.scrollTop = log.scrollHeight;
  following = true;
  $('to-newest').hidden = true;
}

/** The newest message comes into view, or the first new one if there are more than fit. */
function toNews() {
  toBottom();
  const first = current.entries.firstNew;
  const above = first ? log.getBoundingClientRect().top - first.getBoundingClientRect().top : 0;
  if (above <= 0) return;
  log.scrollTop -= above + NEWS_MARGIN_PX;
  scrolledTo();
}

function atBottom() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < BOTTOM_PX;
}

function scrolledTo() {
  following = atBottom();
  $('to-newest').hidden = following;
}

function scrolled() {
  scrolledTo();
  if (log.scrollTop < TOP_PX && !following && !current.olderProblem) current.loadOlder();
}

/** What is not news is not read aloud. */
function quietly(change) {
  log.setAttribute('aria-live', 'off');
  change();
  setTimeout(() => log.setAttribute('aria-live', 'polite'), 100);
}
