package document

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
)

//go:embed docs.html
var layout string

// spec is as much of an OpenAPI document as the page shows.
type spec struct {
	Info struct {
		Title, Version, Description string
	}
	Paths      map[string]map[string]operation
	Components struct {
		Schemas         map[string]schema
		SecuritySchemes map[string]struct{ Description string }
	}
}

type operation struct {
	OperationID, Summary, Description string
	Tags                              []string
	Parameters                        []struct {
		Name, In, Description string
		Required              bool
		Schema                schema
	}
	RequestBody struct {
		Content map[string]struct{ Schema schema }
	}
	Responses map[string]struct {
		Description string
		Content     map[string]struct{ Schema schema }
	}
	Security []map[string][]string
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Format, Description  string
	Pattern              string
	Enum                 []any
	Items                *schema
	Properties           map[string]schema
	Required             []string
	AdditionalProperties any
	Minimum, Maximum     *float64
	MinLength, MaxLength *int
	Default              any
}

// kind says in a few words what a value is.
func (s schema) kind() string {
	if s.Ref != "" {
		return s.Ref[strings.LastIndex(s.Ref, "/")+1:]
	}
	t := ""
	switch v := s.Type.(type) {
	case string:
		t = v
	case []any: // nullable
		var names []string
		for _, n := range v {
			names = append(names, fmt.Sprint(n))
		}
		t = strings.Join(names, " or ")
	}
	if s.Items != nil {
		t = "array of " + s.Items.kind()
	}
	if s.Format != "" {
		t += " (" + s.Format + ")"
	}
	return t
}

// limits says what a value may be.
func (s schema) limits() string {
	var out []string
	add := func(format string, v any) { out = append(out, fmt.Sprintf(format, v)) }
	for _, e := range s.Enum {
		add("%v", fmt.Sprintf("%q", e))
	}
	if s.Minimum != nil {
		add("at least %v", *s.Minimum)
	}
	if s.Maximum != nil {
		add("at most %v", fmt.Sprintf("%.0f", *s.Maximum))
	}
	if s.MinLength != nil {
		add("at least %v characters", *s.MinLength)
	}
	if s.MaxLength != nil {
		add("at most %v characters", *s.MaxLength)
	}
	if s.Pattern != "" {
		add("matches %v", s.Pattern)
	}
	if s.Default != nil {
		add("default %v", s.Default)
	}
	return strings.Join(out, ", ")
}

// row is one line of a table of parameters or properties.
type row struct {
	Name, Where, Kind, Limits, Description string
	Ref                                    string
	Required                               bool
}

func newRow(name, where string, s schema, required bool, description string) row {
	r := row{Name: name, Where: where, Kind: s.kind(), Limits: s.limits(), Description: description, Required: required}
	switch {
	case s.Ref != "":
		r.Ref = s.kind()
	case s.Items != nil && s.Items.Ref != "":
		r.Ref = s.Items.kind()
	}
	if r.Description == "" {
		r.Description = s.Description
	}
	return r
}

// entry is one operation on the page.
type entry struct {
	ID, Method, Path, Summary, Description, Access, BodyRef string
	Parameters                                              []row
	Responses                                               []row
}

type group struct {
	Name       string
	Operations []entry
}

type object struct {
	Name, Description string
	Rows              []row
}

// Page makes the page to read the document in. It is made when the document is, and not where it is served: html/template calls methods by name, which
// makes the linker keep every method there is and doubles the size of a function.
func Page(document []byte) ([]byte, error) {
	var s spec
	if err := json.Unmarshal(document, &s); err != nil {
		return nil, fmt.Errorf("read OpenAPI document: %w", err)
	}
	t, err := template.New("docs").Funcs(template.FuncMap{"prose": prose}).Parse(layout)
	if err != nil {
		return nil, fmt.Errorf("parse page: %w", err)
	}
	var out bytes.Buffer
	err = t.Execute(&out, map[string]any{"Info": s.Info, "Groups": groups(s), "Objects": objects(s), "Style": "/api/docs/style.css", "Document": "/api/openapi.json"})
	return out.Bytes(), err
}

// methods in the order in which they are shown.
var methods = []string{"get", "post", "put", "patch", "delete"}

func groups(s spec) []group {
	byTag := map[string]*group{}
	for _, path := range slices.Sorted(maps.Keys(s.Paths)) {
		for _, method := range methods {
			op, ok := s.Paths[path][method]
			if !ok {
				continue
			}
			tag := "other"
			if len(op.Tags) > 0 {
				tag = op.Tags[0]
			}
			if byTag[tag] == nil {
				byTag[tag] = &group{Name: tag}
			}
			byTag[tag].Operations = append(byTag[tag].Operations, newEntry(method, path, op))
		}
	}
	var out []group
	for _, tag := range slices.Sorted(maps.Keys(byTag)) {
		out = append(out, *byTag[tag])
	}
	return out
}

func newEntry(method, path string, op operation) entry {
	e := entry{ID: op.OperationID, Method: strings.ToUpper(method), Path: path, Summary: op.Summary, Description: op.Description}
	var access []string
	for _, s := range op.Security {
		access = append(access, slices.Sorted(maps.Keys(s))...)
	}
	e.Access = strings.Join(access, " or ")
	for _, p := range op.Parameters {
		e.Parameters = append(e.Parameters, newRow(p.Name, p.In, p.Schema, p.Required, p.Description))
	}
	for _, c := range op.RequestBody.Content {
		e.BodyRef = c.Schema.kind()
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := row{Name: status, Description: op.Responses[status].Description}
		for _, c := range op.Responses[status].Content {
			r.Ref = c.Schema.kind()
		}
		e.Responses = append(e.Responses, r)
	}
	return e
}

func objects(s spec) []object {
	var out []object
	for _, name := range slices.Sorted(maps.Keys(s.Components.Schemas)) {
		c := s.Components.Schemas[name]
		o := object{Name: name, Description: c.Description}
		for _, p := range slices.Sorted(maps.Keys(c.Properties)) {
			o.Rows = append(o.Rows, newRow(p, "", c.Properties[p], slices.Contains(c.Required, p), ""))
		}
		out = append(out, o)
	}
	return out
}

// prose shows what stands between backquotes as code. The text is escaped first.
func prose(text string) template.HTML {
	parts := strings.Split(template.HTMLEscapeString(text), "`")
	var b strings.Builder
	for i, p := range parts {
		if i%2 == 1 && i < len(parts)-1 {
			p = "<code>" + p + "</code>"
		}
		b.WriteString(p)
	}
	return template.HTML(b.String())
}
