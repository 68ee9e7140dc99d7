// Command chatter is what the tests' containers run: it writes numbered lines to both of its streams until it is told to stop.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	every := flag.Duration("every", 20*time.Millisecond, "between lines; 0 writes them as fast as it goes")
	count := flag.Int("count", 0, "lines to write; 0 goes on")
	long := flag.Int("long", 0, "bytes of a line that is written first")
	first := flag.String("first", "", "a line that is written first")
	streams := flag.Int("streams", 2, "1 writes to stdout alone")
	flag.Parse()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if *long > 0 {
		fmt.Println(strings.Repeat("x", *long))
	}
	if *first != "" {
		fmt.Println(*first)
	}
	// Two streams are two pipes: in which order the engine sees lines that are written close together is its own business.
	out := []*bufio.Writer{bufio.NewWriter(os.Stdout), bufio.NewWriter(os.Stderr)}[:*streams]
	for i := 0; *count == 0 || i < *count; i++ {
		w := out[i%len(out)]
		fmt.Fprintf(w, "n=%d\n", i)
		if *every > 0 {
			_ = w.Flush() // nobody to tell
		}
		select {
		case <-stop:
			os.Exit(0)
		default:
		}
		if *every > 0 {
			time.Sleep(*every)
		}
	}
	for _, w := range out {
		_ = w.Flush()
	}
	<-stop
}
