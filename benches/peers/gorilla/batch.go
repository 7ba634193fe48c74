package main

import (
	"net"
	"sync"
)

var writeBuffers sync.Pool

// Past this many bytes a held batch is written, so that a full channel of big messages takes no megabytes.
const batchBytesMax = 64 << 10

var batches = sync.Pool{New: func() any { return new([]byte) }}

type batchListener struct{ net.Listener }

func (l batchListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &batchConn{Conn: conn}, nil
}

// batchConn gathers writes between hold and flush; otherwise it writes at once. gorilla/websocket writes every frame by
// a system call of its own, and offers no other place to gather them. The lock is for pongs and closes, which the
// reading goroutine writes.
type batchConn struct {
	net.Conn
	lock  sync.Mutex
	batch *[]byte
}

func (c *batchConn) hold() {
	c.lock.Lock()
	c.batch = batches.Get().(*[]byte)
	c.lock.Unlock()
}

func (c *batchConn) Write(bytes []byte) (int, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.batch == nil {
		return c.Conn.Write(bytes)
	}
	*c.batch = append(*c.batch, bytes...)
	if len(*c.batch) < batchBytesMax {
		return len(bytes), nil
	}
	_, err := c.Conn.Write(*c.batch)
	*c.batch = (*c.batch)[:0]
	return len(bytes), err
}

func (c *batchConn) flush() error {
	c.lock.Lock()
	defer c.lock.Unlock()
	var err error
	if len(*c.batch) > 0 {
		_, err = c.Conn.Write(*c.batch)
	}
	*c.batch = (*c.batch)[:0]
	batches.Put(c.batch)
	c.batch = nil
	return err
}
