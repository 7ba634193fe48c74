package main

import "time"

// In bigger rooms nobody is told who comes and goes.
const presenceMembersMax = 200

type Room struct {
	members map[*Client]struct{}
	seq     uint64
}

// Command is what a client asks of the hub. Gone is sent by the hub's side of the client, never by a peer.
type Command struct {
	client *Client
	kind   Kind
	Received
}

type Kind int

const (
	Come Kind = iota
	Message
	Gone
)

// Hub owns the clients and the rooms; only its goroutine touches them. One channel for all commands keeps those of one
// client in order.
type Hub struct {
	commands chan Command
	clients  map[*Client]struct{}
	rooms    map[string]*Room
	slow     []*Client
}

func newHub() *Hub {
	return &Hub{
		commands: make(chan Command, 256),
		clients:  make(map[*Client]struct{}),
		rooms:    make(map[string]*Room),
	}
}

func (h *Hub) run() {
	for command := range h.commands {
		h.handle(command)
		// Dropping somebody tells others, which may find more who are slow.
		for len(h.slow) > 0 {
			client := h.slow[len(h.slow)-1]
			h.slow = h.slow[:len(h.slow)-1]
			h.remove(client)
		}
	}
}

func (h *Hub) handle(command Command) {
	client := command.client
	if command.kind == Come {
		h.clients[client] = struct{}{}
		h.send(client, encode(Welcome{"welcome", client.userID, int(pingPeriod.Milliseconds())}))
		return
	}
	if _, known := h.clients[client]; !known {
		return
	}
	switch {
	case command.kind == Gone:
		h.remove(client)
	case command.Type == "join":
		h.join(client, command.Room)
	case command.Type == "chat":
		h.chat(client, command.Received)
	default:
		h.send(client, badMessage("unknown type"))
	}
}

func (h *Hub) join(client *Client, name string) {
	if name == "" {
		h.send(client, badMessage("room is missing"))
		return
	}
	if _, joined := client.rooms[name]; joined {
		h.send(client, badMessage("already joined"))
		return
	}
	room := h.rooms[name]
	if room == nil {
		room = &Room{members: make(map[*Client]struct{})}
		h.rooms[name] = room
	}
	room.members[client] = struct{}{}
	client.rooms[name] = struct{}{}
	h.send(client, encode(Joined{"joined", name, len(room.members)}))
	if len(room.members) <= presenceMembersMax {
		h.broadcast(room, encode(Presence{"presence", name, client.userID, "online"}))
	}
}

func (h *Hub) chat(client *Client, received Received) {
	if _, joined := client.rooms[received.Room]; !joined {
		h.send(client, badMessage("not joined"))
		return
	}
	if received.Text == "" {
		h.send(client, badMessage("text is empty"))
		return
	}
	room := h.rooms[received.Room]
	room.seq++
	h.broadcast(room, encode(Chat{
		Type:   "chat",
		Room:   received.Room,
		UserID: client.userID,
		Text:   received.Text,
		ID:     received.ID,
		Time:   time.Now().UnixMilli(),
		Seq:    room.seq,
	}))
}

func (h *Hub) broadcast(room *Room, message []byte) {
	for client := range room.members {
		h.send(client, message)
	}
}

// The hub waits for nobody: a client whose channel is full is dropped, as in the example.
func (h *Hub) send(client *Client, message []byte) {
	select {
	case client.send <- message:
	default:
		h.slow = append(h.slow, client)
	}
}

func (h *Hub) remove(client *Client) {
	if _, known := h.clients[client]; !known {
		return
	}
	delete(h.clients, client)
	close(client.send)
	for name := range client.rooms {
		room := h.rooms[name]
		told := len(room.members) <= presenceMembersMax
		delete(room.members, client)
		if len(room.members) == 0 {
			delete(h.rooms, name)
		} else if told {
			h.broadcast(room, encode(Presence{"presence", name, client.userID, "offline"}))
		}
	}
}
