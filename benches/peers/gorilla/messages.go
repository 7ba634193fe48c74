package main

import "encoding/json"

// Received is any message of a client.
type Received struct {
	Type string `json:"type"`
	Room string `json:"room"`
	Text string `json:"text"`
	ID   string `json:"id"`
}

type Welcome struct {
	Type         string `json:"type"`
	UserID       string `json:"userId"`
	PingInterval int    `json:"pingInterval"`
}

type Joined struct {
	Type  string `json:"type"`
	Room  string `json:"room"`
	Count int    `json:"count"`
}

type Presence struct {
	Type   string `json:"type"`
	Room   string `json:"room"`
	UserID string `json:"userId"`
	Status string `json:"status"`
}

type Chat struct {
	Type   string `json:"type"`
	Room   string `json:"room"`
	UserID string `json:"userId"`
	Text   string `json:"text"`
	ID     string `json:"id,omitempty"`
	Time   int64  `json:"ts"`
	Seq    uint64 `json:"seq"`
}

type Error struct {
	Type    string `json:"type"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// These structs hold strings and numbers only, which cannot fail to encode.
func encode(message any) []byte {
	bytes, err := json.Marshal(message)
	if err != nil {
		panic(err)
	}
	return bytes
}

func badMessage(text string) []byte { return encode(Error{"error", "bad_message", text}) }
