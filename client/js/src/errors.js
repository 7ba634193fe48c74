/** An error with a code: that of the protocol, or one of the client's own. */
export class RoomcastError extends Error {
  name = 'RoomcastError';

  constructor(code, message, more) {
    super(message);
    this.code = code;
    Object.assign(this, more);
  }
}

/** A promise with its ends. Nobody has to handle its failure, because an event tells of it, too. */
export function deferred() {
  const ends = {};
  ends.promise = new Promise((resolve, reject) => Object.assign(ends, { resolve, reject }));
  ends.promise.catch(() => {});
  return ends;
}

/** A promise that has failed already, for a call that cannot be done. */
export function refused(error) {
  const { promise, reject } = deferred();
  reject(error);
  return promise;
}
