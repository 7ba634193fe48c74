// Hooks for React: `useChat` keeps one connection, `useRoom` shows one of its rooms.
import { useCallback, useEffect, useReducer, useState } from 'react';
import { Roomcast } from 'roomcast';

/** A client for as long as the component is there, and its status. */
export function useChat(url, options) {
  const [chat] = useState(() => new Roomcast(url, options));
  const [status, setStatus] = useState({ status: chat.status });
  useEffect(() => {
    const off = chat.on('status', setStatus);
    chat.connect();
    return () => { off(); chat.close(); };
  }, [chat]);
  return [chat, status];
}

const EVENTS = ['joined', 'left', 'chat', 'sent', 'failed', 'deleted', 'members', 'typing'];
const EMPTY = { messages: [], users: [], count: 0, typing: [], left: null };

/** What is to be shown of a room, and `say(text)`. A message has `state`: sent, pending or failed. */
export function useRoom(chat, name, history = 50) {
  const [view, change] = useReducer(next, EMPTY);
  useEffect(() => {
    const room = chat.room(name);
    const offs = EVENTS.map((type) => room.on(type, (detail) => change({ type, detail })));
    room.join({ history });
    return () => { offs.forEach((off) => off()); room.leave(); change({ type: 'end' }); };
  }, [chat, name, history]);
  const say = useCallback((text) => {
    const answer = chat.say(name, text);
    if (answer.id) change({ type: 'say', detail: { id: answer.id, text, userId: chat.userId, own: true, state: 'pending' } });
    return answer;
  }, [chat, name]);
  return { ...view, say };
}

function next(view, { type, detail }) {
  const { messages } = view;
  const mark = (state) => messages.map((one) => (one.own && one.id === detail.id ? { ...one, ...detail, state } : one));
  const others = (one) => !(one.own && one.id === detail.id); // our own message takes the place that the server gives it
  switch (type) {
    case 'joined': {
      const ids = detail.messages.filter(({ own }) => own).map(({ id }) => id);
      const kept = messages.filter(({ state, id }) => !ids.includes(id) && (state === 'pending' || !detail.replace));
      return { ...view, left: null, messages: [...kept, ...detail.messages] };
    }
    case 'left': return { ...view, left: detail };
    case 'chat': return { ...view, messages: [...messages.filter(others), detail] };
    case 'say': return messages.every(others) ? { ...view, messages: [...messages, detail] } : view;
    case 'sent': return { ...view, messages: mark('sent') };
    case 'failed': return { ...view, messages: mark('failed') };
    case 'deleted': return { ...view, messages: messages.filter(({ seq }) => !detail.seqs.includes(seq)) };
    case 'members': return { ...view, count: detail.count, users: detail.users ?? [] };
    case 'typing': return { ...view, typing: detail.userIds };
    default: return EMPTY;
  }
}
