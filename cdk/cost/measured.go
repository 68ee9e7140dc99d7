package cost

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// perNodeRow is the row of docs/benchmarks.md that says how many connections a node held in the measurement.
var perNodeRow = regexp.MustCompile(`(?m)^\| connections per node \| ([0-9][0-9,]*) \|`)

// Measured reads the connections per node from docs/benchmarks.md at path.
func Measured(path string) (float64, error) {
	page, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%s is not there: make bench writes it; or say PER_NODE=", path)
	}
	if err != nil {
		return 0, fmt.Errorf("connections per node: %w", err)
	}
	rows := perNodeRow.FindAllSubmatch(page, -1)
	if len(rows) != 1 {
		return 0, fmt.Errorf("%s has %d rows of connections per node, one is wanted: run make bench again, or say PER_NODE=", path, len(rows))
	}
	n, err := strconv.ParseFloat(strings.ReplaceAll(string(rows[0][1]), ",", ""), 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s: %s connections per node", path, rows[0][1])
	}
	return n, nil
}
