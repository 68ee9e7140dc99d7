// Command node is one Tideline node: it holds sockets, serves the page, and hears of everything through Redis.
//
// Settings come from the environment (node --help lists them). SIGTERM drains; a second SIGTERM ends at once.
package main

import (
	"fmt"
	"os"

	"tideline/node/server"
)

func main() {
	ctx := server.Interrupted(os.Exit)
	if err := server.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "node: %v\n", err)
		os.Exit(1)
	}
}
