/** Timers by name: setting one replaces it, and one that has run is gone. */
export class Timers {
  #handles = new Map();

  set(name, ms, run) {
    this.clear(name);
    this.#handles.set(name, setTimeout(() => { this.#handles.delete(name); run(); }, ms));
  }

  has(name) {
    return this.#handles.has(name);
  }

  clear(name) {
    clearTimeout(this.#handles.get(name));
    this.#handles.delete(name);
  }

  clearAll() {
    for (const name of [...this.#handles.keys()]) this.clear(name);
  }
}
