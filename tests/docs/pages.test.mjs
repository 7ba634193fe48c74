// What the pages say exists: links, flags, environment variables, metrics, and a way to run each block.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { eventually, startRedis, startServer } from '../browser/harness.mjs';
import { ROOT, anchors, commands, links, markdownPaths, pages, read, spans } from './markdown.mjs';
import { LOAD_TEST, PROGRAM } from './program.mjs';

/** Kinds of blocks: those that samples.test.mjs runs, and those that are no more than shown. */
const RUN = ['sh', 'sh serve', 'sh redis', 'sh back-end', 'redis acl', 'json', 'json client', 'json server', 'html page', 'js', 'js module', 'python', 'python program', 'rust', 'rust,no_run', 'toml'];
const SHOWN = ['mermaid', 'text'];
const NOT_RUN = ['sh', 'js', 'text', 'ini', 'nginx', 'promql'];

/** Programs whose command lines have flags of ours. */
const OURS = /^(?:roomcast|cargo run --release --|roomcast-load|chrt -f 10 scripts\/load-test|scripts\/load-test|scripts\/compare|ExecStart=\S*roomcast) (.*)$/;

/** Variables that the tests and the load test read. */
const TEST_VARIABLES = ['ROOMCAST_SIM_SEED', 'ROOMCAST_SIM_SEEDS', 'ROOMCAST_SIM_STEPS', 'ROOMCAST_BIN', 'ROOMCAST_FUZZ_SECONDS', 'ROOMCAST_FUZZ_SEED'];

const all = pages();

function flagsOf(text) {
  return [...text.matchAll(/(?<![\w-])--[a-z][a-z-]*/g)].map((match) => match[0]);
}

function help(program, ...words) {
  return execFileSync(program, [...words, '--help']).toString();
}

test('README and ARCHITECTURE have at most 150 lines', () => {
  for (const path of ['README.md', 'ARCHITECTURE.md']) {
    const count = read(path).lines.length - 1;
    assert.ok(count <= 150, `${path} has ${count} lines`);
  }
});

test('every block has a kind that says how it is run', (t) => {
  for (const { blocks } of all) {
    for (const { where, kind, notRun } of blocks) {
      if (notRun) t.diagnostic(`not run: ${where} (${notRun})`);
      const known = notRun ? NOT_RUN : [...RUN, ...SHOWN];
      assert.ok(known.includes(kind), `${where}: ${kind ? `${kind} is no kind of block` : 'the block has no kind'}; ${known.join(', ')} are allowed`);
    }
  }
});

test('every relative link leads to a file and a heading that exist', () => {
  const dead = [];
  for (const path of markdownPaths()) {
    for (const link of links(read(path))) {
      if (/^[a-z]+:/.test(link)) continue;
      const [file, anchor] = link.split('#');
      const target = file ? normalize(join(dirname(path), file)) : path;
      if (!existsSync(join(ROOT, target))) dead.push(`${path}: ${link}`);
      else if (anchor && !anchors(read(target)).includes(anchor)) dead.push(`${path}: ${link} (no such heading)`);
    }
  }
  assert.deepEqual(dead, []);
});

