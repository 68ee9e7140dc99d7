package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// profile takes a CPU profile of the first node during a run, and its allocations; the function that it answers waits for them.
func (s *system) profile(name string, length time.Duration) (wait func()) {
	if s.env.profiles == "" || len(s.private) == 0 || length < 2*time.Second {
		return func() {}
	}
	var wg sync.WaitGroup
	get := func(what, query string) {
		wg.Go(func() {
			path := filepath.Join(s.env.profiles, strings.ReplaceAll(name, " ", "-")+"-"+what+".pprof")
			if err := fetch(s.private[0]+"/debug/pprof/"+what+query, path); err != nil {
				fmt.Fprintf(os.Stderr, "load: profile: %v\n", err)
			}
		})
	}
	seconds := int(length.Seconds() - 0.5)
	get("profile", fmt.Sprintf("?seconds=%d", seconds))
	get("allocs", fmt.Sprintf("?seconds=%d", seconds))
	return wg.Wait
}

// heap takes a profile of what the first node holds in memory, and what its runtime says of it.
func (s *system) heap(name string) error {
	if s.env.profiles == "" || len(s.private) == 0 {
		return nil
	}
	at := func(rest string) string { return filepath.Join(s.env.profiles, name+rest) }
	if err := fetch(s.private[0]+"/metrics", at("-metrics.txt")); err != nil {
		return err
	}
	if err := fetch(s.private[0]+"/debug/pprof/goroutine?debug=1", at("-goroutines.txt")); err != nil {
		return err
	}
	return fetch(s.private[0]+"/debug/pprof/heap?gc=1", at("-heap.pprof"))
}

func fetch(url, path string) error {
	client := http.Client{Timeout: time.Minute}
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, res.Body)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
