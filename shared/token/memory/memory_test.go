package memory_test

import (
	"testing"

	"tideline/shared/token"
	"tideline/shared/token/memory"
	"tideline/shared/token/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) token.Store { return memory.New() })
}
