package tasks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tideline/functions/tasks"
	"tideline/functions/tasks/dirfiles"
	"tideline/shared/bus"
	"tideline/shared/todo"
	"tideline/shared/todo/bolt"
	"tideline/shared/token"
	"tideline/test/leak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("TASKS_WORKER"); path != "" {
		os.Exit(child(path))
	}
	leak.Main(m)
}

// recorder is a bus that keeps what is published, once per id as the real one does, or is away.
type recorder struct {
	mu   sync.Mutex
	pubs []bus.Publication
	ids  map[string]bool
	away bool
}

func (r *recorder) Publish(_ context.Context, p bus.Publication) (bus.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away {
		return bus.Result{}, bus.ErrUnavailable
	}
	if r.ids == nil {
		r.ids = map[string]bool{}
	}
	if r.ids[p.ID] {
		return bus.Result{Duplicate: true}, nil
	}
	r.ids[p.ID] = true
	r.pubs = append(r.pubs, p)
	return bus.Result{}, nil
}

func (r *recorder) setAway(away bool) { r.mu.Lock(); r.away = away; r.mu.Unlock() }

// types answers what was published for the user, in order, with runs of progress shortened to one.
func (r *recorder) types(t *testing.T, user string) []string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, p := range r.pubs {
		var e struct {
			Type string
			Task *todo.Task
		}
		if err := json.Unmarshal(p.Data, &e); err != nil {
			t.Fatal(err)
		}
		if p.History.Size == 0 {
			t.Errorf("%s is published without history", e.Type)
		}
		if p.Channel != "user:#"+user && p.Channel != "todos:#"+user || e.Type == "task.progress" && len(out) > 0 && out[len(out)-1] == e.Type {
			continue
		}
		out = append(out, e.Type)
	}
	return out
}

// place is the API on a real HTTP server, with a bbolt store and a folder of files.
type place struct {
	t     *testing.T
	url   string
	db    string
	store *bolt.Store
	files *dirfiles.Dir
	bus   *recorder
	sign  *token.Secrets
	now   func() time.Time
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, bus: &recorder{}, db: filepath.Join(t.TempDir(), "db"), now: time.Now}
	p.openStore()
	var err error
	if p.files, err = dirfiles.New(filepath.Join(filepath.Dir(p.db), "files"), []byte(strings.Repeat("f", 32)), nil); err != nil {
		t.Fatal(err)
	}
	if p.sign, err = token.NewSecrets([]string{strings.Repeat("s", 32)}, nil); err != nil {
		t.Fatal(err)
	}
	h, err := tasks.New(tasks.Options{Store: p.store, Files: p.files, Publisher: p.bus, Verifier: p.sign})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	p.url = server.URL
	return p
}

func (p *place) openStore() (closeNow func()) {
	p.t.Helper()
	db, err := bbolt.Open(p.db, 0o600, &bbolt.Options{NoSync: true, Timeout: 10 * time.Second})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { db.Close() })
	if p.store, err = bolt.New(db, nil); err != nil {
		p.t.Fatal(err)
	}
	return func() { db.Close() }
}

func (p *place) worker(store tasks.Store, alone bool) *tasks.Worker {
	p.t.Helper()
	w, err := tasks.NewWorker(tasks.WorkerOptions{Store: store, Files: p.files, Publisher: p.bus, Alone: alone, Now: func() time.Time { return p.now() }})
	if err != nil {
		p.t.Fatal(err)
	}
	return w
}

// work runs the local queue until the test ends.
func (p *place) work() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tasks.Local{Store: p.store, Worker: p.worker(p.store, true)}.Run(ctx) }()
	p.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
}

type answer struct {
	todo.Task
	Download *tasks.Link
}

