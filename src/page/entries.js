// The messages and notices of one room.

const ENTRIES_MAX = 500; // kept while the newest are in view; older ones can be asked for again
const ENTRIES_READ_MAX = 3_000; // kept while somebody reads older ones
const GROUP_MS = 5 * 60_000; // messages of one person within this time share one heading
const NAMES_MAX = 3; // on one line; more people are counted
const GATHERED_MAX = 1_000; // people in one notice
const SLOW_MS = 3_000; // after this a person wants to know why a message is still being sent

class Entries {
  element = make('div', 'entries');
  #bySeq = new Map(); // seq -> element, of the epoch that holds
  #own = new Map(); // message id -> element, for our own messages
  #newAfter = null; // the seq behind which a line says that all is new; null without such a line
  #mine; // gives the names that this person goes by, in lower case
  #sayAgain; // says the text of a failed message anew

  constructor(mine, sayAgain) {
    this.#mine = mine;
    this.#sayAgain = sayAgain;
  }

  get hasMessages() {
    return this.element.querySelector('.message') !== null;
  }

  /** The message under the line that says what is new. */
  get firstNew() {
    return this.element.querySelector('.message:has(> .new)');
  }

  get oldestSeq() {
    return Math.min(...this.#bySeq.keys());
  }

  /** Takes a message in its place; true if it mentions this person. */
  add(message) {
    const { id, seq, own, state = 'sent' } = message;
    const known = own && this.#own.get(id);
    if (known) return this.#confirm(known, message);
    if (seq !== undefined && this.#bySeq.has(seq)) return false;
    const element = this.#make(message);
    this.#setState(element, state);
    this.#insert(element, state === 'pending' ? null : this.#firstPending());
    return element.classList.contains('mention');
  }

  /** A page of older messages, which come before all that is there. */
  addOlder(messages) {
    const fresh = messages.filter(({ seq }) => !this.#bySeq.has(seq));
    const oldest = this.#bySeq.get(this.oldestSeq) ?? this.#firstPending();
    for (const message of fresh) {
      const element = this.#make(message);
      this.#setState(element, 'sent');
      this.#insert(element, oldest);
    }
    if (this.#newAfter !== null) this.markNew(this.#newAfter);
  }

  /** Draws the line above the first message of somebody else behind this seq. */
  markNew(seq) {
    this.unmarkNew();
    this.#newAfter = seq;
    const first = [...this.element.children].find((element) => {
      const { classList, dataset } = element;
      return dataset.seq && !classList.contains('own') && Number(dataset.seq) > seq;
    });
    if (!first) return;
    const line = make('div', 'new', 'New messages');
    const day = first.querySelector('.day');
    if (day) day.after(line);
    else first.prepend(line);
    this.#group(first);
  }

  unmarkNew() {
    const { firstNew } = this;
    this.#newAfter = null;
    firstNew?.querySelector('.new').remove();
    this.#group(firstNew);
  }

  sent({ id, seq }) {
    const element = this.#own.get(id);
    if (element) this.#place(element, seq);
  }

  /** Whether the message is shown, and marked as failed. */
  failed({ id, message }) {
    const element = this.#own.get(id);
    if (element) this.#setState(element, 'failed', message);
    return Boolean(element);
  }

  delete(seqs) {
    for (const element of seqs.map((seq) => this.#bySeq.get(seq)).filter(Boolean)) {
      element.classList.add('deleted');
      element.classList.remove('mention');
      element.said = 'This message was deleted.';
      element.querySelector('.text').replaceChildren(element.said);
      element.querySelector('.author').textContent = element.dataset.user; // the name is gone, too
    }
  }

  notice(kind, ...content) {
    const element = make('div', 'notice', ...content);
    element.dataset.kind = kind;
    this.#insert(element, this.#firstPending());
    return element;
  }

  /** People who come and go one after the other share one line. */
  presence({ userId, name, status }) {
    const place = this.#firstPending();
    let element = place ? place.previousElementSibling : this.element.lastElementChild;
    if (!element?.people || element.people.size >= GATHERED_MAX) {
      element = this.notice('presence');
      element.people = new Map();
    }
    element.people.set(userId, { name: name ?? userId, status });
    const line = (wanted, verb) => {
      const names = [...element.people.values()].filter((one) => one.status === wanted).map((one) => one.name);
      return names.length > 0 ? make('span', '', `${names.length > NAMES_MAX ? `${names.length} people` : listed(names)} ${verb}`) : '';
    };
    element.replaceChildren(line('online', 'joined'), line('offline', 'left'));
  }

  /** What the server has sent counts no more. What is not sent yet stays. */
  clear() {
    for (const element of [...this.element.children]) {
      if (!['pending', 'failed'].includes(element.dataset.state)) this.#remove(element);
    }
  }

  /** The numbers begin anew, and the server has forgotten these messages: people can still read them. */
  markBefore() {
    for (const element of this.#bySeq.values()) {
      element.classList.add('before');
      element.dataset.seq = '';
      this.#own.delete(element.dataset.id);
    }
    this.#bySeq.clear();
  }

  /** A message that the server still knows under a new number is not shown twice. Whether there was one. */
  forgetBefore({ id, userId }) {
    if (id === undefined) return false;
    const known = [...this.element.querySelectorAll('.before')].find(({ dataset }) => dataset.id === id && dataset.user === userId);
    if (known) this.#remove(known);
    return Boolean(known);
  }

  /** Whether older ones were dropped. */
  trim(atBottom) {
    const most = atBottom ? ENTRIES_MAX : ENTRIES_READ_MAX;
    const surplus = this.element.childElementCount - most;
    for (let count = 0; count < surplus; count++) this.#remove(this.element.firstElementChild);
    return surplus > 0;
  }

  /** A hint for messages that wait for the server although there is a connection. */
  tellSlow(isOnline) {
    for (const element of this.element.querySelectorAll('[data-state=pending]')) {
      const isSlow = isOnline && Date.now() - element.dataset.ts > SLOW_MS;
      setText(element.querySelector('.delivery'), isSlow ? 'The server has not confirmed this yet. It is sent again until it does.' : 'Sending…');
    }
  }

  #make({ id, seq, userId, name, text, ts = Date.now(), own }) {
    const author = make('span', 'author', name ?? userId);
    const nodes = nodesOf(text, this.#mine());
    const body = make('div', 'body', make('div', 'head', author, make('time')), make('div', 'text', ...nodes), make('div', 'delivery'));
    const element = make('div', own ? 'message own' : 'message', avatar(userId, name), body);
    if (!own && nodes.some(({ tagName }) => tagName === 'MARK')) element.classList.add('mention');
    author.dataset.hue = hueOf(userId);
    author.dir = body.children[1].dir = 'auto';
    Object.assign(element.dataset, { id: id ?? '', seq: seq ?? '', user: userId });
    element.said = text;
    this.#setTime(element, ts);
    if (own && id) this.#own.set(id, element);
    if (seq !== undefined) this.#bySeq.set(seq, element);
    return element;
  }

  #confirm(element, { ts, seq }) {
    this.#setTime(element, ts);
    this.#place(element, seq);
    return false;
  }

  /** Our own message takes its place among those of the others, before those that still wait. */
  #place(element, seq) {
    this.#setState(element, 'sent');
    element.dataset.seq = seq;
    this.#bySeq.set(seq, element);
    const place = this.#firstPending();
    if (place && element.compareDocumentPosition(place) & Node.DOCUMENT_POSITION_PRECEDING) this.#insert(element, place);
    else this.#group(element);
  }

  #insert(element, before) {
    const follower = element.nextElementSibling;
    this.element.insertBefore(element, before);
    for (const one of [follower, element, element.nextElementSibling]) this.#group(one);
  }

  /** A message right after one of the same person needs no heading; the first of a day is headed by the day. */
  #group(element) {
    if (!element?.said) return;
    let above = element.previousElementSibling;
    const neighbour = above;
    while (above && !above.said) above = above.previousElementSibling;
    const day = DAY.format(Number(element.dataset.ts));
    const isNewDay = !above || DAY.format(Number(above.dataset.ts)) !== day;
    element.querySelector('.day')?.remove();
    if (isNewDay) element.prepend(make('div', 'day', day === DAY.format(Date.now()) ? 'Today' : day));
    const isClose = neighbour?.dataset.user === element.dataset.user && element.dataset.ts - neighbour.dataset.ts < GROUP_MS;
    element.classList.toggle('follows', isClose && !isNewDay && !element.querySelector('.new'));
  }

  #setState(element, state, problem) {
    element.dataset.state = state;
    const delivery = element.querySelector('.delivery');
    if (state === 'sent') return delivery.replaceChildren();
    if (state === 'pending') return delivery.replaceChildren('Sending…');
    delivery.replaceChildren(`Not sent: ${problem}. `, action('Try again', () => {
      if (this.#sayAgain(element.said)) this.#remove(element);
    }), action('Discard', () => this.#remove(element)));
  }

  #setTime(element, ts) {
    const time = element.querySelector('time');
    element.dataset.ts = ts;
    time.dateTime = new Date(ts).toISOString();
    time.textContent = CLOCK.format(ts);
    element.querySelector('.body').title = FULL_DATE.format(ts);
  }

  #remove(element) {
    const { id, seq } = element.dataset;
    if (this.#own.get(id) === element) this.#own.delete(id);
    if (this.#bySeq.get(Number(seq)) === element) this.#bySeq.delete(Number(seq));
    const follower = element.nextElementSibling;
    element.remove();
    this.#group(follower);
  }

  #firstPending() {
    return this.element.querySelector('[data-state=pending]');
  }
}
