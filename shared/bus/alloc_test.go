package bus

import (
	"strconv"
	"testing"
)

// TestReadingAnEnvelopeAllocatesNothing pins what every node pays for every publication on its channels.
func TestReadingAnEnvelopeAllocatesNothing(t *testing.T) {
	head, err := encodeHeader(header{ID: "0123456789abcdef", Time: 1_700_000_000_000})
	if err != nil {
		t.Fatal(err)
	}
	payload := strconv.Itoa(envelopeVersion) + " p abcdef.0123456789abcdef 42\n" + string(head) + "\n" + `{"text":"hello"}`
	var m Message
	if n := testing.AllocsPerRun(100, func() {
		if m, err = parseEnvelope(payload); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations, want none", n)
	}
	if m.Publication.Offset != 42 || m.Epoch != "abcdef.0123456789abcdef" || string(m.Publication.Data) != `{"text":"hello"}` {
		t.Errorf("read %+v", m)
	}
}
