package conn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tideline/shared/token"
)

// told is a Streams that passes on what it is told.
type told struct {
	noStreams
	calls chan string
}

func (s told) Follow(name string, on bool) { s.calls <- fmt.Sprint(name, " ", on) }

func (s told) Check(name string) error {
	if strings.HasSuffix(name, "!") {
		return errors.New("not a name")
	}
	return nil
}

func (s told) want(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-s.calls:
		if got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Errorf("never told %q", want)
	}
}

func TestStreamsAreToldWhatIsFollowed(t *testing.T) {
	s := told{calls: make(chan string, 100)}
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) {
		o.Streams = s
		o.Methods = map[string]func(context.Context, []byte) (any, error){"echo": func(_ context.Context, data []byte) (any, error) {
			if len(data) == 0 {
				return nil, fmt.Errorf("%w: nothing to say", ErrBadRequest)
			}
			return string(data), nil
		}}
	})
	op, ann := n.connect(t, operatorClaims), n.connect(t, token.Claims{User: "ann"})

	op.send(`{"id":2,"subscribe":{"channel":"docker:logs:web"}}`)
	op.want(`{"id":2,"subscribe":{}}`)
	s.want(t, "docker:logs:web true")
	other := n.connect(t, operatorClaims)
	other.send(`{"id":2,"subscribe":{"channel":"docker:logs:web"}}`)
	other.want(`{"id":2,"subscribe":{}}`)
	other.send(`{"id":3,"unsubscribe":{"channel":"docker:logs:web"}}`)
	other.want(`{"id":3,"unsubscribe":{}}`)
	op.send(`{"id":3,"unsubscribe":{"channel":"docker:logs:web"}}`)
	op.want(`{"id":3,"unsubscribe":{}}`)
	s.want(t, "docker:logs:web false") // once, after the last one

	op.send(`{"id":4,"subscribe":{"channel":"docker:logs:!"}}`)
	op.want(`{"id":4,"error":{"code":107}}`)
	op.send(`{"id":5,"rpc":{"method":"subscribe","data":{"channel":"docker:logs:!","user":"op"}}}`)
	op.want(`{"id":5,"error":{"code":107}}`)
	op.send(`{"id":6,"rpc":{"method":"echo","data":1}}`)
	op.want(`{"id":6,"rpc":{"data":"1"}}`)
	op.send(`{"id":7,"rpc":{"method":"echo"}}`)
	op.want(`{"id":7,"error":{"code":107}}`)

	ann.send(`{"id":2,"subscribe":{"channel":"docker:logs:web"}}`)
	ann.want(`{"id":2,"error":{"code":103}}`)
	ann.send(`{"id":3,"rpc":{"method":"echo","data":1}}`)
	ann.want(`{"id":3,"error":{"code":103}}`)
	if len(s.calls) > 0 {
		t.Errorf("told %q for a refused subscribe", <-s.calls)
	}
}
