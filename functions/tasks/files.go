package tasks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"tideline/shared/todo"
)

// Errors of Files; test with errors.Is.
var (
	ErrNoFile           = errors.New("no such file")
	ErrFilesUnavailable = errors.New("files unavailable")
)

// Link is a permission to send or fetch one file.
type Link struct {
	URL     string            `json:"url"`
	Method  string            `json:"method"`
	Headers map[string]string `json:"headers,omitempty" doc:"Must be sent as they are."`
	Expires time.Time         `json:"expiresAt"`
}

// Files keeps what is imported and exported: a bucket, or a folder. Keys are made by this package: letters, digits, '-', '.' and '/'. Files
// vanish some time after todo.TaskTTL. Implementations are safe for concurrent use; their errors are those above.
type Files interface {
	Put(ctx context.Context, key, contentType string, size int64, content io.ReadSeeker) error
	// Get opens a file; the caller closes it.
	Get(ctx context.Context, key string) (io.ReadCloser, error)
	// UploadLink lets its holder put a file of exactly size bytes.
	UploadLink(ctx context.Context, key, contentType string, size int64, ttl time.Duration) (Link, error)
	// DownloadLink lets its holder fetch a file, to be saved under that name.
	DownloadLink(ctx context.Context, key, contentType, name string, ttl time.Duration) (Link, error)
}

// owned is the folder of a user's files: an id of another user's file leads nowhere, and user names don't appear in keys.
func owned(folder, user string) string {
	sum := sha256.Sum256([]byte(user))
	return folder + "/" + hex.EncodeToString(sum[:16]) + "/"
}

func importKey(user, id string) string { return owned("imports", user) + id }

func exportKey(user, task string, f todo.Format) string {
	return owned("exports", user) + task + "." + string(f)
}

func contentType(f todo.Format) string {
	if f == todo.CSV {
		return "text/csv"
	}
	return "application/json"
}
