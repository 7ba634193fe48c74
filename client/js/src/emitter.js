/** An `EventTarget` of known types, whose listeners get the detail. */
export class Emitter extends EventTarget {
  #types;

  constructor(types) {
    super();
    this.#types = types;
  }

  /** Listens; returns a function that stops listening. */
  on(type, listener) {
    if (!this.#types.includes(type)) throw new TypeError(`there is no event “${type}”; there are ${this.#types.join(', ')}`);
    if (typeof listener !== 'function') throw new TypeError(`the listener of “${type}” is no function`);
    const forward = (event) => listener(event.detail);
    this.addEventListener(type, forward);
    return () => this.removeEventListener(type, forward);
  }

  emit(type, detail) {
    if (this.#types.includes(type)) this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
