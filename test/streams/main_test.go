// Package streams has the tests of streams with one producer: real node processes, a real Docker Engine, a real Redis.
package streams

import (
	"os"
	"testing"

	"tideline/test/fleet"
)

func TestMain(m *testing.M) {
	code := m.Run()
	fleet.RemoveBinaries()
	os.Exit(code)
}
