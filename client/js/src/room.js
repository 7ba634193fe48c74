import { Emitter } from './emitter.js';

export const ROOM_EVENTS = ['joined', 'left', 'chat', 'sent', 'failed', 'deleted', 'members', 'presence', 'typing'];

/** A room of a client, with the events of this room alone. It stays the same object when the room is left and joined again. */
export class Room extends Emitter {
  name;
  /** Whether the room is joined on the connection that is there now. */
  isJoined = false;
  /** How many users are in the room. */
  count = 0;
  /** The users, or null in a room too big to list. */
  users = [];
  #chat;

  constructor(chat, name) {
    super(ROOM_EVENTS);
    this.#chat = chat;
    this.name = name;
  }

  join(options) {
    return this.#chat.join(this.name, options);
  }

  leave() {
    this.#chat.leave(this.name);
  }

  say(text, data) {
    return this.#chat.say(this.name, text, data);
  }

  typing(isActive) {
    this.#chat.typing(this.name, isActive);
  }

  unsent() {
    return this.#chat.unsent(this.name);
  }

  history(options) {
    return this.#chat.history(this.name, options);
  }
}
