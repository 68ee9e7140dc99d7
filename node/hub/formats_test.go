package hub

import (
	"bufio"
	"testing"
	"time"

	"tideline/shared/bus"
)

// A publication is encoded once for each format, however many subscribe. Whoever can't have it in its format is told once and gets nothing any
// more; the others go on.
func TestFormats(t *testing.T) {
	r := newRig(t, 2)
	var able []*bufio.Reader
	var unable []*owner
	for range 8 {
		o, client := r.dialIn(1)
		able = append(able, bufio.NewReader(client))
		r.enter(o, "c", 0)
	}
	for range 8 {
		o, client := r.dialIn(0)
		r.enter(o, "c", 0)
		expect(t, bufio.NewReader(client), "subscribed")
		unable = append(unable, o)
	}
	r.h.Publication("c", "e", &bus.Publication{Offset: 1, Data: []byte("bytes"), Binary: true})
	r.publish("c", 2, 3)
	for _, rd := range able {
		expect(t, rd, "subscribed", "c 1 bytes", "c 2 x", "c 3 x")
	}
	if n := r.enc.encoded.Load(); n > 2*3+1 { // two formats, three publications; what comes to nothing is tried for each worker
		t.Errorf("encoded %d times for 16 subscribers", n)
	}
	for _, o := range unable {
		select {
		case s := <-o.unfit:
			if s.Delivered() != 0 {
				t.Errorf("delivered up to %d", s.Delivered())
			}
		case <-time.After(10 * time.Second):
			t.Fatal("not told")
		}
	}
	r.publish("c", 4)
	for _, rd := range able {
		expect(t, rd, "c 4 x")
	}
	for _, o := range unable {
		if len(o.unfit) != 0 || len(o.lost) != 0 {
			t.Error("told again")
		}
		if o.conn.Waiting() != 0 {
			t.Error("something was queued")
		}
	}
}
