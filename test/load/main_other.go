//go:build !linux

// Command load measures what a Tideline node costs. It needs Linux: epoll, and what /proc tells of a process.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "load: this needs Linux")
	os.Exit(1)
}
