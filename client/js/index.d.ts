// The types of Roomcast's JavaScript client. docs/javascript-client.md has the whole story.

/** The state of the connection. */
export type Status = 'closed' | 'connecting' | 'online' | 'offline';

/** Why the client is offline (it tries again) or closed (it does not). */
export type Cause =
  // offline
  | 'network' | 'unreachable' | 'lost' | 'unavailable' | 'too_many' | 'not_found' | 'no_upgrade' | 'token_unavailable' | 'token_expired'
  // closed, or offline where a token function may give a better one
  | 'token_needed' | 'token_refused'
  // closed; offline too if the answer came from a program in between
  | 'banned' | 'origin' | 'forbidden' | 'bad_request'
  // closed
  | 'replaced' | 'flooded' | 'stalled' | 'server' | 'blocked';

export interface StatusDetail {
  status: Status;
  /** The close code, the HTTP status of the refused handshake, or 0. */
  code?: number;
  reason?: string;
  /** Absent while connecting and online, and after `close()`. */
  cause?: Cause;
  /** When the client tries again, in Unix milliseconds; only if `offline`. */
  retryAt?: number;
}

export interface Limits {
  messageBytes?: number;
  dataBytes?: number;
  roomsPerConnection?: number;
  messageRate?: number;
  messageBurst?: number;
  historyMessages?: number;
  historyAgeMs?: number;
  dedupeWindowMs?: number;
}

export interface Welcome {
  type: 'welcome';
  userId: string;
  name?: string;
  pingInterval: number;
  expiresAt?: number;
  limits: Limits;
}

export interface User {
  userId: string;
  name?: string;
}

/** JSON of the application beside the text. */
export type Data = unknown;

export interface Message {
  room: string;
  userId: string;
  name?: string;
  text: string;
  data?: Data;
  id?: string;
  ts: number;
  seq: number;
  /** Whether it is of the user of this client. */
  own: boolean;
}

export interface UnsentMessage {
  room: string;
  id: string;
  text: string;
  data?: Data;
}

export interface JoinedDetail {
  room: string;
  /** The history, or what was missed, oldest first. */
  messages: Message[];
  /** What was shown before no longer counts. */
  replace: boolean;
  /** Whether the room had been joined on an earlier connection. */
  resumed: boolean;
  recovered?: boolean;
  epoch: string;
  seq: number;
}

export interface ServerError {
  code: string;
  message: string;
  temporary: boolean;
  room?: string;
  id?: string;
  retryAfterMs?: number;
}

export interface RoomEvents {
  joined: JoinedDetail;
  left: { room: string; code: string; message: string };
  chat: Message;
  sent: { room: string; id: string; seq: number };
  failed: UnsentMessage & { code: string; message: string; retryAfterMs?: number };
  /** The texts of these messages are gone; some of them may not have been shown. */
  deleted: { room: string; seqs: number[] };
  members: { room: string; count: number; users: User[] | null };
  presence: { room: string; userId: string; name?: string; status: 'online' | 'offline' };
  typing: { room: string; userIds: string[] };
}

export interface Events extends RoomEvents {
  status: StatusDetail;
  welcome: Welcome;
  refreshed: { expiresAt?: number };
  error: ServerError;
}

/** What `say` gives: it resolves once the message is accepted. */
export interface Sending extends Promise<{ id: string; seq: number }> {
  /** The id of the message; absent if it could not be said at all. */
  readonly id?: string;
}

export interface HistoryOptions {
  /** Only messages before this `seq`; without it the newest. */
  before?: number;
  /** How many messages; 50. */
  limit?: number;
}

export interface HistoryPage {
  /** Oldest first. */
  messages: Message[];
  /** Whether there are older ones. */
  more: boolean;
  /** Where the next page begins: give it as `before`. Absent if there was nothing. */
  before?: number;
}

export interface JoinOptions {
  /** How many of the newest messages to get; 0. */
  history?: number;
}

/** An error with the code of the protocol, or one of the client's own. */
export class RoomcastError extends Error {
  readonly code: string;
  /** Whether the same call may succeed later. */
  readonly temporary?: boolean;
  readonly retryAfterMs?: number;
  /** The id of the message that was given up. */
  readonly id?: string;
  /** The close code or HTTP status that ended the connection. */
  readonly status?: number;
  private constructor();
}

/** A room, with the events of this room alone. */
export class Room extends EventTarget {
  private constructor();
  readonly name: string;
  /** Whether the room is joined on the connection that is there now. */
  readonly isJoined: boolean;
  readonly count: number;
  /** The users, or null in a room too big to list. */
  readonly users: readonly User[] | null;
  join(options?: JoinOptions): Promise<Room>;
  leave(): void;
  say(text: string, data?: Data): Sending;
  typing(isActive?: boolean): void;
  history(options?: HistoryOptions): Promise<HistoryPage>;
  unsent(): UnsentMessage[];
  on<Type extends keyof RoomEvents>(type: Type, listener: (detail: RoomEvents[Type]) => void): () => void;
}

export interface Options {
  /** The user id to ask for. */
  userId?: string;
  /** The display name to ask for, which may have spaces. Where a token says who the user is, its name counts. */
  name?: string;
  /** A token, or a function that gives one: before every connection, and before the last one expires. */
  token?: string | (() => string | Promise<string>);
  /** How many messages may wait to be acknowledged; 1000. */
  queueMax?: number;
  /** The WebSocket class, where the platform has none. */
  WebSocket?: new (url: string, protocols: string[]) => unknown;
  /** Asks why a handshake failed; `null` asks nobody. */
  fetch?: typeof fetch | null;
  /** Gives numbers from 0 up to 1; for tests. */
  random?: () => number;
}

export class Roomcast extends EventTarget {
  constructor(url?: string | URL, options?: Options);
  /** What is wrong with a room name or user id, as a sentence; '' if nothing is. */
  static nameProblem(name: string): string;
  readonly status: Status;
  readonly userId: string;
  readonly limits: Limits;
  connect(): Promise<Welcome>;
  reconnect(): void;
  close(): void;
  room(name: string): Room;
  join(room: string, options?: JoinOptions): Promise<Room>;
  leave(room: string): void;
  say(room: string, text: string, data?: Data): Sending;
  typing(room: string, isActive?: boolean): void;
  history(room: string, options?: HistoryOptions): Promise<HistoryPage>;
  unsent(room: string): UnsentMessage[];
  on<Type extends keyof Events>(type: Type, listener: (detail: Events[Type]) => void): () => void;
}
