package docker

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
)

func frame(kind byte, text string) string {
	var head [8]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	return string(head[:]) + text
}

const stamp = "2026-11-22T16:44:53.762394362Z "

func messages(t *testing.T, log string, tty bool) (all []message, err error) {
	t.Helper()
	for s := newScanner(strings.NewReader(log), tty); ; {
		m, err := s.next()
		if err != nil {
			return all, err
		}
		m.text = append([]byte(nil), m.text...)
		all = append(all, m)
	}
}

func TestFrames(t *testing.T) {
	all, err := messages(t, frame(1, stamp+"one\n")+frame(2, stamp+"two\r\n")+frame(1, stamp+strings.Repeat("x", 16<<10))+frame(1, stamp+"\n")+frame(1, stamp+" a b\n"), false)
	if !errors.Is(err, io.EOF) || len(all) != 5 {
		t.Fatalf("%d, %v", len(all), err)
	}
	for i, want := range []struct {
		stream, text string
		whole        bool
	}{{"stdout", "one", true}, {"stderr", "two", true}, {"stdout", strings.Repeat("x", 16<<10), false}, {"stdout", "", true}, {"stdout", " a b", true}} {
		if m := all[i]; m.stream != want.stream || string(m.text) != want.text || m.whole != want.whole || m.time.UnixNano() != 1795365893762394362 {
			t.Errorf("message %d: %s %q %v %v", i, m.stream, m.text, m.whole, m.time.UnixNano())
		}
	}
	long := strings.Repeat("y", ttyLineBytes+5)
	all, err = messages(t, stamp+"one\r\n"+stamp+long+"\r\n"+stamp+"two\r\n"+stamp+"unfinished", true)
	if !errors.Is(err, io.EOF) || len(all) != 4 || string(all[0].text) != "one" || len(all[1].text) < ttyLineBytes/2 || string(all[2].text) != "two" || all[3].whole {
		t.Fatalf("%d, %v", len(all), err)
	}
	for name, bad := range map[string]string{
		"stream":      frame(3, stamp+"x\n"),
		"no time":     frame(1, "hello world\n"),
		"no space":    frame(1, "x"),
		"half a head": "\x01\x00",
		"half":        frame(1, stamp+"x\n")[:20],
		"huge":        "\x01\x00\x00\x00\xff\xff\xff\xff",
	} {
		if all, err := messages(t, bad, false); len(all) > 0 || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %d messages, %v", name, len(all), err)
		}
	}
}

// What the engine sends must neither panic nor loop nor take memory past its bounds.
func FuzzScanner(f *testing.F) {
	f.Add(frame(1, stamp+"one\n")+frame(2, stamp+"two\n"), false)
	f.Add(stamp+"one\r\n"+stamp+"two", true)
	f.Fuzz(func(t *testing.T, log string, tty bool) {
		all, err := messages(t, log, tty)
		if err == nil || len(all) > len(log) {
			t.Errorf("%d messages of %d bytes, %v", len(all), len(log), err)
		}
		for _, m := range all {
			if len(m.text) > frameBytes {
				t.Errorf("a message of %d bytes", len(m.text))
			}
		}
	})
}