func (p *place) call(user, method, path string, body any, status int) []byte {
	p.t.Helper()
	var raw []byte
	if body != nil {
		raw, _ = json.Marshal(body)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, bytes.NewReader(raw))
	if err != nil {
		p.t.Fatal(err)
	}
	bearer, err := p.sign.Sign(token.Claims{User: user, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status {
		p.t.Fatalf("%s %s %.200s: %d %s (%v), want %d", method, path, raw, res.StatusCode, out, err, status)
	}
	return out
}

func (p *place) task(raw []byte) (a answer) {
	p.t.Helper()
	if err := json.Unmarshal(raw, &a); err != nil {
		p.t.Fatalf("%s: %v", raw, err)
	}
	return a
}

func (p *place) start(user string, body map[string]any) answer {
	p.t.Helper()
	a := p.task(p.call(user, "POST", "/api/tasks", body, 202))
	if a.State != todo.Queued || a.Version != 1 {
		p.t.Errorf("started as %+v", a.Task)
	}
	return a
}

// wait polls until the task has ended.
func (p *place) wait(user, id string) answer {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if a := p.task(p.call(user, "GET", "/api/tasks/"+id, nil, 200)); a.State.Final() {
			return a
		}
	}
	p.t.Fatal("the task does not end")
	return answer{}
}

// published waits until these were published for the user: a task's end is stored first.
func (p *place) published(user string, want ...string) {
	p.t.Helper()
	got := p.bus.types(p.t, user)
	for deadline := time.Now().Add(30 * time.Second); len(got) < len(want) && time.Now().Before(deadline); got = p.bus.types(p.t, user) {
		time.Sleep(time.Millisecond)
	}
	if !slices.Equal(got, want) {
		p.t.Errorf("published %v", got)
	}
}

func (p *place) download(l *tasks.Link) string {
	p.t.Helper()
	if l == nil {
		p.t.Fatal("no link to download")
	}
	res, err := http.Get(p.url + l.URL)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Disposition"), "attachment; filename=todos-") {
		p.t.Fatalf("download: %d %v %v", res.StatusCode, res.Header, err)
	}
	return string(raw)
}

func (p *place) titles(user string) []string {
	p.t.Helper()
	page, err := p.store.List(p.t.Context(), user, todo.Query{Limit: todo.PerUser + 1})
	if err != nil {
		p.t.Fatal(err)
	}
	out := []string{}
	for _, i := range page.Items {
		out = append(out, i.Title)
	}
	return out
}

func TestImportAndExportRoundTrip(t *testing.T) {
	p := newPlace(t)
	p.work()
	for _, f := range []string{"csv", "json"} {
		user := "ann-" + f
		csv := "title,done,note,dueAt\r\nmilk,false,,\r\n\"a \"\"quoted\"\", comma\",TRUE,\"two\nlines\",2030-01-02T03:04:05Z\r\n"
		a := p.wait(user, p.start(user, map[string]any{"kind": "import", "format": "csv", "data": csv}).ID)
		if a.State != todo.Completed || a.Done != 2 || a.Total != 2 || a.Created != 2 || a.Skipped != 0 {
			t.Fatalf("import ended as %+v", a.Task)
		}
		first := p.download(p.wait(user, p.start(user, map[string]any{"kind": "export", "format": f}).ID).Download)
		// What was exported is imported by another user and exported again: the same, but for ids and times.
		other := user + "2"
		if a := p.wait(other, p.start(other, map[string]any{"kind": "import", "format": f, "data": first}).ID); a.Created != 2 {
			t.Fatalf("import of the export: %+v %v", a.Task, a.Errors)
		}
		for _, u := range []string{user, other} {
			page, err := p.store.List(t.Context(), u, todo.Query{Limit: 10})
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Items) != 2 || page.Items[0].Title != "milk" || page.Items[1].Title != `a "quoted", comma` || page.Items[1].Note != "two\nlines" ||
				!page.Items[1].Done || page.Items[1].DueAt.Format(time.RFC3339) != "2030-01-02T03:04:05Z" {
				t.Errorf("%s: %+v", u, page.Items)
			}
		}
		p.published(other, "task.created", "task.progress", "todos.changed", "task.completed")
	}
	// An empty list exports too.
	for f, want := range map[string]string{"json": "[]\n", "csv": "id,title,note,done,dueAt,createdAt,updatedAt\n"} {
		if got := p.download(p.wait("empty", p.start("empty", map[string]any{"kind": "export", "format": f}).ID).Download); got != want {
			t.Errorf("empty %s export %q", f, got)
		}
	}
	if a := p.wait("empty", p.start("empty", map[string]any{"kind": "import", "format": "json", "data": "[]"}).ID); a.State != todo.Completed {
		t.Errorf("import of nothing: %+v", a.Task)
	}
}

