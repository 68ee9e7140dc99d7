package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"tideline/shared/trace"
)

// newLogger writes lines for a person, or JSON. Colour only on a terminal, and not under NO_COLOR.
func newLogger(w io.Writer, s settings, getenv func(string) string) *slog.Logger {
	if s.json {
		return slog.New(trace.LogHandler(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: s.level})))
	}
	return slog.New(trace.LogHandler(&lines{level: s.level, colour: isTerminal(w) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb", out: &output{w: w}}))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// lines is a slog.Handler: time, who, level when it is not info, message, the rest as key=value. Safe for concurrent use.
type lines struct {
	level  slog.Level
	colour bool
	who    string // the attribute "node"
	attrs  string // already written
	group  string // prefix of keys
	out    *output
}

type output struct {
	mu sync.Mutex
	w  io.Writer
}

const (
	dim    = "\x1b[2m"
	cyan   = "\x1b[36m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	plain  = "\x1b[0m"
)

// whoWidth keeps messages below each other.
const whoWidth = 9

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	b.WriteString(l.paint(dim, r.Time.Format("15:04:05.000")))
	who, attrs := l.who, l.attrs
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "node" && l.group == "" {
			who = a.Value.String()
		} else {
			attrs += l.format(l.group, a)
		}
		return true
	})
	fmt.Fprintf(&b, " %s ", l.paint(cyan, fmt.Sprintf("%-*s", whoWidth, who)))
	if r.Level != slog.LevelInfo {
		b.WriteString(l.paint(levelColour(r.Level), r.Level.String()) + " ")
	}
	b.WriteString(clean(r.Message) + attrs + "\n")
	l.out.mu.Lock()
	defer l.out.mu.Unlock()
	_, err := l.out.w.Write(b.Bytes())
	return err
}

func (l *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *l
	for _, a := range attrs {
		if a.Key == "node" && l.group == "" {
			with.who = a.Value.String()
		} else {
			with.attrs += l.format(l.group, a)
		}
	}
	return &with
}

func (l *lines) WithGroup(name string) slog.Handler {
	with := *l
	with.group += name + "."
	return &with
}

func (l *lines) format(group string, a slog.Attr) string {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		var b strings.Builder
		for _, inner := range v.Group() {
			b.WriteString(l.format(group, inner))
		}
		return b.String()
	}
	if a.Key == "" {
		return ""
	}
	text := v.String()
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == '"' || r == 0x7f }) {
		text = strconv.Quote(text)
	}
	return " " + l.paint(dim, group+a.Key+"=") + clean(text)
}

// clean keeps a client's bytes from steering the terminal.
func clean(s string) string {
	if !slices.ContainsFunc([]byte(s), func(c byte) bool { return c < ' ' || c >= 0x7f }) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || !strconv.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func levelColour(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return red
	case level >= slog.LevelWarn:
		return yellow
	}
	return dim
}

func (l *lines) paint(colour, s string) string {
	if !l.colour {
		return s
	}
	return colour + s + plain
}
