package backend_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tideline/functions/lambdahttp"
	"tideline/shared/bus"
	lambdatest "tideline/test/lambda"
	"tideline/test/mototest"
)

// serve runs a function's binary on ports, as outside Lambda, and answers the private one's URL.
func (a *account) serve(name string, more ...string) string {
	a.t.Helper()
	port, private := lambdatest.FreePort(a.t), lambdatest.FreePort(a.t)
	cmd := exec.Command(lambdatest.Build(a.t, "tideline/functions/"+name+"/bootstrap"))
	cmd.Env = append(append(a.env, more...), fmt.Sprint("PORT=", port), fmt.Sprint("PRIVATE_PORT=", private))
	var logs strings.Builder
	cmd.Stdout, cmd.Stderr = &logs, &logs
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			a.t.Errorf("%s ended with %v\n%s", name, err, logs.String())
		}
	})
	url := fmt.Sprint("http://127.0.0.1:", private)
	lambdatest.Poll(a.t, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/healthz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		return res.Body.Close()
	})
	a.t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return url
}

func TestThePythonExamplePublishes(t *testing.T) {
	a := newAccount(t)
	url := a.serve("broadcast", "TOKEN_SECRETS="+secret)
	python, err := mototest.Python()
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Split(strings.TrimPrefix(lambdahttp.InvokePath, "/2015-03-31/functions/"), "/")[0]
	for range 2 { // the second is a retry
		cmd := exec.CommandContext(t.Context(), python, filepath.Join("..", "..", "docs", "examples", "broadcast", "publish.py"))
		cmd.Env = append(os.Environ(), "FUNCTION="+name, "AWS_ENDPOINT_URL_LAMBDA="+url, "AWS_DEFAULT_REGION=us-east-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "'offset': 1}") {
			t.Fatalf("%v: %s", err, out)
		}
	}
	pubs, _, err := a.bus.History(t.Context(), "chat:lobby", bus.Page{Limit: -1})
	if err != nil || len(pubs) != 1 {
		t.Fatalf("%d publications, %v", len(pubs), err)
	}
	var line struct{ Data struct{ Text string } }
	if err := json.Unmarshal(pubs[0].Data, &line); err != nil || line.Data.Text != "Order 17 has shipped" {
		t.Errorf("published %s, %v", pubs[0].Data, err)
	}
}
