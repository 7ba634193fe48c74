// A back-end that knows people by a cookie, and decides about their connections. Node alone is needed:
//
//   node examples/auth-webhook/back-end.mjs
//   roomcast --auth-url http://localhost:9000/decide
//
// Open http://localhost:9000/login?user=alice: you get a cookie, and the page of the chat knows you.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

const { PORT = 9000, CHAT_URL = 'http://localhost:8080/' } = process.env;
const SESSION_MS = 3_600_000;
const QUESTION_BYTES_MAX = 256 * 1024; // a head of a request, as JSON

const sessions = new Map(); // what is in the cookie -> { user, expiresAt }

/** A login of your own would ask for a password first. */
function login(user, response) {
  const id = randomUUID();
  sessions.set(id, { user, expiresAt: Date.now() + SESSION_MS });
  response.writeHead(303, { 'Set-Cookie': `session=${id}; Path=/; HttpOnly; SameSite=Lax`, Location: CHAT_URL });
  response.end();
}

/** What the server asks: { user, address, origin, cookie, authorization, token }, of which any may be null. */
function decide({ user, cookie }) {
  const id = /(?:^|; )session=([^;]+)/.exec(cookie ?? '')?.[1];
  const session = sessions.get(id);
  if (!session || session.expiresAt <= Date.now()) return [401, { message: 'log in first' }];
  if (user && user !== session.user) return [403, { message: `you are ${session.user}` }];
  const rooms = [
    { match: 'news', allow: ['join', 'history'] }, // to read and not to write
    { match: 'lobby', allow: ['join', 'history', 'typing', 'say'] },
    { match: `${session.user}.*`, allow: ['join', 'history', 'typing', 'say'] },
  ];
  return [200, { user: session.user, expiresAt: session.expiresAt, rooms }];
}

async function readQuestion(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) {
    text += chunk;
    if (text.length > QUESTION_BYTES_MAX) throw new Error('the question is too long');
  }
  return JSON.parse(text);
}

function answer(response, status, body) {
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  try {
    if (request.method === 'GET' && url.pathname === '/login') return login(url.searchParams.get('user') ?? 'alice', response);
    if (request.method === 'POST' && url.pathname === '/decide') return answer(response, ...decide(await readQuestion(request)));
    answer(response, 404, { message: 'there are /login and /decide' });
  } catch (error) {
    answer(response, 400, { message: error.message });
  }
});

// Only this machine may ask, and so may Roomcast. Idle connections stay longer than Roomcast keeps them.
server.keepAliveTimeout = 20_000;
server.listen(PORT, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}/`));
