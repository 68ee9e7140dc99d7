package swarm

import (
	"testing"
	"time"
)

func TestWhatIsWrongIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		heard []uint32
		total uint32
		want  Verdict
	}{
		"all in order":                {[]uint32{0, 1, 2, 3}, 4, Verdict{Delivered: 4}},
		"one twice":                   {[]uint32{0, 1, 1, 2}, 3, Verdict{Delivered: 3, Repeated: 1}},
		"one twice, later":            {[]uint32{0, 1, 2, 0}, 3, Verdict{Delivered: 3, Repeated: 1}},
		"a hole":                      {[]uint32{0, 2, 3}, 4, Verdict{Delivered: 3, Missing: 1}},
		"a hole at the beginning":     {[]uint32{2, 3}, 4, Verdict{Delivered: 2, Missing: 2}},
		"a hole at the end":           {[]uint32{0, 1}, 4, Verdict{Delivered: 2, Missing: 2}},
		"nothing":                     {nil, 3, Verdict{Missing: 3}},
		"a swap":                      {[]uint32{0, 2, 1, 3}, 4, Verdict{Delivered: 4, Late: 1}},
		"a swap, and one of it twice": {[]uint32{0, 2, 1, 1, 3}, 4, Verdict{Delivered: 4, Late: 1, Repeated: 1}},
	} {
		var track Track
		var got Verdict
		for _, n := range c.heard {
			track.Heard(n, &got)
		}
		track.End(c.total, &got)
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		if got.Clean() != (name == "all in order") {
			t.Errorf("%s: clean is %v", name, got.Clean())
		}
	}
}

func TestALongHoleAndWhatComesAfterIt(t *testing.T) {
	for _, hole := range []uint32{62, 63, 64, 65, 1000} {
		var track Track
		var v Verdict
		track.Heard(0, &v)
		track.Heard(hole+1, &v)
		track.Heard(hole+1, &v)
		track.Heard(0, &v)
		if want := (Verdict{Delivered: 2, Missing: uint64(hole), Repeated: 2}); v != want {
			t.Errorf("hole of %d: %+v, want %+v", hole, v, want)
		}
	}
}

func TestATrackThatBeginsLater(t *testing.T) {
	track := From(7)
	var v Verdict
	track.Heard(7, &v)
	track.Heard(6, &v)
	if want := (Verdict{Delivered: 1, Repeated: 1}); v != want {
		t.Errorf("%+v, want %+v", v, want)
	}
}

func TestDataIsFoundInWhatIsWrappedAroundIt(t *testing.T) {
	want := []Place{{Channel: 3, Seq: 70000, Due: 12345678901}, {Channel: 65535, Seq: 1 << 31, Due: time.Hour}}
	text := `{"push":{"channel":"c","pub":{"data":` + string(Data(want[0], 128)) + `,"offset":12}}}` + "\n" + `{"push":` + string(Data(want[1], Least)) + `}`
	if n := len(Data(want[0], 128)); n != 128 {
		t.Errorf("%d bytes, want 128", n)
	}
	rest := []byte(text)
	for i := range want {
		var got Place
		var ok bool
		if got, rest, ok = next(rest); !ok || got != want[i] {
			t.Fatalf("publication %d: %+v %v, want %+v", i, got, ok, want[i])
		}
	}
	if p, _, ok := next(rest); ok {
		t.Errorf("found one more: %+v", p)
	}
}

func TestFramesThatComeInParts(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536} {
		payload := make([]byte, n)
		whole := unmasked(opText, payload)
		for _, part := range []int{0, 1, 2, 3, 4, 9, 10, len(whole) - 1} {
			if part >= len(whole) {
				continue
			}
			if _, _, size, err := cut(whole[:part]); size != 0 || err != nil {
				t.Errorf("%d of %d bytes: size %d, error %v", part, len(whole), size, err)
			}
		}
		if op, got, size, err := cut(append(whole, 0xff)); op != opText || len(got) != n || size != len(whole) || err != nil {
			t.Errorf("payload of %d: op %x, %d bytes, size %d, error %v", n, op, len(got), size, err)
		}
	}
	for name, bad := range map[string][]byte{"masked": frame(opText, []byte("x")), "in parts": {0x01, 1, 'x'}, "compressed": {0xc1, 1, 'x'}} {
		if _, _, _, err := cut(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// unmasked is a server's frame.
func unmasked(op byte, payload []byte) []byte {
	b := frame(op, payload)
	head := len(b) - len(payload) - 4
	b[1] &^= 0x80
	return append(b[:head:head], payload...)
}

func TestQuantiles(t *testing.T) {
	var h Histogram
	if h.Quantile(0.99) != 0 {
		t.Error("of nothing: not zero")
	}
	for i := range 1000 {
		h.Add(time.Duration(i+1) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond, 1: time.Second} {
		if got := h.Quantile(q); got < want || got > want+want/50 {
			t.Errorf("quantile %v is %v, want %v to 2 %% more", q, got, want)
		}
	}
	h.Add(-time.Second)
	h.Add(1000 * time.Hour)
	if h.N() != 1002 {
		t.Errorf("%d counted", h.N())
	}
}

func TestPositionsInSubscribeReplies(t *testing.T) {
	for text, want := range map[string]Position{
		`{"id":1,"connect":{"client":"c"}}` + "\n" + `{"id":2,"subscribe":{"recoverable":true,"epoch":"ab.cd","offset":12}}`:               {"ab.cd", 12},
		`{"id":2,"subscribe":{"epoch":"e","publications":[{"data":{},"offset":13},{"data":{},"offset":14}],"recovered":true,"offset":12}}`: {"e", 14},
		`{"id":2,"subscribe":{"epoch":"e"}}`: {"e", 0},
	} {
		if got, ok := (Centrifuge{}).Joined([]byte(text)); !ok || got != want {
			t.Errorf("%s: %+v %v, want %+v", text, got, ok, want)
		}
	}
	if _, ok := (Centrifuge{}).Joined([]byte(`{"id":2,"subscribe":{}}`)); ok {
		t.Error("a position where there is none")
	}
}
