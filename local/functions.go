package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/errgroup"

	"tideline/functions/meter"
	"tideline/functions/openapi"
	"tideline/functions/outbox"
	"tideline/functions/session"
	sessionbolt "tideline/functions/session/bolt"
	"tideline/functions/tasks"
	"tideline/functions/tasks/dirfiles"
	"tideline/functions/todos"
	"tideline/node/server"
	"tideline/shared/bus"
	"tideline/shared/channel"
	todobolt "tideline/shared/todo/bolt"
	"tideline/shared/token"
	"tideline/shared/trace/otlp"
)

// operatorUser is who the operator's link signs in.
const operatorUser = "operator"

// functions are the Lambda functions' handlers over the embedded store, behind one handler as behind the load balancer's rules.
type functions struct {
	http.Handler
	db      *bbolt.DB
	bus     *bus.Bus
	tracing otlp.Tracing
	session *session.Service
	outbox  outbox.Local // the table's stream
	worker  tasks.Local  // the queue and its worker
}

func openFunctions(ctx context.Context, s settings, secrets *token.Secrets, log *slog.Logger) (_ *functions, err error) {
	f := &functions{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.db, err = openStore(s.data); err != nil {
		return nil, err
	}
	if f.bus, err = bus.Open(ctx, bus.Options{URL: s.redisURL, Stage: s.stage, Log: log}); err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	if f.tracing, err = otlp.Open(ctx, s.tracing, "tideline-functions", "local", server.Version(), log); err != nil {
		return nil, err
	}
	measurements := meter.NewPrometheus("local", log)
	links, err := sessionbolt.New(f.db, nil)
	if err != nil {
		return nil, err
	}
	f.session, err = session.New(session.Options{Sessions: secrets.For(token.AudienceSession), Access: secrets, Store: links,
		Guests: true, PublicScheme: "http", Log: log, Meter: measurements})
	if err != nil {
		return nil, err
	}
	store, err := todobolt.New(f.db, nil)
	if err != nil {
		return nil, err
	}
	list, err := todos.New(todos.Options{Store: store, Publisher: f.bus, Verifier: secrets, Log: log, Meter: measurements, Tracing: f.tracing.Provider})
	if err != nil {
		return nil, err
	}
	f.outbox = outbox.Local{Store: store, Publisher: f.bus, Log: log, Meter: measurements}
	work, err := f.openTasks(s, store, secrets, log, measurements)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/session", f.session)
	mux.Handle("/api/session/", f.session)
	mux.Handle("/api/tasks", work)
	mux.Handle("/api/tasks/", work)
	mux.Handle("/api/files/", work)
	mux.Handle("/api/", list) // which also answers what nobody knows
	reference := openapi.Handler()
	mux.Handle(openapi.DocumentPath, reference)
	mux.Handle(openapi.DocsPath, reference)
	mux.Handle(openapi.StylePath, reference)
	mux.Handle("GET /metrics", measurements.Handler())
	f.Handler = mux
	return f, nil
}

// openTasks makes the API of tasks and their worker. Files and links to them last as long as tasks do, the links' secret as long as the process.
func (f *functions) openTasks(s settings, store *todobolt.Store, secrets *token.Secrets, log *slog.Logger, m *meter.Prometheus) (http.Handler, error) {
	secret := make([]byte, dirfiles.MinSecretBytes)
	rand.Read(secret) // never fails
	files, err := dirfiles.New(filepath.Join(s.data, "files"), secret, nil)
	if err != nil {
		return nil, fmt.Errorf("DATA_DIR: %w", err)
	}
	worker, err := tasks.NewWorker(tasks.WorkerOptions{Store: store, Files: files, Publisher: f.bus, Alone: true, Log: log, Meter: m})
	if err != nil {
		return nil, err
	}
	f.worker = tasks.Local{Store: store, Worker: worker, Log: log}
	return tasks.New(tasks.Options{Store: store, Files: files, Publisher: f.bus, Verifier: secrets, Log: log, Meter: m, Tracing: f.tracing.Provider})
}

// close gives up the store and the bus, after everything that uses them has ended.
func (f *functions) close() error {
	f.tracing.Close()
	var errs []error
	if f.bus != nil {
		errs = append(errs, f.bus.Close())
	}
	if f.db != nil {
		errs = append(errs, f.db.Close())
	}
	return errors.Join(errs...)
}

// run does what functions do between requests, until ctx ends.
func (f *functions) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.outbox.Run(ctx) })
	g.Go(func() error { return f.worker.Run(ctx) })
	return g.Wait()
}

