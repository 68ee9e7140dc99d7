package feed

import (
	"log/slog"
	"testing"

	"tideline/shared/bus"
)

// nowhere is a sink that keeps nothing.
type nowhere struct{ heard int }

func (n *nowhere) Publication(string, string, *bus.Publication) { n.heard++ }
func (n *nowhere) Member(string, bool, bus.ClientInfo)          {}
func (n *nowhere) Lost(string)                                  {}

// TestAPublicationAllocatesOnce pins what following a channel costs: the publication itself, which the ring and all subscribers share.
func TestAPublicationAllocatesOnce(t *testing.T) {
	sink := &nowhere{}
	f := New(Options{Sink: sink, Log: slog.New(slog.DiscardHandler)})
	fo := &follower{f: f, name: "c", changed: make(chan struct{}), known: true, isConfirmed: true, compared: true, pos: bus.Position{Epoch: "e"}}
	f.followers["c"] = fo
	m := bus.Message{Kind: bus.KindPublication, Epoch: "e", Publication: bus.Publication{Channel: "c", Data: []byte(`{"text":"hello"}`), ID: "id"}}
	hear := func() {
		m.Publication.Offset++
		f.Heard("c", m)
	}
	for range 1000 { // the ring is full, and grows no more
		hear()
	}
	const runs = 1000
	// The ring's array is made anew once for each time that it has been filled: less than one in a hundred.
	if n := testing.AllocsPerRun(runs, hear); n > 1 {
		t.Errorf("%v allocations for a publication, want 1", n)
	}
	if want := 1000 + runs + 1; sink.heard != want {
		t.Errorf("%d came through, want %d", sink.heard, want)
	}
}
