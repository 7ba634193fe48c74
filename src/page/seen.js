// How far this person has read each room, so that what is new is told after a reload, too.

const SEEN_MAX = 64; // rooms that are remembered; the one that was looked at longest ago is forgotten first

/** Epoch and seq of the newest message that was in view, by room. */
function allSeen() {
  const stored = recallJson('roomcast.seen');
  const isEntry = (entry) => Array.isArray(entry) && typeof entry[1]?.epoch === 'string' && Number.isInteger(entry[1].seq);
  return new Map(Array.isArray(stored) ? stored.filter(isEntry) : []);
}

function storeSeen(room, { epoch, seq }) {
  const all = allSeen();
  const known = all.get(room);
  if (known?.epoch === epoch && known.seq >= seq) return; // another tab has read on
  all.delete(room);
  all.set(room, { epoch, seq });
  storeAllSeen(all);
}

function forgetSeen(room) {
  const all = allSeen();
  if (all.delete(room)) storeAllSeen(all);
}

function storeAllSeen(all) {
  store('localStorage', 'roomcast.seen', JSON.stringify([...all].slice(-SEEN_MAX)));
}
