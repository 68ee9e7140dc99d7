package edge

import (
	"encoding/json"
	"testing"

	"tideline/shared/token"
	"tideline/shared/token/dynamo"
)

func TestPolicyAndStoreNameTheSamePartitions(t *testing.T) {
	if publicPartition != dynamo.PartitionPublic || privatePartitions != dynamo.PartitionPrivate {
		t.Errorf("partitions %q and %q, the store has %q and %q", publicPartition, privatePartitions, dynamo.PartitionPublic, dynamo.PartitionPrivate)
	}
	if len(rings) != 2 || rings[0] != token.RingAccess || rings[1] != token.RingSession {
		t.Errorf("rings %v", rings)
	}
}

func TestIssuersAreWrittenAsTokensReadThem(t *testing.T) {
	raw, err := json.Marshal([]issuer{{"oidc", "https://issuer.example.com", "client", "roles", "operator"}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := token.ParseIssuers(string(raw))
	if err != nil || len(list) != 1 || list[0].RolesClaim != "roles" || list[0].Operator != "operator" {
		t.Errorf("%+v, %v", list, err)
	}
}
