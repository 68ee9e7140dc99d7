package stream

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var fieldRow = regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|")

// docs/protocol.md says what a line has, and the limits, as the code does.
func TestProtocolPageLines(t *testing.T) {
	raw, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(raw), "\n## Streams\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, table, there := strings.Cut(section, "| field | meaning |")
	if !found || !there {
		t.Fatal("no section about streams, or no table of fields in it")
	}
	var told, has []string
	for _, m := range fieldRow.FindAllStringSubmatch(table, -1) {
		told = append(told, m[1])
	}
	for f := range reflect.TypeFor[line]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		has = append(has, name)
	}
	if !slices.Equal(told, has) {
		t.Errorf("the page tells of %v, a line has %v", told, has)
	}
	for _, text := range []string{
		fmt.Sprintf("more than %d,%03d bytes", LineBytes/1000, LineBytes%1000),
		fmt.Sprintf("faster than %d a second", LinesPerSecond), fmt.Sprintf("after %d,%03d at once", LinesBurst/1000, LinesBurst%1000),
	} {
		if !strings.Contains(section, text) {
			t.Errorf("the page does not say %q", text)
		}
	}
}
