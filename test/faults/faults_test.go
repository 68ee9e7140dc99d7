// Package faults breaks a running Tideline and counts what its subscribers were owed, what they got, and what they were told.
//
// Every scenario is real node processes, real redis-servers and thousands of sockets. Publishers record what Redis acknowledged and
// at which position; each subscriber checks by itself that positions continue. The verdict compares the two: a publication that a
// subscriber was owed has arrived exactly once and in order, or the subscriber was told (recovered: false) that it would not.
// Each scenario prints one line of counts. docs/guarantees.md says which one proves what.
package faults

import (
	"flag"
	"os"
	"strconv"
	"testing"
	"time"

	"tideline/test/fleet"
	"tideline/test/leak"
)

// long makes the scenarios with a length of their own as long as the promise names them: make soak. The short lengths keep the folder
// under five minutes on two cores.
var long = os.Getenv("FAULTS_LONG") != ""

// pick answers the length of a scenario.
func pick(short, soak time.Duration) time.Duration {
	if long {
		return soak
	}
	return short
}

// crowd scales a number of clients: with the race detector in every process a machine holds about a fifth of the load.
func crowd(n int) int {
	if raceEnabled {
		return n / 5
	}
	return n
}

// atOnce is how many scenarios run together: most of the time they wait. go test's own default is one a core.
const atOnce = 6

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
			panic(err) // the flag is go test's own
		}
	}
	leak.Main(m, fleet.RemoveBinaries)
}
