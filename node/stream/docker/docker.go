// Package docker reads the logs and events of one Docker Engine, as a source of streams.
//
// Channels: docker:logs:<container>, docker:events, docker:events:<container>. An engine that is away is asked again, with backoff and for as long as
// somebody watches; what may have been missed is announced as a gap.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"tideline/node/stream"
)

// Namespace is that of all channels of this source.
const Namespace = "docker"

const (
	// callTimeout bounds a call that is answered at once.
	callTimeout = 5 * time.Second
	// aliveEvery is how often the engine is asked whether it is there while it has nothing to say.
	aliveEvery = 10 * time.Second
	// pollEvery is how often a container is looked for that does not exist or does not run.
	pollEvery = time.Second
	// awayMin and awayMax bound the wait before an engine that is away is asked again.
	awayMin = 500 * time.Millisecond
	awayMax = 10 * time.Second
	// listed is how many containers Containers answers.
	listed = 500
	// listedPorts is how many ports of each.
	listedPorts = 8
	// attributeBytes is the longest attribute of an event or a container that is passed on.
	attributeBytes = 256
)

// containerPattern is what the engine takes for a name; an id fits it, too.
var containerPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$`)

// Errors of names.
var (
	errName    = errors.New("want docker:logs:<container>, docker:events or docker:events:<container>")
	errPattern = fmt.Errorf("container names match %s", containerPattern)
)

// Engine is one Docker Engine. It is safe for concurrent use.
type Engine struct {
	client *client.Client
	log    *slog.Logger
}

// Open prepares the client of an engine; it connects to nothing. Host is unix:///path or tcp://host:port; certPath, unless empty, is a folder with
// ca.pem, cert.pem and key.pem, and turns on TLS. Without it whoever can reach a tcp port, or stand in between, is the engine's master.
func Open(host, certPath string, log *slog.Logger) (*Engine, error) {
	if err := CheckHost(host, certPath); err != nil {
		return nil, err
	}
	options := []client.Opt{client.WithHost(host), client.WithUserAgent("tideline")}
	if certPath != "" {
		options = append(options, client.WithTLSClientConfig(filepath.Join(certPath, "ca.pem"), filepath.Join(certPath, "cert.pem"), filepath.Join(certPath, "key.pem")))
	}
	c, err := client.New(options...)
	if err != nil {
		return nil, fmt.Errorf("docker client: %w", err)
	}
	if strings.HasPrefix(host, "tcp:") && certPath == "" {
		log.Warn("Docker Engine over TCP without TLS: only safe on a private network, to a proxy that lets nothing but reads through", "host", host)
	}
	return &Engine{client: c, log: log}, nil
}

// CheckHost answers nil, or what is wrong with the address or the files of TLS.
func CheckHost(host, certPath string) error {
	u, err := url.Parse(host)
	switch {
	case err != nil || u.Scheme != "unix" && u.Scheme != "tcp":
		return fmt.Errorf("%q is neither unix:///path nor tcp://host:port", host)
	case u.Scheme == "unix" && (u.Host != "" || u.Path == ""):
		return fmt.Errorf("%q: want a path, as in unix:///var/run/docker.sock", host)
	case u.Scheme == "tcp" && u.Port() == "":
		return fmt.Errorf("%q: want a port, as in tcp://10.0.0.5:2376", host)
	case certPath == "":
		return nil
	case u.Scheme != "tcp":
		return errors.New("certificates are for tcp:// only")
	}
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		if _, err := os.Stat(filepath.Join(certPath, name)); err != nil {
			return fmt.Errorf("certificates: %w", err)
		}
	}
	return nil
}

// Close lets go of idle connections.
func (e *Engine) Close() error { return e.client.Close() }

// target is what a channel names.
type target struct {
	logs      bool
	container string // of events: empty is everything
}

func parse(channel string) (target, error) {
	rest, ours := strings.CutPrefix(channel, Namespace+":")
	what, container, named := strings.Cut(rest, ":")
	t := target{logs: what == "logs", container: container}
	switch {
	case !ours || !t.logs && what != "events" || t.logs && !named:
		return target{}, errName
	case named && !containerPattern.MatchString(container):
		return target{}, errPattern
	}
	return t, nil
}

// Check implements stream.Source.
func (e *Engine) Check(channel string) error {
	_, err := parse(channel)
	return err
}

// Read implements stream.Source.
func (e *Engine) Read(ctx context.Context, channel, cursor string, emit func(stream.Event) error) error {
	t, err := parse(channel)
	if err != nil {
		return err
	}
	at, err := parseCursor(cursor)
	if err != nil {
		e.log.Warn("cursor of a stream not understood", "channel", channel, "error", err)
		if err := emit(stream.Event{Kind: stream.Gap, Text: "the place to go on from is not known"}); err != nil {
			return err
		}
	}
	r := reader{e: e, container: t.container, at: at, first: cursor == "", began: time.Now(), emit: emit}
	if t.logs {
		return r.readLogs(ctx)
	}
	return r.readEvents(ctx)
}

// Container is what operators learn of one.
type Container struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Image   string `json:"image"`
	State   string `json:"state"`  // created, running, paused, restarting, removing, exited, dead
	Status  string `json:"status"` // for people: "Up 2 hours"
	Created int64  `json:"created"`
	// Ports as docker ps shows them: "8080->80/tcp" is published on all addresses of the host, "127.0.0.1:8080->80/tcp" on one, "80/tcp" on none. At most
	// listedPorts.
	Ports []string `json:"ports,omitempty"`
}

// Containers lists the containers, running ones first, then by name; at most listed of them, and how many there are.
func (e *Engine) Containers(ctx context.Context) (list []Container, total int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, 0, fmt.Errorf("list containers: %w", err)
	}
	list = make([]Container, 0, len(res.Items))
	for _, c := range res.Items {
		name := c.ID
		if len(c.Names) > 0 {
			name = strings.TrimPrefix(c.Names[0], "/")
		}
		list = append(list, Container{ID: c.ID, Name: name, Image: short(c.Image), State: string(c.State), Status: short(c.Status), Created: c.Created, Ports: ports(c.Ports)})
	}
	slices.SortFunc(list, func(a, b Container) int {
		if up := a.State == "running"; up != (b.State == "running") {
			if up {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list[:min(len(list), listed)], len(list), nil
}

// ports tells each once: the engine lists a port of all addresses for both families.
func ports(all []container.PortSummary) (list []string) {
	for _, p := range all {
		text := fmt.Sprintf("%d/%s", p.PrivatePort, p.Type)
		switch {
		case p.PublicPort != 0 && p.IP.IsValid() && !p.IP.IsUnspecified():
			text = netip.AddrPortFrom(p.IP, p.PublicPort).String() + "->" + text
		case p.PublicPort != 0:
			text = fmt.Sprintf("%d->%s", p.PublicPort, text)
		}
		if !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	slices.Sort(list)
	return list[:min(len(list), listedPorts)]
}

func short(s string) string { return s[:min(len(s), attributeBytes)] }

// errSilent ends a reading whose engine does not answer.
var errSilent = errors.New("the engine does not answer")

// watched is a context that ends when the engine stops answering: a connection on which nothing is said looks like one to an engine that hangs.
func (e *Engine) watched(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() { // until stop
		defer close(done)
		for pause(ctx, aliveEvery) {
			asking, cancelAsk := context.WithTimeout(ctx, callTimeout)
			_, err := e.client.Ping(asking, client.PingOptions{})
			cancelAsk()
			if err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%w: %w", errSilent, err))
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled); <-done }
}

// pause answers false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
