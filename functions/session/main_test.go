package session_test

import (
	"net/http"
	"testing"

	"tideline/test/leak"
)

func TestMain(m *testing.M) {
	leak.Main(m, http.DefaultTransport.(*http.Transport).CloseIdleConnections)
}
