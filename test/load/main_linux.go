// Command load measures what a Tideline node costs, beside the servers that it can be compared with, and checks every delivery.
//
//	go run ./test/load -systems tideline,floor -scenarios fan,many -rounds 1 -pin
//
// Scenarios and systems take turns, so that a slow minute of the machine is everybody's. Each run starts a Redis and the server processes
// and ends them. make bench runs all of it.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "load: %v\n", err)
		os.Exit(1)
	}
}

// settings of one call.
type settings struct {
	systems   []kind
	scenarios []group
	rounds    int
	plan      plan
	env       environment
	write     string // the document whose tables are replaced
}

func parse(args []string, stderr io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.SetOutput(stderr)
	systems := flags.String("systems", "centrifuge,tideline,centrifuge-history,floor,socketio", "which systems, in this order")
	scenarios := flags.String("scenarios", "fan,many,idle,kill,stall,hot", "which scenarios")
	flags.IntVar(&s.rounds, "rounds", 1, "rounds over all of it")
	short := flags.Bool("smoke", false, "short and small: shows that it works, measures nothing")
	flags.BoolVar(&s.env.pin, "pin", false, "servers on core 0, Redis and the generator on core 1")
	flags.StringVar(&s.env.node, "node", "", "Tideline's binary; empty builds it")
	flags.StringVar(&s.env.profiles, "profiles", "", "folder for profiles of a Tideline node under load; they cost CPU themselves")
	flags.StringVar(&s.write, "write", "", "Markdown file whose tables are replaced by the results")
	flags.StringVar(&s.env.root, "root", ".", "the repository")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 || s.rounds < 1 {
		return s, errors.New("unexpected arguments; see -help")
	}
	s.plan = full
	if *short {
		s.plan = smoke
	}
	for name := range strings.SplitSeq(*systems, ",") {
		k, err := kindOf(name)
		if err != nil {
			return s, err
		}
		s.systems = append(s.systems, k)
	}
	for name := range strings.SplitSeq(*scenarios, ",") {
		g, err := groupOf(name)
		if err != nil {
			return s, err
		}
		s.scenarios = append(s.scenarios, g)
	}
	return s, nil
}

func run(args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if s.env.pin {
		if err := pinSelf(); err != nil {
			return fmt.Errorf("pin: %w", err)
		}
	}
	if s.env.root, err = filepath.Abs(s.env.root); err != nil {
		return err
	}
	if s.env.folder, err = os.MkdirTemp("", "tideline-load-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.env.folder)
	if err := s.env.build(s.systems, stderr); err != nil {
		return err
	}
	results, err := s.measure(stderr)
	if err != nil {
		fmt.Fprintln(stdout, results.markdown()) // what there is until then
		return err
	}
	table := fmt.Sprintf("%s, %s. %d rounds, %s, `%s`.\n\n%s", time.Now().UTC().Format(time.DateOnly), machine(), s.rounds,
		versions(), strings.Join(append([]string{"load"}, args...), " "), results.markdown())
	fmt.Fprintln(stdout, table)
	if s.write != "" {
		return replaceTables(s.write, table)
	}
	return nil
}

// versions of what is compared.
func versions() string {
	redis, err := exec.Command("redis-server", "--version").Output()
	if err != nil {
		redis = []byte("Redis of unknown version") // the systems say so themselves when they start it
	}
	redis, _, _ = bytes.Cut(redis, []byte(" sha="))
	return strings.TrimSpace(string(redis)) + ", peers as in test/load/peers (go.mod, socketio/package-lock.json)"
}

// build builds the programs that the systems need.
func (e *environment) build(systems []kind, stderr io.Writer) error {
	command := func(folder, name string, args ...string) error {
		c := exec.Command(name, args...)
		c.Dir, c.Stdout, c.Stderr = filepath.Join(e.root, folder), stderr, stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
		}
		return nil
	}
	var errs []error
	need := func(is func(kind) bool) bool { return slices.ContainsFunc(systems, is) }
	if e.node == "" && need(func(k kind) bool { return k.name == "tideline" }) {
		e.node = filepath.Join(e.folder, "node")
		errs = append(errs, command(".", "go", "build", "-o", e.node, "./node"))
	}
	if need(func(k kind) bool { return k.name == "floor" || strings.HasPrefix(k.name, "centrifuge") }) {
		errs = append(errs, command("test/load/peers", "go", "build", "-o", filepath.Join(e.folder, "peers"), "."))
	}
	if need(func(k kind) bool { return k.name == "socketio" }) {
		errs = append(errs, command(".", "scripts/npm-ci", "test/load/peers/socketio"))
	}
	return errors.Join(errs...)
}

// measure runs every scenario for every system, in turns.
func (s *settings) measure(stderr io.Writer) (*results, error) {
	all := newResults()
	for round := range s.rounds {
		for _, g := range s.scenarios {
			earlier := figures{}
			for _, k := range s.systems {
				if slices.Contains(g.without, k.name) {
					continue
				}
				start := time.Now()
				f, err := g.run(&s.env, k, s.plan, earlier)
				if errors.Is(err, errBehind) { // something else ran on this machine; wrong deliveries are never tried again
					fmt.Fprintf(stderr, "round %d, %s, %s, once more: %v\n", round+1, g.name, k.name, err)
					f, err = g.run(&s.env, k, s.plan, earlier)
				}
				if err != nil {
					return all, fmt.Errorf("round %d, %s, %s: %w", round+1, g.name, k.name, err)
				}
				if k.name == "centrifuge" && f["max"] > 0 {
					earlier["half"] = f["max"] / 2
				}
				all.add(k.name, f)
				fmt.Fprintf(stderr, "round %d  %-6s %-18s %5.1fs ", round+1, g.name, k.name, time.Since(start).Seconds())
				for _, name := range slices.Sorted(maps.Keys(f)) {
					fmt.Fprintf(stderr, "  %s %.4g", name, f[name])
				}
				fmt.Fprintln(stderr)
			}
		}
	}
	return all, nil
}
