// Command local runs all of Tideline in one process: Redis, store, functions, nodes, and a load balancer in front of them.
//
// It is the real code in the real arrangement; only Redis and the store are embedded, and the load balancer is a stand-in.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"tideline/node/server"
)

func main() {
	ctx := server.Interrupted(os.Exit)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case err != nil:
		fmt.Fprintf(os.Stderr, "local: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n       "))
		os.Exit(1)
	}
}
