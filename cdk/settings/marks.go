package settings

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// MarksParameter is the stack's parameter that holds the Marks.
const MarksParameter = "Deployments"

// MarksKept is how many deployments the dashboard marks.
const MarksKept = 5

// MarksPattern is what the parameter takes: MarksKept times and versions.
const MarksPattern = `^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [A-Za-z0-9._-]{1,40},){4}\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [A-Za-z0-9._-]{1,40}$`

var (
	marksPattern    = regexp.MustCompile(MarksPattern)
	notInAMark      = regexp.MustCompile(`[^A-Za-z0-9._-]`)
	longestMarkName = 40
)

// long before any dashboard's window: a list that is not full yet is filled up with it.
const noMark = "2000-01-01T00:00:00Z none"

// Marks are the last deployments, newest first: each a time and a version. The zero value is none.
type Marks []string

// ParseMarks reads what a stack's parameter holds; anything else, such as nothing, is no marks.
func ParseMarks(parameter string) Marks {
	if !marksPattern.MatchString(parameter) {
		return nil
	}
	var m Marks
	for mark := range strings.SplitSeq(parameter, ",") {
		if mark != noMark {
			m = append(m, mark)
		}
	}
	return m
}

// Add puts a deployment before the others. What a version may not hold in a mark becomes '-'.
func (m Marks) Add(at time.Time, version string) Marks {
	version = notInAMark.ReplaceAllString(version, "-")
	if version == "" {
		version = "unversioned"
	}
	all := append(Marks{fmt.Sprintf("%s %.*s", at.UTC().Format(time.RFC3339), longestMarkName, version)}, m...)
	return all[:min(len(all), MarksKept)]
}

// String is the parameter's value.
func (m Marks) String() string {
	all := append([]string{}, m...)
	for len(all) < MarksKept {
		all = append(all, noMark)
	}
	return strings.Join(all, ",")
}
