// The built programs that stand in for `cargo run --release`, `roomcast` and `roomcast-load` of the pages.
import { dirname, join } from 'node:path';
import { ROOT } from './markdown.mjs';

export const PROGRAM = process.env.ROOMCAST_BIN ?? join(ROOT, 'target/debug/roomcast');
export const LOAD_TEST = join(dirname(PROGRAM), 'roomcast-load');
