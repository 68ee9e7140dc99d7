package bus

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"tideline/shared/limit"
	"tideline/shared/trace"
)

// A trace goes along with what it causes, and never keeps it from being published.
func TestPublishTakesTheTraceAlong(t *testing.T) {
	t.Parallel()
	const given, other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-11111111111111111111111111111111-2222222222222222-01"
	b := openTest(t, Options{URL: "redis://" + miniredis.RunT(t).Addr()})
	room := limit.TagsBytes - trace.TagBytes - 1
	large := &ClientInfo{User: strings.Repeat("u", headerBytes-120)}
	for _, c := range []struct {
		name   string
		parent string
		tags   map[string]string
		info   *ClientInfo
		want   string
	}{
		{"none", "", nil, nil, ""},
		{"sampled", given, nil, nil, given},
		{"not sampled", strings.TrimSuffix(given, "1") + "0", nil, nil, ""},
		{"beside others", given, map[string]string{"a": "b"}, nil, given},
		{"the publisher's own", given, map[string]string{trace.Tag: other}, nil, other},
		{"the last byte of the tags", given, map[string]string{"a": strings.Repeat("x", room)}, nil, given},
		{"a byte more", given, map[string]string{"a": strings.Repeat("x", room+1)}, nil, ""},
		{"a header that is nearly full", given, nil, large, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := maps.Clone(c.tags)
			p := text("chat:trace", "%s", c.name)
			p.Tags, p.Info = c.tags, c.info
			res, err := b.Publish(trace.From(context.Background(), c.parent), p)
			if err != nil {
				t.Fatal(err)
			}
			pubs, _, err := b.History(t.Context(), "chat:trace", Page{Limit: 1, Reverse: true})
			if err != nil || len(pubs) != 1 || pubs[0].Offset != res.Position.Offset {
				t.Fatalf("%+v, %v", pubs, err)
			}
			if got := pubs[0].Tags[trace.Tag]; got != c.want {
				t.Errorf("tag %q, want %q", got, c.want)
			}
			if !maps.Equal(c.tags, before) {
				t.Error("the caller's tags were changed")
			}
			delete(pubs[0].Tags, trace.Tag)
			delete(before, trace.Tag)
			if !maps.Equal(pubs[0].Tags, before) {
				t.Errorf("other tags %v", pubs[0].Tags)
			}
		})
	}
}
