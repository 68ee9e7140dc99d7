package bus

import (
	"errors"
	"testing"
)

// suiteBinary: bytes that are no JSON come back as they were and marked, live and from history, and nothing that only knows the fields of before
// takes them for JSON.
func suiteBinary(t *testing.T, b *Bus) {
	const channel = "chat:binary"
	r := newRecorder()
	follow(t, b, r, nil).Subscribe(channel)
	r.confirmedTimes(t, 1, channel)
	var p Publication
	p.Channel, p.History = channel, keep
	p.SetData([]byte("\x00\xff\n1 p e.0 1\n"))
	mustPublish(t, b, p)
	top := mustPublish(t, b, text(channel, `{"a":1}`)).Position
	r.hears(t, channel, `{"a":1}`)
	pubs, _, err := b.Since(t.Context(), channel, Position{Epoch: top.Epoch})
	if err != nil || len(pubs) != 2 {
		t.Fatal(len(pubs), err)
	}
	heard := r.messages(channel)
	for i, binary := range []bool{true, false} {
		for where, got := range map[string]Publication{"heard": heard[i].Publication, "read": pubs[i]} {
			if got.Binary != binary || binary && string(got.Data) != string(p.Data) {
				t.Errorf("%s %+v, want binary %v", where, got, binary)
			}
		}
	}
	entries, err := b.client.XRange(t.Context(), b.key(keyStream, channel), "-", "+").Result()
	if err != nil || len(entries) != 2 || entries[0].Values["d"] != nil || entries[1].Values["d"] == nil {
		t.Errorf("the stream has %v, %v: a build that reads d alone must find no bytes there", entries, err)
	}
}

func TestBinaryEnvelope(t *testing.T) {
	t.Parallel()
	m, err := parseEnvelope("1 b e.0 3\n{}\n\x00\n\xff")
	if err != nil || m.Kind != KindPublication || !m.Publication.Binary || m.Publication.Offset != 3 || string(m.Publication.Data) != "\x00\n\xff" {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := parseEnvelope("1 b e.0 0\n{}\nx"); !errors.Is(err, errEnvelope) {
		t.Errorf("without an offset: %v", err)
	}
}

func TestSetData(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]Publication{
		`{ "a" : 1 }`:       {},
		`"\n"`:              {},
		" 1":                {}, // a message in another encoding can look like this, so that nothing is compacted
		"{ \"a\" :\r\n 1 }": {Binary: true},
		"\n1":               {Binary: true},
		"\"\xff\"":          {Binary: true}, // JSON but for its UTF-8
		"{":                 {Binary: true},
		"{} {}":             {Binary: true},
		"":                  {Binary: true},
	} {
		p := Publication{Binary: true, Data: []byte("before")}
		p.SetData([]byte(data))
		if string(p.Data) != data || p.Binary != want.Binary {
			t.Errorf("%q is %q, binary %v", data, p.Data, p.Binary)
		}
	}
}
