package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"tideline/shared/trace"
)

// Main is the command: it reads args and the environment, and runs a node until ctx ends and the drain is over.
func Main(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("node", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {}
	version := flags.Bool("version", false, "print the version")
	help := flags.Bool("help", false, "list the settings")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w; try --help", err)
	}
	switch {
	case *help:
		Help(stdout)
		return nil
	case *version:
		fmt.Fprintln(stdout, "tideline", Version())
		return nil
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q; settings come from the environment, see --help", flags.Arg(0))
	}
	config, err := ParseConfig(getenv)
	if err != nil {
		return fmt.Errorf("settings:\n  %s\nnode --help lists them", strings.ReplaceAll(err.Error(), "\n", "\n  "))
	}
	log := config.Logger(stdout)
	public, private, err := listen(ctx, config)
	if err != nil {
		return err
	}
	tuneCollector(getenv)
	n, err := Open(ctx, config, public, private, log)
	if err != nil {
		return errors.Join(err, public.Close(), private.Close())
	}
	return n.Run(ctx)
}

// Interrupted answers a context that ends with the first SIGINT or SIGTERM. The second one calls exit with 1: at once, from wherever
// the process hangs. It takes the process's signals for good; only a main calls it.
func Interrupted(exit func(code int)) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // as long as the process
		<-signals
		cancel()
		<-signals
		exit(1)
	}()
	return ctx
}

// Logger writes what the settings ask for, every line with the node's name.
func (c Config) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	var h slog.Handler = slog.NewJSONHandler(w, options)
	if c.LogText {
		h = slog.NewTextHandler(w, options)
	}
	return slog.New(trace.LogHandler(h)).With("node", c.NodeID)
}

func listen(ctx context.Context, c Config) (public, private net.Listener, err error) {
	if public, err = listenConfig.Listen(ctx, "tcp", c.Public); err != nil {
		return nil, nil, fmt.Errorf("PORT: %w", err)
	}
	if private, err = listenConfig.Listen(ctx, "tcp", c.Private); err != nil {
		public.Close()
		return nil, nil, fmt.Errorf("PRIVATE_PORT: %w", err)
	}
	return public, private, nil
}

// version is set by release builds: -ldflags "-X tideline/node/server.version=…".
var version string

// Version is the release, or what the Go toolchain knows of the commit.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
