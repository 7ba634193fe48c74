// Makes the classic script from the module. The server is built with it, so it is checked in: `node build.mjs` after each change.
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

export const CLASSIC = fileURLToPath(new URL('dist/roomcast.js', import.meta.url));

/** The text of the classic script. */
export async function buildClassic() {
  const { outputFiles: [{ text }] } = await build({
    entryPoints: [fileURLToPath(new URL('src/classic.js', import.meta.url))],
    bundle: true,
    write: false,
    format: 'iife',
    target: 'es2022',
    minify: true,
    charset: 'utf8',
    banner: { js: '/* Roomcast’s client, built from client/js/src: change that, and run client/js/build.mjs. MIT OR Apache-2.0 */' },
  });
  return text;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(CLASSIC, await buildClassic());
