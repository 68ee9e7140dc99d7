package dynamo_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"tideline/shared/token"
	"tideline/shared/token/dynamo"
	"tideline/shared/token/storetest"
	"tideline/test/dynamotest"
)

func table(t *testing.T, server *dynamotest.Server) *dynamo.Store {
	t.Helper()
	name := "keys-" + rand.Text()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := dynamo.CreateTable(ctx, server.Client(), name); err != nil {
		t.Fatal(err)
	}
	return dynamo.New(server.Client(), name)
}

func TestStore(t *testing.T) {
	server := dynamotest.Start(t)
	storetest.Run(t, func(t *testing.T) token.Store { return table(t, server) })

	t.Run("more than a page", func(t *testing.T) {
		s := table(t, server)
		long, _ := json.Marshal(make([]byte, 150<<10)) // 200 KiB: six make more than the megabyte of a page
		for i := range 6 {
			if err := s.PutIssuer(t.Context(), token.IssuerKeys{Issuer: fmt.Sprint("https://issuer.example/", i), Set: long}); err != nil {
				t.Fatal(err)
			}
		}
		if p, err := s.Published(t.Context()); err != nil || len(p.Issuers) != 6 {
			t.Errorf("%d issuers, %v", len(p.Issuers), err)
		}
	})
	t.Run("a change has its limit", func(t *testing.T) {
		s := table(t, server)
		ids := make([]string, token.ChangeMax+1)
		for i := range ids {
			ids[i] = fmt.Sprint("k", i)
		}
		if err := s.ChangeRing(t.Context(), token.Change{Ring: "access", Remove: ids}); err == nil {
			t.Error("one past the limit was accepted")
		}
		if err := s.ChangeRing(t.Context(), token.Change{Ring: "access", Remove: ids[1:]}); err != nil {
			t.Errorf("at the limit: %v", err)
		}
	})
}