func openStore(folder string) (*bbolt.DB, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("DATA_DIR: %w", err)
	}
	path := filepath.Join(folder, "tideline.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("DATA_DIR: %s is in use: is Tideline already running? Stop it, or set DATA_DIR to another folder", path)
	}
	if err != nil {
		return nil, fmt.Errorf("DATA_DIR: open %s: %w", path, err)
	}
	return db, nil
}

// secretsSetting answers TOKEN_SECRETS, or a file in the data folder that is made at the first start, so that sessions survive a restart.
func secretsSetting(s settings) (string, error) {
	if s.secrets != "" {
		return s.secrets, nil
	}
	path, err := madeSecret(s.data, "token-secrets")
	return "@" + path, err
}

// apiKeysName is the file of the server API's keys in the data folder.
const apiKeysName = "api-keys"

// madeSecret answers the path of a file in the data folder that has a secret; it is made unless it is there.
func madeSecret(folder, name string) (string, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("DATA_DIR: %w", err)
	}
	path, err := filepath.Abs(filepath.Join(folder, name))
	if err != nil {
		return "", fmt.Errorf("DATA_DIR: %w", err)
	}
	var secret [32]byte
	rand.Read(secret[:]) // never fails
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return path, nil
	}
	if err != nil {
		return "", fmt.Errorf("DATA_DIR: %w", err)
	}
	_, err = file.WriteString(hex.EncodeToString(secret[:]) + "\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return path, nil
}

func parseSecrets(setting string, log *slog.Logger) (*token.Secrets, error) {
	secrets, err := token.ParseSecrets(setting, nil, func(err error) { log.Warn("token secrets not read again", "error", err) })
	if err != nil {
		return nil, fmt.Errorf("TOKEN_SECRETS: %w", err)
	}
	return secrets, nil
}

// runFunctions is the functions alone, for nodes and a load balancer that run elsewhere.
func runFunctions(ctx context.Context, s settings, front *door, log *slog.Logger, stdout io.Writer) error {
	defer front.close()
	setting, err := secretsSetting(s)
	if err != nil {
		return err
	}
	log = log.With("node", "functions")
	secrets, err := parseSecrets(setting, log)
	if err != nil {
		return err
	}
	f, err := openFunctions(ctx, s, secrets, log)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.run(ctx) })
	g.Go(func() error { return front.serve(ctx, f) })
	g.Go(func() error {
		if await(ctx, func(ctx context.Context) bool {
			return answers(ctx, urlOf(front.listeners[0]).String()+"/api/todos", 401)
		}) == nil {
			fmt.Fprintln(stdout, "ready", front.url())
		}
		return nil
	})
	return errors.Join(g.Wait(), f.close())
}

// operatorPath begins the operator's link. It exists only here: the front door of a local system, which prints the key to its terminal.
const operatorPath = "/local/operator/"

// withOperator adds a link that signs in as operator as often as it is opened: whoever can read the terminal owns the system anyway.
// One-time links last a minute, which is too short for a line that is printed once.
func withOperator(next http.Handler, s *session.Service, key string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	mux.HandleFunc("GET "+operatorPath+"{key}", func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.PathValue("key")), []byte(key)) != 1 {
			http.NotFound(w, r)
			return
		}
		path, _, err := s.MakeLink(r.Context(), operatorUser, []string{channel.RoleOperator})
		if err != nil {
			http.Error(w, "no link could be made: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Referrer-Policy", "no-referrer")
		http.Redirect(w, r, path, http.StatusSeeOther)
	})
	return mux
}