test('the package has every file that its pages and its documentation lead to', () => {
  const listed = execFileSync('cargo', ['package', '--list', '--locked', '--allow-dirty'], { cwd: ROOT, stdio: ['ignore', 'pipe', 'ignore'] });
  const packaged = new Set(listed.toString().trim().split('\n'));
  const missing = [];
  for (const path of markdownPaths().filter((path) => packaged.has(path))) {
    for (const link of links(read(path)).filter((link) => !/^([a-z]+:|#)/.test(link))) {
      const target = normalize(join(dirname(path), link.split('#')[0]));
      if (!packaged.has(target)) missing.push(`${path}: ${link}`);
    }
  }
  const named = [...readFileSync(join(ROOT, 'src/lib.rs'), 'utf8').matchAll(/^\/\/!.*$/gm)].flatMap(([line]) => line.match(/[\w/-]+\.md\b/g) ?? []);
  assert.ok(named.length > 3, 'the front page of the documentation names pages');
  missing.push(...named.filter((page) => !packaged.has(page)).map((page) => `src/lib.rs: ${page}`));
  assert.ok(packaged.has('README.md'));
  assert.deepEqual(missing, []);
});

test('README leads to every page for users, ARCHITECTURE to every page of docs/internals', () => {
  const reachable = (path) => links(read(path)).map((link) => normalize(join(dirname(path), link.split('#')[0])));
  const [readme, architecture] = ['README.md', 'ARCHITECTURE.md'].map(reachable);
  for (const { path } of all.filter(({ path }) => path.startsWith('docs/'))) {
    const from = path.startsWith('docs/internals/') ? architecture : readme;
    assert.ok(from.includes(path), `nothing leads to ${path}`);
  }
});

test('every flag that a page names exists', () => {
  const server = flagsOf(help(PROGRAM) + help(PROGRAM, 'token'));
  const load = flagsOf(help(LOAD_TEST));
  const unknown = [];
  for (const page of all) {
    const known = ['docs/load-testing.md', 'docs/benchmarks.md'].includes(page.path) ? [...server, ...load] : server;
    const named = spans(page).filter((span) => span.startsWith('--')).flatMap(flagsOf);
    for (const block of page.blocks) {
      for (const command of commands(block)) {
        const ours = OURS.exec(command);
        if (ours) named.push(...flagsOf(ours[1].replace(/'other=[^']*'/g, ''))); // of another server
      }
    }
    unknown.push(...named.filter((flag) => !known.includes(flag)).map((flag) => `${page.path}: ${flag}`));
  }
  assert.deepEqual(unknown, []);
});

test('every environment variable that a page names exists', () => {
  const known = [...help(PROGRAM).matchAll(/\bROOMCAST_[A-Z_]+\b/g)].map((match) => match[0]).concat(TEST_VARIABLES);
  for (const { path, lines } of all) {
    for (const [name] of lines.join('\n').matchAll(/\bROOMCAST_[A-Z_]+\b/g)) assert.ok(known.includes(name), `${path}: ${name}`);
  }
});

test('docs/protocol.md has every error code, and whether it is temporary', () => {
  const source = execFileSync('git', ['grep', '-hE', '^    [A-Z][A-Za-z]+ "[a-z_]+" (true|false),$', '--', 'src/protocol*'], { cwd: ROOT }).toString();
  const declared = [...source.matchAll(/"([a-z_]+)" (true|false)/g)].map(([, code, temporary]) => `${code} ${temporary === 'true' ? 'yes' : 'no'}`);
  const rows = read('docs/protocol.md').prose.map((line) => /^\| `([a-z_]+)` \| (yes|no) \|/.exec(line)).filter(Boolean);
  assert.ok(declared.length > 10, 'the table of codes is in src/protocol');
  assert.deepEqual(rows.map(([, code, temporary]) => `${code} ${temporary}`).sort(), declared.sort());
});

/** The names of the metrics that a server with these flags exports. */
async function exportedMetrics(flags) {
  const server = await startServer({ flags: ['--metrics', ...flags] });
  try {
    const ready = () => fetch(`${server.url}readyz`).then(({ status }) => status);
    await eventually(ready, (status) => status === 200, 'the server is ready');
    const text = await (await fetch(`${server.url}metrics`)).text();
    return [...text.matchAll(/^(roomcast_\w+)/gm)].map((match) => match[1].replace(/_(bucket|sum|count)$/, ''));
  } finally {
    await server.stop();
  }
}

test('every metric that a page names exists, and docs/operating.md names every metric', async () => {
  const redis = startRedis();
  try {
    const exported = new Set([...await exportedMetrics([]), ...await exportedMetrics(['--redis', redis.url]), ...await exportedMetrics(['--auth-url', 'http://127.0.0.1:9/'])]);
    const named = ({ lines }) => [...lines.join('\n').matchAll(/\broomcast_[a-z_]+\b/g)].map((match) => match[0].replace(/_(bucket|sum|count)$/, ''));
    const gone = all.flatMap((page) => named(page).filter((metric) => !exported.has(metric)).map((metric) => `${page.path}: ${metric}`));
    assert.deepEqual(gone, [], 'metrics that are not exported');
    const documented = named(read('docs/operating.md'));
    assert.deepEqual([...exported].filter((metric) => !documented.includes(metric)), [], 'metrics that docs/operating.md does not know');
  } finally {
    await redis.stop();
  }
});
