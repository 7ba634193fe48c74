// What stands in the project's Markdown: fenced blocks, headings, links and spans of code.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Paths of all Markdown files, from the top of the project. */
export function markdownPaths() {
  const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '*.md'], { cwd: ROOT });
  return listed.toString().split('\0').filter((path) => path && existsSync(join(ROOT, path))).sort();
}

/** The pages for users and engineers: their blocks are run, their flags and metrics are checked. */
export function pages() {
  const isPage = (path) => path.startsWith('docs/') || ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'SECURITY.md'].includes(path);
  return markdownPaths().filter(isPage).map(read);
}

/** One file, taken apart. A block is {where, kind, notRun, text}; `notRun` is the reason why nobody can run it. */
export function read(path) {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const lines = text.split('\n');
  const page = { path, lines, blocks: [], headings: [], prose: [] };
  let open = null;
  lines.forEach((line, index) => {
    const fence = /^ *```(.*)$/.exec(line);
    if (open && fence) {
      page.blocks.push(open);
      open = null;
    } else if (open) {
      open.text += `${line}\n`;
    } else if (fence) {
      open = { where: `${path}:${index + 1}`, ...info(fence[1]), text: '' };
    } else {
      page.prose.push(line);
      const heading = /^#+ +(.*)$/.exec(line);
      if (heading) page.headings.push(heading[1]);
    }
  });
  if (open) throw new Error(`${open.where}: the block has no end`);
  return page;
}

/** `sh serve`, `sh not-run="needs Docker"`: the kind, and why it is not run. */
function info(words) {
  const found = /^(.*?)(?: *not-run="([^"]+)")?$/.exec(words.trim());
  return { kind: found[1], notRun: found[2] };
}

/** The anchors that GitHub gives to headings. */
export function anchors({ headings }) {
  const seen = new Map();
  return headings.map((heading) => {
    const plain = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replace(/[`*]/g, '');
    const anchor = plain.toLowerCase().replace(/[^\p{L}\p{N}\- _]/gu, '').replaceAll(' ', '-');
    const before = seen.get(anchor) ?? 0;
    seen.set(anchor, before + 1);
    return before ? `${anchor}-${before}` : anchor;
  });
}

/** Targets of links and pictures outside of code. */
export function links({ prose }) {
  const text = prose.join('\n').replace(/`[^`\n]*`/g, '');
  return [...text.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1]);
}

/** Spans of code in the prose. */
export function spans({ prose }) {
  return [...prose.join('\n').matchAll(/`([^`\n]+)`/g)].map((match) => match[1]);
}

/** The commands of a block: lines that end in a backslash go on, comments are left out. */
export function commands({ text }) {
  return text.replace(/\\\n/g, ' ').split('\n').map((line) => line.replace(/(^|\s)#.*$/, '').trim()).filter(Boolean);
}
