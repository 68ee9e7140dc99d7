package leak

import (
	"strings"
	"testing"
	"time"
)

func TestFind(t *testing.T) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); left(end) }()
	if err := find(0); err == nil || !strings.Contains(err.Error(), "leak.left") {
		t.Errorf("a goroutine that stays: %v", err)
	}
	time.AfterFunc(time.Second, func() { close(end) }) // longer than goleak waits
	if err := find(patience); err != nil {
		t.Errorf("one that ends after a while: %v", err)
	}
	<-ended
}

func left(end <-chan struct{}) { <-end }
