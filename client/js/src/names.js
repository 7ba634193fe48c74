import { RoomcastError } from './errors.js';

/** What is wrong with a room name or user id, as a sentence; '' if nothing is. */
export function nameProblem(name) {
  if (typeof name !== 'string') return 'A name is a string.';
  if (name === '') return 'A name needs at least one character.';
  const bytes = byteLength(name);
  if (bytes > 128) return `That name has ${bytes} bytes; 128 are allowed.`;
  const foreign = name.match(/[^\p{Alphabetic}\p{N}\-_.:@~+#=/]/u);
  if (foreign) return `“${foreign[0]}” is not allowed in a name: use letters, digits and - _ . : @ ~ + # = /`;
  return name === name.normalize('NFC') ? '' : 'That name is not in Unicode\'s form NFC.';
}

export function checkName(kind, name) {
  const problem = nameProblem(name);
  if (problem) throw new RoomcastError('bad_name', `${kind} name: ${problem}`);
}

export function byteLength(text) {
  return new TextEncoder().encode(text).length;
}

/** `randomUUID` is missing where a page comes by plain HTTP from another machine; the numbers are not. */
export function randomId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
