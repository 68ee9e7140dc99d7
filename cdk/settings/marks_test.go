package settings

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestMarksKeepTheLastDeploymentsNewestFirst(t *testing.T) {
	at := time.Date(2026, 11, 22, 18, 30, 0, 0, time.FixedZone("", 3600))
	var m Marks
	for i, version := range []string{"v1", "v2", "v3", "v4", "v5", "feature/x y", strings.Repeat("v", 60), ""} {
		m = ParseMarks(m.Add(at.Add(time.Duration(i)*time.Hour), version).String())
		if want := min(i+1, MarksKept); len(m) != want {
			t.Fatalf("%d marks after %d deployments", len(m), i+1)
		}
		if !regexp.MustCompile(MarksPattern).MatchString(m.String()) {
			t.Errorf("CloudFormation would refuse %q", m)
		}
	}
	want := []string{"2026-11-23T00:30:00Z unversioned", "2026-11-22T23:30:00Z " + strings.Repeat("v", 40), "2026-11-22T22:30:00Z feature-x-y"}
	for i, w := range want {
		if m[i] != w {
			t.Errorf("mark %d is %q, want %q", i, m[i], w)
		}
	}
}

func TestMarksThatAreNoneOfOursAreNone(t *testing.T) {
	for _, s := range []string{"", "x", Marks{}.String(), Marks{}.String() + ",", strings.TrimSuffix(Marks{}.String(), noMark), `2026-11-22T18:30:00Z "},` + Marks{}.String()} {
		if m := ParseMarks(s); len(m) != 0 {
			t.Errorf("%q: %v", s, m)
		}
	}
}
