import { useChat, useRoom } from './useRoom.js';

/** A room with its messages, its members and a field to write in. */
export function Chat({ url, userId, room }) {
  const [chat, { status, reason }] = useChat(url, { userId });
  const { messages, count, typing, say } = useRoom(chat, room);
  const submit = (event) => {
    event.preventDefault();
    say(event.target.text.value);
    event.target.reset();
  };
  return (
    <section>
      <p role="status">{status === 'online' ? `${count} here` : `${status} ${reason ?? ''}`}</p>
      <ul>{messages.map(({ seq, id, userId: author, text, state }) => <li key={id ?? seq} data-state={state ?? 'sent'}>{author}: {text}</li>)}</ul>
      <p>{typing.length > 0 && `${typing.join(', ')} typing…`}</p>
      <form onSubmit={submit}><input name="text" aria-label="Message" autoComplete="off" onChange={() => chat.typing(room)} /><button>Send</button></form>
    </section>
  );
}