func TestBadRowsAreReportedByLineAndTheRestIsImported(t *testing.T) {
	p := newPlace(t)
	p.work()
	csv := "title,done\na,false\n\"multi\nline\",true\n,false\nb,perhaps\nc,true,extra\nx\"y,true\n" + strings.Repeat("l", 501) + ",\nz,\n"
	a := p.wait("ann", p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": csv}).ID)
	if a.State != todo.Completed || a.Created != 2 || a.Skipped != 6 || a.Total != 8 {
		t.Errorf("ended as %+v", a.Task)
	}
	var got []string
	for _, e := range a.Errors {
		got = append(got, fmt.Sprintf("%d@%d %s", e.Row, e.Line, e.Problem))
	}
	want := []string{"2@3 title: must not have control characters", "3@5 title: must not be empty", `4@6 done: "perhaps" is neither true nor false`,
		"5@7 wrong number of fields", `6@8 bare " in non-quoted-field`, "7@9 title: has 501 characters, at most 500"}
	if !slices.Equal(got, want) {
		t.Errorf("errors\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	jsonFile := "[\n {\"title\":\"j1\"},\n {\"title\":7},\n {\"name\":\"x\"},\n \"text\",\n {\"title\":\"a\",\n  \"title\":\"b\"},\n {\"title\":\"j2\",\"dueAt\":\"soon\"}]"
	a = p.wait("bob", p.start("bob", map[string]any{"kind": "import", "format": "json", "data": jsonFile}).ID)
	got = nil
	for _, e := range a.Errors {
		got = append(got, fmt.Sprintf("%d@%d %s", e.Row, e.Line, e.Problem))
	}
	want = []string{"2@3 title: must not be a number", `3@4 unknown field "name"`, "4@5 must be an object", `5@6 the key "title" appears twice`,
		"6@8 dueAt: must be a time like 2030-12-31T18:00:00Z"}
	if !slices.Equal(got, want) || a.Created != 1 {
		t.Errorf("errors\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFilesThatCanNotBeImported(t *testing.T) {
	p := newPlace(t)
	p.work()
	for _, c := range []struct{ format, data, code string }{
		{"csv", "", "bad-file"},
		{"csv", "name\nx\n", "bad-file"},
		{"csv", "title,title\nx,y\n", "bad-file"},
		{"csv", "note\nx\n", "bad-file"},
		{"json", "", "bad-file"},
		{"json", `{"title":"x"}`, "bad-file"},
		{"json", `[{"title":"x"}`, "bad-file"},
		{"json", `[{"title":"x"}] x`, "bad-file"},
		{"json", `[{"title":}]`, "bad-file"},
		{"csv", "title\n" + strings.Repeat("x\n", tasks.Rows+1), "too-many-rows"},
		{"json", "[" + strings.Repeat("{},", tasks.Rows) + "{}]", "too-many-rows"},
	} {
		a := p.wait("ann", p.start("ann", map[string]any{"kind": "import", "format": c.format, "data": c.data}).ID)
		if a.State != todo.Failed || a.Error == nil || a.Error.Code != c.code || a.Error.Detail == "" || a.Created != 0 {
			t.Errorf("%s %.30q: %+v %+v, want %s", c.format, c.data, a.Task, a.Error, c.code)
		}
	}
	if got := p.titles("ann"); len(got) != 0 {
		t.Errorf("%d todos were imported", len(got))
	}
	a := p.wait("ann", p.start("ann", map[string]any{"kind": "import", "format": "json", "upload": "6f1c9d52-5b8e-4a39-9a39-1f9f8f2f1c11"}).ID)
	if a.Error == nil || a.Error.Code != "no-file" {
		t.Errorf("import of an upload that never was: %+v", a.Error)
	}
}

func TestUploadByLinkOfTheLargestImport(t *testing.T) {
	p := newPlace(t)
	p.work()
	var file strings.Builder
	file.WriteString("title,note\n")
	for n := range tasks.Rows {
		fmt.Fprintf(&file, "row %d,%s\n", n+1, strings.Repeat("n", 300))
	}
	var up struct {
		ID   string
		Link tasks.Link
	}
	if err := json.Unmarshal(p.call("ann", "POST", "/api/tasks/uploads", map[string]any{"format": "csv", "bytes": file.Len()}, 201), &up); err != nil {
		t.Fatal(err)
	}
	put := func(url, method, body string) int {
		req, _ := http.NewRequestWithContext(t.Context(), method, p.url+url, strings.NewReader(body))
		req.Header.Set("Expect", "100-continue") // a body that is refused isn't sent: its answer could get lost in a connection that is closed
		for k, v := range up.Link.Headers {
			req.Header.Set(k, v)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if s := put(up.Link.URL, up.Link.Method, file.String()+"x"); s != 400 {
		t.Errorf("one byte more than announced: %d", s)
	}
	if s := put(strings.Replace(up.Link.URL, "bytes=", "bytes=1", 1), "PUT", "x"); s != 403 {
		t.Errorf("another size than was signed: %d", s)
	}
	if s := put(up.Link.URL, "GET", ""); s != 403 {
		t.Errorf("a link to upload, used to fetch: %d", s)
	}
	if s := put(up.Link.URL, up.Link.Method, file.String()); s != 204 {
		t.Fatalf("upload: %d", s)
	}
	// Another user can't import it.
	if a := p.wait("bob", p.start("bob", map[string]any{"kind": "import", "format": "csv", "upload": up.ID}).ID); a.Error == nil || a.Error.Code != "no-file" {
		t.Errorf("another user's upload: %+v %+v", a.Task, a.Error)
	}
	a := p.wait("ann", p.start("ann", map[string]any{"kind": "import", "format": "csv", "upload": up.ID}).ID)
	if a.State != todo.Completed || a.Created != tasks.Rows || a.Done != tasks.Rows {
		t.Errorf("ended as %+v", a.Task)
	}
	if got := p.titles("ann"); len(got) != tasks.Rows || got[0] != "row 1" || got[tasks.Rows-1] != fmt.Sprint("row ", tasks.Rows) {
		t.Errorf("%d todos, the first %q", len(got), got[0])
	}
	p.published("ann", "task.created", "task.progress", "todos.changed", "task.completed")
	pending, err := p.store.Pending(t.Context(), 10)
	if err != nil || len(pending) != 0 {
		t.Errorf("%d events of single rows, %v", len(pending), err)
	}
}

func TestExpiredAndForgedLinks(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	d, err := dirfiles.New(dir, []byte(strings.Repeat("f", 32)), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Put(t.Context(), "exports/x/y.json", "application/json", 2, strings.NewReader("[]")); err != nil {
		t.Fatal(err)
	}
	l, err := d.DownloadLink(t.Context(), "exports/x/y.json", "application/json", "t.json", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	get := func(url string) int {
		rec := httptest.NewRecorder()
		d.ServeHTTP(rec, httptest.NewRequest("GET", url, nil))
		return rec.Code
	}
	if s := get(l.URL); s != 200 {
		t.Errorf("valid link: %d", s)
	}
	for _, bad := range []string{
		strings.Replace(l.URL, "y.json", "z.json", 1), strings.Replace(l.URL, "expires=1", "expires=2", 1), strings.Replace(l.URL, "application%2Fjson", "text%2Fhtml", 1),
		strings.Split(l.URL, "?")[0], l.URL + "&extra=1", strings.Replace(l.URL, "exports/x/", "exports/../exports/x/", 1),
	} {
		if s := get(bad); s != 403 {
			t.Errorf("%s: %d, want 403", bad, s)
		}
	}
	now = l.Expires.Add(-time.Nanosecond)
	if s := get(l.URL); s != 200 {
		t.Errorf("in its last moment: %d", s)
	}
	now = l.Expires
	if s := get(l.URL); s != 403 {
		t.Errorf("expired: %d", s)
	}
	for _, key := range []string{"", "/etc/passwd", "../x", "a/../../x", "a//b", "."} {
		if err := d.Put(t.Context(), key, "", 1, strings.NewReader("x")); !errors.Is(err, tasks.ErrNoFile) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	now = time.Now().Add(time.Hour)
	if err := d.Sweep(t.Context(), 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "exports/x/y.json")); err != nil {
		t.Error("swept before its time")
	}
	if err := d.Sweep(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(t.Context(), "exports/x/y.json"); !errors.Is(err, tasks.ErrNoFile) {
		t.Errorf("after its time: %v", err)
	}
}

func TestLimitsOfTheAPI(t *testing.T) {
	p := newPlace(t)
	inline := func(n int) map[string]any {
		return map[string]any{"kind": "import", "format": "csv", "data": strings.Repeat("x", n)}
	}
	first := p.start("ann", inline(tasks.InlineBytes))
	p.call("ann", "POST", "/api/tasks", inline(tasks.InlineBytes+1), 413)
	p.start("ann", inline(1))
	p.start("ann", inline(1))
	p.call("ann", "POST", "/api/tasks", inline(1), 429)
	p.call("ann", "DELETE", "/api/tasks/"+first.ID, nil, 200)
	p.start("ann", inline(1))
	p.call("ann", "POST", "/api/tasks/uploads", map[string]any{"format": "csv", "bytes": tasks.UploadBytes}, 201)
	p.call("ann", "POST", "/api/tasks/uploads", map[string]any{"format": "csv", "bytes": tasks.UploadBytes + 1}, 422)
	p.call("ann", "POST", "/api/tasks/uploads", map[string]any{"format": "csv", "bytes": 0}, 422)
	for _, bad := range []map[string]any{
		{}, {"kind": "import"}, {"kind": "import", "format": "csv"}, {"kind": "import", "format": "csv", "data": "x", "upload": first.ID},
		{"kind": "export", "format": "csv", "data": "x"}, {"kind": "export", "format": "xml"}, {"kind": "mine", "format": "csv"},
		{"kind": "import", "format": "csv", "upload": "x"}, {"kind": "import", "format": "csv", "data": "x", "extra": 1},
	} {
		p.call("bob", "POST", "/api/tasks", bad, 422)
	}
	p.call("bob", "GET", "/api/tasks/"+first.ID, nil, 404)
	p.call("bob", "DELETE", "/api/tasks/"+first.ID, nil, 404)
	p.call("ann", "GET", "/api/tasks/x", nil, 404)
	p.call("ann", "DELETE", "/api/tasks/"+first.ID, nil, 409)
	var list struct{ Items []todo.Task }
	if err := json.Unmarshal(p.call("ann", "GET", "/api/tasks", nil, 200), &list); err != nil || len(list.Items) != 4 || list.Items[3].ID != first.ID {
		t.Errorf("%d tasks listed, %v; want 4, newest first", len(list.Items), err)
	}
	// The number that are kept is bounded too, finished ones included.
	for range tasks.KeptPerUser {
		a := p.start("cy", inline(1))
		p.call("cy", "DELETE", "/api/tasks/"+a.ID, nil, 200)
	}
	p.call("cy", "POST", "/api/tasks", inline(1), 429)
}
