// Package leak fails tests that leave goroutines behind, once these have had the time that a busy machine takes to end them.
package leak

import (
	"fmt"
	"os"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end. goleak by itself gives them less than half a second.
const patience = 20 * time.Second

// Main runs the tests of a package and ends the process; what is given runs before goroutines are counted.
func Main(m interface{ Run() int }, before ...func()) {
	code := m.Run()
	for _, f := range before {
		f()
	}
	if code == 0 {
		if err := find(patience); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// find answers nil as soon as no goroutine is left, or which ones are after a time. The SDK's timers for commands that it has given up live for its
// read timeout, also after Close: they are no leak.
func find(within time.Duration) (err error) {
	for deadline := time.Now().Add(within); ; {
		err = goleak.Find(goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge-go.(*Client).sendAsync.func1"))
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
