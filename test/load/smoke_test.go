//go:build linux

package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryScenarioRuns runs all of it, short and small: two node processes, every delivery checked. The peers are compared by make bench
// alone; the floor stands for them here.
func TestEveryScenarioRuns(t *testing.T) {
	var out, log bytes.Buffer
	if err := run([]string{"-smoke", "-systems", "floor,tideline", "-root", "../.."}, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	for _, want := range []string{"most deliveries a second", "| connections per node | 500 |", "many channels, published by HTTP", "a node killed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestWrongFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-systems", "nginx"}, {"-scenarios", "moon"}, {"-rounds", "0"}, {"fan"}, {"-nonsense"}} {
		var out, log bytes.Buffer
		if err := run(args, &out, &log); err == nil {
			t.Errorf("%v: taken", args)
		}
	}
}

func TestTheTablesAreReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n" + tablesBegin + "\nold\n" + tablesEnd + "\nafter\n")
	for range 2 {
		if err := replaceTables(path, "| new |\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if want := "before\n" + tablesBegin + "\n\n| new |\n\n" + tablesEnd + "\nafter\n"; err != nil || string(got) != want {
		t.Errorf("%q, want %q (%v)", got, want, err)
	}
	write("no lines")
	if err := replaceTables(path, "x"); err == nil {
		t.Error("a document without the lines: no error")
	}
}

func TestMediansRangesAndBars(t *testing.T) {
	r := newResults()
	for _, v := range []float64{9, 5, 7} {
		r.add("tideline", figures{"fan20 cpu": v, "fan100 cpu": 2 * v, "connections": 500})
	}
	r.add("floor", figures{"fan20 cpu": 7})
	r.add("floor", figures{"fan20 cpu": 8})
	r.add("floor", figures{"fan100 cpu": 7})
	if m := r.median("floor", "fan20 cpu"); m != 7.5 {
		t.Errorf("median of two is %v", m)
	}
	if m := r.median("socketio", "fan20 cpu"); !math.IsNaN(m) {
		t.Errorf("median of nothing is %v", m)
	}
	table := r.markdown()
	for _, want := range []string{
		"| CPU seconds per million deliveries, 20/s | 7.00 (5.00–9.00) | 7.50 (7.00–8.00) |",
		"| CPU per million, 20/s, to the floor | 0.93 | at most 1.03 | reached |",
		"| CPU per million, 100/s, to the floor | 2.00 | at most 0.60 | not reached |",
		"| connections per node | 500 |",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	if strings.Contains(table, "NaN") {
		t.Errorf("NaN in\n%s", table)
	}
}

func TestProcTellsOfThisProcess(t *testing.T) {
	if _, err := cpu(os.Getpid()); err != nil {
		t.Error(err)
	}
	if n, err := memory(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := cpu(1 << 30); err == nil {
		t.Error("CPU of a process that can't be: no error")
	}
	if !strings.Contains(machine(), "cores") {
		t.Errorf("machine: %q", machine())
	}
}
