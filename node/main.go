// Command node is one Tideline node: it holds sockets, serves the page, and hears of everything through Redis.
//
// Settings come from the environment (node --help lists them). SIGTERM drains; a second SIGTERM ends at once.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"tideline/node/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// From the first signal on, signals have their default effect again: the second one ends the process.
	context.AfterFunc(ctx, stop)
	if err := server.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "node: %v\n", err)
		os.Exit(1)
	}
}
