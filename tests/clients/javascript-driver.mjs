// The driver of the JavaScript client; README.md has the commands and events.
import { createInterface } from 'node:readline';
import { Roomcast } from '../../client/js/src/index.js';

let chat;
const asked = []; // what gives the token, for each time that the client has asked

function report(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

function bare({ seq, userId, name, text }) {
  return { seq, userId, name, text };
}

/** Tells what becomes of a call. */
function answer(ref, promise, describe) {
  promise.then((value) => report({ ref, ...describe(value) }), ({ code }) => report({ event: 'failed', ref, code }));
}

/** Asks the script for a token. */
function ask() {
  return new Promise((give) => {
    asked.push(give);
    report({ event: 'token', ref: asked.length });
  });
}

const COMMANDS = {
  connect({ url, asks, ...options }) {
    chat = new Roomcast(url, asks ? { ...options, token: ask } : options);
    chat.on('status', ({ status, cause }) => report({ event: 'status', status, cause }));
    chat.on('refreshed', () => report({ event: 'refreshed' }));
    chat.on('joined', ({ room, replace, messages }) => report({ event: 'joined', room, replace, messages: messages.map(bare) }));
    chat.on('chat', (message) => report({ event: 'chat', room: message.room, message: bare(message) }));
    chat.on('deleted', ({ room, seqs }) => report({ event: 'deleted', room, seqs }));
    chat.on('members', ({ room, users }) => report({ event: 'members', room, users }));
    chat.on('left', ({ room, code }) => report({ event: 'left', room, code }));
    chat.connect();
  },
  join({ room, history }) { chat.join(room, { history }); },
  leave({ room }) { chat.leave(room); },
  say({ room, text, ref }) { answer(ref, chat.say(room, text), ({ seq }) => ({ event: 'sent', seq })); },
  history({ room, before, limit, ref }) {
    answer(ref, chat.history(room, { before, limit }), ({ messages, more }) => ({ event: 'history', messages: messages.map(bare), more }));
  },
  token({ ref, token }) { asked[ref - 1](token); },
  close() { chat.close(); },
};

createInterface({ input: process.stdin }).on('line', (line) => {
  const { do: command, ...rest } = JSON.parse(line);
  COMMANDS[command](rest);
}).on('close', () => process.exit());
report({ event: 'ready' });
