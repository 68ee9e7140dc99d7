package main

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestArchivesOfOneBinaryAreTheSame(t *testing.T) {
	dir := t.TempDir()
	binary := bytes.Repeat([]byte("tideline"), 10_000)
	var archives [][]byte
	for i, mode := range []os.FileMode{0o600, 0o755} {
		from, to := filepath.Join(dir, "bootstrap"), filepath.Join(dir, "a.zip")
		_ = os.Remove(from)
		if err := os.WriteFile(from, binary, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(from, time.Time{}, time.Unix(int64(i)*1e9, 0)); err != nil {
			t.Fatal(err)
		}
		if err := pack(from, to); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, b)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("time or mode of the file is in the archive")
	}
	z, err := zip.NewReader(bytes.NewReader(archives[0]), int64(len(archives[0])))
	if err != nil {
		t.Fatal(err)
	}
	if len(z.File) != 1 || z.File[0].Name != "bootstrap" || z.File[0].Mode().Perm() != 0o755 || z.File[0].UncompressedSize64 != uint64(len(binary)) {
		t.Errorf("%+v", z.File)
	}
	if err := pack(filepath.Join(dir, "none"), filepath.Join(dir, "b.zip")); err == nil {
		t.Error("a missing binary is no error")
	}
}
