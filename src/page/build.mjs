// Makes what the server serves: the style and the scripts that it inlines into its page, and that page and the JavaScript client,
// compressed. The server is built with it, so it is checked in: `node build.mjs` after each change, once `npm ci` has been run in client/js.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const { transform } = createRequire(new URL('../../client/js/package.json', import.meta.url))('esbuild');
const SCRIPTS = ['parts.js', 'seen.js', 'entries.js', 'rooms.js', 'page.js'];
const BANNER = '/* Roomcast’s page, built from src/page: change that, and run src/page/build.mjs. MIT OR Apache-2.0 */';

/** What src/server/http/page.rs writes into `data-tokens`, by the name of the page that it is for. */
const TOKENS = { 'index.html': 'not-needed', 'index-tokens.html': 'needed' };

function read(name) {
  return readFileSync(new URL(name, import.meta.url), 'utf8');
}

/** The texts of the style and of the scripts, by the names of their files in `dist`. */
export async function buildPage() {
  // One function around all, so that nothing of the page is global.
  const script = `(() => {\n'use strict';\n${SCRIPTS.map(read).join('\n')}})();`;
  const options = { minify: true, charset: 'utf8', banner: BANNER };
  const [js, css] = await Promise.all([
    transform(script, { ...options, loader: 'js', target: 'es2022' }),
    transform(read('page.css'), { ...options, loader: 'css', target: ['chrome120', 'firefox121', 'safari17'] }),
  ]);
  return { 'page.js': js.code, 'page.css': css.code };
}

/** The texts that lie in `dist` compressed, by their names without `.gz` and `.br`. */
export function servedTexts(page) {
  const client = read('../../client/js/dist/roomcast.js');
  const parts = { '/*STYLE*/': page['page.css'], '/*CLIENT*/': client, '/*PAGE*/': page['page.js'] };
  const inlined = (tokens) => Object.entries(parts).reduce(
    (html, [place, text]) => html.replace(place, () => text),
    read('index.html').replace('/*TOKENS*/', tokens),
  );
  const pages = Object.entries(TOKENS).map(([name, tokens]) => [name, inlined(tokens)]);
  return { ...Object.fromEntries(pages), 'roomcast.js': client };
}

/** Where a file of this name lies. */
export function built(name) {
  return new URL(`dist/${name}`, import.meta.url);
}

function brotli(text) {
  const bytes = Buffer.from(text);
  return brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const page = await buildPage();
  for (const [name, text] of Object.entries(page)) writeFileSync(built(name), text);
  for (const [name, text] of Object.entries(servedTexts(page))) {
    writeFileSync(built(`${name}.gz`), gzipSync(text, { level: 9 }));
    writeFileSync(built(`${name}.br`), brotli(text));
  }
}
