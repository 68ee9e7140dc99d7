package faults

import (
	"encoding/json"
	"fmt"
)

// The wire: only what the client needs of the protocol, by hand, so that a mistake in the library that the node uses is no mistake here.
type wireMessage struct {
	ID          uint32          `json:"id"`
	Error       *wireError      `json:"error"`
	Connect     *wireConnect    `json:"connect"`
	Subscribe   *wireSubscribe  `json:"subscribe"`
	Unsubscribe json.RawMessage `json:"unsubscribe"`
	Publish     json.RawMessage `json:"publish"`
	RPC         json.RawMessage `json:"rpc"`
	Presence    *struct {
		Presence map[string]json.RawMessage `json:"presence"`
	} `json:"presence"`
	Push *wirePush `json:"push"`
}

type wireError struct {
	Code      int    `json:"code"`
	Message   string `json:"message"`
	Temporary bool   `json:"temporary"`
}

func (e *wireError) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Message) }

type wireConnect struct {
	Client string `json:"client"`
	Data   struct {
		Node string `json:"node"`
	} `json:"data"`
	Subs map[string]*wireSubscribe `json:"subs"`
}

type wireSubscribe struct {
	Epoch         string            `json:"epoch"`
	Offset        uint64            `json:"offset"`
	Recovered     bool              `json:"recovered"`
	WasRecovering bool              `json:"was_recovering"`
	Publications  []wirePublication `json:"publications"`
}

type wirePublication struct {
	Offset uint64          `json:"offset"`
	Data   json.RawMessage `json:"data"`
}

type wireMember struct {
	Info struct {
		User   string `json:"user"`
		Client string `json:"client"`
	} `json:"info"`
}

type wirePush struct {
	Channel     string           `json:"channel"`
	Pub         *wirePublication `json:"pub"`
	Join        *wireMember      `json:"join"`
	Leave       *wireMember      `json:"leave"`
	Unsubscribe *wireGoodbye     `json:"unsubscribe"`
	Disconnect  *wireGoodbye     `json:"disconnect"`
}

type wireGoodbye struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}
