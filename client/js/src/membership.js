import { deferred } from './errors.js';

/** That the application wants to be in a room, and where the client stands in it. */
export class Membership {
  epoch = null; // null until the first `joined`
  seq = 0; // of the last message handed to the application
  joinId = null; // of the join that is not answered yet
  provisional = null; // messages and deletions of which only `joined` will tell whether they follow what we have
  refusals = 0;
  removal = null; // why the server is about to take us out
  typing = []; // the others who are typing
  typingSentAt = -Infinity;
  answer = deferred(); // of `join`

  constructor(room, history) {
    this.room = room;
    this.name = room.name;
    this.history = history;
  }

  /** Whether `joined` has come on this connection. */
  get isLive() {
    return this.room.isJoined;
  }

  joining(joinId) {
    this.joinId = joinId;
    this.provisional = [];
  }

  joined(epoch, seq) {
    Object.assign(this, { epoch, seq, joinId: null, provisional: null, refusals: 0 });
    this.room.isJoined = true;
  }

  /** What came so far belongs to an earlier stay in the room. */
  restart() {
    if (this.joinId !== null) this.provisional = [];
  }

  disconnected() {
    Object.assign(this, { joinId: null, provisional: null, typingSentAt: -Infinity });
    this.room.isJoined = false;
  }
}
