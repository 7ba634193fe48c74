package main

import (
	"encoding/json"
	"math/rand"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

const (
	messageBytesMax = 16 << 10
	sendMessagesMax = 256
	writeWait       = 10 * time.Second
	pingPeriod      = 25 * time.Second
	pongWait        = pingPeriod + 10*time.Second
)

// Client is one connection. Its rooms belong to the hub's goroutine.
type Client struct {
	hub    *Hub
	socket *websocket.Conn
	send   chan []byte
	userID string
	rooms  map[string]struct{}
}

func newClient(hub *Hub, socket *websocket.Conn) *Client {
	return &Client{
		hub:    hub,
		socket: socket,
		send:   make(chan []byte, sendMessagesMax),
		userID: "guest-" + strconv.FormatUint(rand.Uint64(), 36),
		rooms:  make(map[string]struct{}),
	}
}

func (c *Client) readPump() {
	defer func() {
		c.hub.commands <- Command{client: c, kind: Gone}
		c.socket.Close()
	}()
	c.hub.commands <- Command{client: c, kind: Come}
	c.socket.SetReadLimit(messageBytesMax)
	c.socket.SetReadDeadline(time.Now().Add(pongWait))
	c.socket.SetPongHandler(func(string) error { return c.socket.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		_, bytes, err := c.socket.ReadMessage()
		if err != nil {
			return
		}
		command := Command{client: c, kind: Message}
		// What is no JSON object has no type, and the hub says so.
		if json.Unmarshal(bytes, &command.Received) != nil {
			command.Received = Received{}
		}
		c.hub.commands <- command
	}
}

func (c *Client) writePump() {
	ticker := time.NewTicker(pingPeriod)
	defer func() {
		ticker.Stop()
		c.socket.Close()
	}()
	for {
		select {
		case message, open := <-c.send:
			c.socket.SetWriteDeadline(time.Now().Add(writeWait))
			if !open {
				c.socket.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if c.write(message) != nil {
				return
			}
		case <-ticker.C:
			c.socket.SetWriteDeadline(time.Now().Add(writeWait))
			if c.socket.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

// Writes this message and what else is queued in one system call. The example joins queued messages with line ends into
// one frame for the same reason; here each stays a frame of its own.
func (c *Client) write(message []byte) error {
	queued := len(c.send)
	if queued == 0 {
		return c.socket.WriteMessage(websocket.TextMessage, message)
	}
	batch := c.socket.UnderlyingConn().(*batchConn)
	batch.hold()
	err := c.socket.WriteMessage(websocket.TextMessage, message)
	for i := 0; i < queued && err == nil; i++ {
		// Closed in between: the next receive of the pump finds that out, too.
		if message, open := <-c.send; open {
			err = c.socket.WriteMessage(websocket.TextMessage, message)
		}
	}
	if flushed := batch.flush(); err == nil {
		err = flushed
	}
	return err
}
