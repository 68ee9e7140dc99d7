package edge

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

// hostFiles is what a node's instance gets besides the binary.
//
//go:embed host
var hostFiles embed.FS

// userData is what the template of the user data needs. Values are put between single quotes: none may hold one.
type userData struct {
	Region, Bucket, Key, SHA256, LogGroup string
	// APIKeys is the secret that holds the server API's keys; empty: there is no server API.
	APIKeys     string
	Environment []variable
}

type variable struct{ Name, Value string }

func (u userData) render() (string, error) { return render("host/user-data.sh.tmpl", u) }

func render(name string, data any) (string, error) {
	t, err := template.ParseFS(hostFiles, name)
	if err != nil {
		return "", fmt.Errorf("parse %s: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("render %s: %w", name, err)
	}
	return b.String(), nil
}

// archived is one file of the archive.
type archived struct {
	name string
	mode int64
	data []byte
}

// apiKeysFile is where an instance keeps the server API's keys. The node reads it again by itself.
const apiKeysFile = "/etc/tideline/api-keys"

// channelsFile is the name of the namespaces beside a binary, on an instance and in a function.
const channelsFile = "channels.json"

// writeArchive puts the binary and what belongs to it into one archive in dir, and answers its path and sha256. The same binary gives the same bytes,
// so that a deployment that changes nothing replaces no instance.
func writeArchive(binary, channels, dir string) (path, sum string, err error) {
	node, err := os.ReadFile(binary)
	if err != nil {
		return "", "", fmt.Errorf("read the node's binary: %w", err)
	}
	unit, err := render("host/tideline-node.service.tmpl", map[string]int{"StopSeconds": int(drain.stop / time.Second)})
	if err != nil {
		return "", "", err
	}
	files := []archived{
		{"tideline-node", 0o755, node},
		{"tideline-node.service", 0o644, []byte(unit)},
	}
	for _, name := range []string{"agent.json", "api-keys.service", "api-keys.sh", "api-keys.timer", "install.sh", "logrotate-hourly.conf", "logrotate.conf", "sysctl.conf"} {
		data, err := hostFiles.ReadFile("host/" + name)
		if err != nil {
			return "", "", fmt.Errorf("read %s: %w", name, err)
		}
		files = append(files, archived{name, 0o755, data})
	}
	if channels != "" {
		data, err := os.ReadFile(channels)
		if err != nil {
			return "", "", fmt.Errorf("read the channels file: %w", err)
		}
		files = append(files, archived{channelsFile, 0o644, data})
	}
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	archive := tar.NewWriter(zip)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Format: tar.FormatUSTAR, ModTime: time.Unix(0, 0)}
		if err := archive.WriteHeader(header); err != nil {
			return "", "", fmt.Errorf("archive %s: %w", f.name, err)
		}
		if _, err := archive.Write(f.data); err != nil {
			return "", "", fmt.Errorf("archive %s: %w", f.name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return "", "", fmt.Errorf("close archive: %w", err)
	}
	if err := zip.Close(); err != nil {
		return "", "", fmt.Errorf("close archive: %w", err)
	}
	digest := sha256.Sum256(b.Bytes())
	sum = hex.EncodeToString(digest[:])
	path = filepath.Join(dir, "node-"+sum[:16]+".tar.gz")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return "", "", fmt.Errorf("write archive: %w", err)
	}
	return path, sum, nil
}
