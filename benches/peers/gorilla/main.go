// A chat server in the manner of gorilla/websocket's chat example, with rooms: one hub goroutine owns all state, each
// client has a goroutine that reads and one that writes, with a channel of 256 messages between it and the hub.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// The pool lends a write buffer only while a frame is put together, so an idle client holds none.
var upgrader = websocket.Upgrader{
	ReadBufferSize:  1024,
	WriteBufferSize: 1024,
	WriteBufferPool: &writeBuffers,
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gorilla ADDRESS")
		os.Exit(2)
	}
	// The listen backlog is the system's maximum (net.core.somaxconn), and the file limit is raised by Go itself.
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}

	hub := newHub()
	go hub.run()
	http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) { serve(hub, w, r) })
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		os.Exit(0)
	}()

	fmt.Println("listening on", listener.Addr())
	err = server.Serve(batchListener{listener})
	if !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(hub *Hub, w http.ResponseWriter, r *http.Request) {
	socket, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	client := newClient(hub, socket)
	go client.writePump()
	go client.readPump()
}
