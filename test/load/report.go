package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// results are all figures of all rounds, by system and name.
type results struct {
	rounds map[string]map[string][]float64
}

func newResults() *results { return &results{rounds: map[string]map[string][]float64{}} }

func (r *results) add(system string, f map[string]float64) {
	if r.rounds[system] == nil {
		r.rounds[system] = map[string][]float64{}
	}
	for name, v := range f {
		r.rounds[system][name] = append(r.rounds[system][name], v)
	}
}

// median of a figure; NaN where it was not measured.
func (r *results) median(system, name string) float64 {
	v := slices.Sorted(slices.Values(r.rounds[system][name]))
	if len(v) == 0 {
		return math.NaN()
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// columns of the table of medians.
var columns = []struct{ system, title string }{
	{"tideline", "Tideline"}, {"floor", "floor"}, {"centrifuge", "centrifuge"}, {"centrifuge-history", "centrifuge, history"}, {"socketio", "Socket.IO"},
}

// rows of the table of medians.
var rows = []struct{ name, title string }{
	{"fan20 cpu", "CPU seconds per million deliveries, 20/s"},
	{"fan100 cpu", "the same, 100/s"},
	{"fan20 p99", "p99 latency at 20/s, ms"},
	{"fan100 p99", "p99 latency at 100/s, ms"},
	{"max", "most deliveries a second, p99 under 250 ms"},
	{"max cpu", "CPU seconds per million deliveries there"},
	{"half p99", "p99 latency at half of centrifuge's most, ms"},
	{"many redis cpu", "many channels, published to Redis: CPU seconds per million"},
	{"many http cpu", "many channels, published by HTTP: CPU seconds per million"},
	{"many redis p99", "many channels, published to Redis: p99 latency, ms"},
	{"connects", "connects a second"},
	{"connect cpu", "CPU of a connect, µs"},
	{"memory", "resident per idle connection, KiB"},
	{"kill back", "a node killed: all clients back after, s"},
	{"kill lost", "a node killed: publications lost per client"},
	{"stall without", "p99 without stallers, ms"},
	{"stall with", "p99 of the others beside stallers, ms"},
	{"hot without", "p99 of quiet channels, ms"},
	{"hot with", "p99 of quiet channels beside a hot one, ms"},
	{"fan100 generator", "CPU of the generator at 100/s, % of a core"},
	{"max generator", "CPU of the generator at the most, % of a core"},
}

// bar is a ratio of medians, of Tideline to a peer or of one of its figures to another, and what it should be.
type bar struct {
	title        string
	name         string // Tideline's figure
	peer, figure string // the other; an empty peer is Tideline itself
	want         float64
	atLeast      bool
}

var bars = []bar{
	{"CPU per million, 20/s, to the floor", "fan20 cpu", "floor", "fan20 cpu", 1.03, false},
	{"CPU per million, 20/s, to centrifuge with history", "fan20 cpu", "centrifuge-history", "fan20 cpu", 0.73, false},
	{"CPU per million, 100/s, to the floor", "fan100 cpu", "floor", "fan100 cpu", 0.6, false},
	{"most deliveries, to centrifuge", "max", "centrifuge", "max", 1.7, true},
	{"most deliveries, to centrifuge with history", "max", "centrifuge-history", "max", 1.7, true},
	{"p99 at half of centrifuge's most, to centrifuge with history", "half p99", "centrifuge-history", "half p99", 1, false},
	{"many channels by Redis, CPU, to the floor", "many redis cpu", "floor", "many redis cpu", 1.15, false},
	{"many channels by HTTP, CPU, to centrifuge", "many http cpu", "centrifuge", "many http cpu", 0.9, false},
	{"connects a second, to centrifuge", "connects", "centrifuge", "connects", 1.3, true},
	{"a killed node, all back, to centrifuge with history", "kill back", "centrifuge-history", "kill back", 1, false},
	{"p99 beside stallers, to without", "stall with", "", "stall without", 1.2, false},
	{"p99 beside a hot channel, to without", "hot with", "", "hot without", 1.2, false},
}

// The most memory of an idle connection, in KiB, and publications lost by a kill.
const (
	memoryMost = 10.0
	lostMost   = 0.0
)

// cell is a median with its range.
func (r *results) cell(system, name string) string {
	v := r.rounds[system][name]
	if len(v) == 0 {
		return "–"
	}
	median := number(r.median(system, name))
	low, high := number(slices.Min(v)), number(slices.Max(v))
	if low == high {
		return median
	}
	return fmt.Sprintf("%s (%s–%s)", median, low, high)
}

// number has three significant digits, or all before the point.
func number(v float64) string {
	switch {
	case v >= 10_000:
		return fmt.Sprintf("%.0f", math.Round(v/100)*100)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// markdown has the medians with their ranges, the bars, and the row that sizes a fleet.
func (r *results) markdown() string {
	var b strings.Builder
	b.WriteString("| |")
	var systems []string
	for _, c := range columns {
		if r.rounds[c.system] != nil {
			systems = append(systems, c.system)
			fmt.Fprintf(&b, " %s |", c.title)
		}
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(systems)) + "\n")
	for _, row := range rows {
		if !slices.ContainsFunc(systems, func(s string) bool { return len(r.rounds[s][row.name]) > 0 }) {
			continue
		}
		fmt.Fprintf(&b, "| %s |", row.title)
		for _, s := range systems {
			fmt.Fprintf(&b, " %s |", r.cell(s, row.name))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n| ratio of the medians | measured | bar | |\n| --- | --- | --- | --- |\n")
	line := func(title string, got, want float64, atLeast bool) {
		if math.IsNaN(got) {
			return
		}
		sign, reached := "at most", got <= want
		if atLeast {
			sign, reached = "at least", got >= want
		}
		word := "reached"
		if !reached {
			word = "not reached"
		}
		fmt.Fprintf(&b, "| %s | %s | %s %s | %s |\n", title, number(got), sign, number(want), word)
	}
	for _, x := range bars {
		peer := x.peer
		if peer == "" {
			peer = "tideline"
		}
		line(x.title, r.median("tideline", x.name)/r.median(peer, x.figure), x.want, x.atLeast)
	}
	line("resident per idle connection, KiB", r.median("tideline", "memory"), memoryMost, false)
	line("publications lost per client when a node is killed", r.median("tideline", "kill lost"), lostMost, false)
	if n := r.median("tideline", "connections"); !math.IsNaN(n) {
		fmt.Fprintf(&b, "\n| capacity | |\n| --- | --- |\n| connections per node | %.0f |\n", n)
	}
	return b.String()
}

// The lines of the document between which the tables stand.
const (
	tablesBegin = "<!-- tables: make bench -->"
	tablesEnd   = "<!-- end of tables -->"
)

// replaceTables puts the tables into the document, in place of those of an earlier run.
func replaceTables(path, tables string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(raw), tablesBegin)
	_, after, also := strings.Cut(rest, tablesEnd)
	if !ok || !also {
		return fmt.Errorf("%s has no lines %q and %q", path, tablesBegin, tablesEnd)
	}
	return os.WriteFile(path, []byte(before+tablesBegin+"\n\n"+tables+"\n"+tablesEnd+after), 0o644)
}
