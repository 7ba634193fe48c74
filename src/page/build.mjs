// Makes what the server inlines into its page. The server is built with it, so it is checked in: `node build.mjs` after each change,
// once `npm ci` has been run in client/js.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const { transform } = createRequire(new URL('../../client/js/package.json', import.meta.url))('esbuild');
const SCRIPTS = ['parts.js', 'entries.js', 'rooms.js', 'page.js'];
const BANNER = '/* Roomcast’s page, built from src/page: change that, and run src/page/build.mjs. MIT OR Apache-2.0 */';

/** The texts of the files in `dist`, by their names. */
export async function buildPage() {
  const read = (name) => readFileSync(new URL(name, import.meta.url), 'utf8');
  // One function around all, so that nothing of the page is global.
  const script = `(() => {\n'use strict';\n${SCRIPTS.map(read).join('\n')}})();`;
  const options = { minify: true, charset: 'utf8', banner: BANNER };
  const [js, css] = await Promise.all([
    transform(script, { ...options, loader: 'js', target: 'es2022' }),
    transform(read('page.css'), { ...options, loader: 'css', target: ['chrome120', 'firefox121', 'safari17'] }),
  ]);
  return { 'page.js': js.code, 'page.css': css.code };
}

/** Where a file of this name lies. */
export function built(name) {
  return new URL(`dist/${name}`, import.meta.url);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [name, text] of Object.entries(await buildPage())) writeFileSync(built(name), text);
}
