package todos

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"tideline/functions/api"
	"tideline/shared/todo"
)

func etag(t todo.Todo) string { return `"` + strconv.FormatUint(t.Version, 10) + `"` }

// tags is a parsed If-Match or If-None-Match.
type tags struct {
	any      bool
	versions []uint64
}

func (t tags) holds(version uint64) bool {
	if t.any {
		return true
	}
	for _, v := range t.versions {
		if v == version {
			return true
		}
	}
	return false
}

// parseTags reads a list of entity tags. Weak ones count like strong ones, since a CDN that compresses weakens them on the way; a
// tag that is no version of ours matches nothing. A header that is no list of tags is an error.
func parseTags(header, name string) (tags, error) {
	var t tags
	header = strings.TrimSpace(header)
	if header == "" {
		return t, nil
	}
	if header == "*" {
		return tags{any: true}, nil
	}
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if len(part) < 2 || part[0] != '"' || part[len(part)-1] != '"' {
			return t, api.Problem(http.StatusBadRequest, api.CodeInvalidRequest, "The header "+name+` must be * or a list of quoted versions, like "3".`)
		}
		v, err := strconv.ParseUint(part[1:len(part)-1], 10, 64)
		if err != nil {
			v = 0 // no todo has it
		}
		t.versions = append(t.versions, v)
	}
	return t, nil
}

func match(ifMatch, ifNoneMatch string) (todo.Match, error) {
	t, err := parseTags(ifMatch, "If-Match")
	if err != nil {
		return todo.Match{}, err
	}
	return todo.Match{Versions: t.versions, Exists: t.any, Absent: ifNoneMatch == "*"}, nil
}

// optional is a field of a merge patch: absent, null, or a value.
type optional[T any] struct {
	set   bool
	value *T // nil: null
}

// UnmarshalJSON implements json.Unmarshaler; encoding/json calls it for null too, and not for an absent field.
func (o *optional[T]) UnmarshalJSON(b []byte) error {
	o.set = true
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	o.value = new(T)
	return json.Unmarshal(b, o.value)
}

// Schema implements huma.SchemaProvider.
func (o optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := *r.Schema(reflect.TypeFor[T](), true, "")
	s.Nullable = true
	return &s
}
