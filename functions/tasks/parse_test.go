package tasks

import (
	"errors"
	"testing"

	"tideline/shared/todo"
)

// FuzzParse: whatever a file holds, it is refused as a whole, or each row is a todo or has a problem, and lines count upwards.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"title,done\na,true\n", "\xef\xbb\xbftitle\n\"x\ny\"\n", "title\n\"", "title,note\na,b,c\n", ""} {
		f.Add(true, s)
	}
	for _, s := range []string{`[{"title":"x"}]`, "[\n{},\n{\"title\":1}]", "[[[[", `[null,7,"x"]`, `[{"title":"a","title":"b"}]`, "[] []"} {
		f.Add(false, s)
	}
	f.Fuzz(func(t *testing.T, isCSV bool, raw string) {
		format := todo.JSON
		if isCSV {
			format = todo.CSV
		}
		rows, err := parse(format, []byte(raw))
		var refused *fileError
		if err != nil && (!errors.As(err, &refused) || refused.code == "" || refused.detail == "") {
			t.Fatalf("%q: %v", raw, err)
		}
		line := 1
		for _, r := range rows {
			if r.line < line {
				t.Errorf("%q: line %d after %d", raw, r.line, line)
			}
			line = r.line
			if r.problem != "" {
				continue
			}
			if c, err := r.content.Clean(); err != nil || !c.Equal(r.content) {
				t.Errorf("%q: row %+v is not clean: %v", raw, r, err)
			}
		}
	})
}
