package limit

import (
	"testing"
	"time"
)

func TestInequalities(t *testing.T) {
	less := func(name string, a, b time.Duration) {
		t.Helper()
		if a >= b {
			t.Errorf("%s: %v must be less than %v", name, a, b)
		}
	}
	less("an id is remembered longer than a stream record can be old", OutboxRecordAge, IdempotencyTTL)
	less("a random id outlives the call that made it", PublishTimeout, RandomIDTTL)
	less("a channel's meta outlives its ids", IdempotencyTTL, MetaTTL)
	less("Redis work ends before the SDKs' 5 s command timeout", CommandBudget, 5*time.Second)
	less("a subscription is confirmed within the command's budget", SubscribeConfirm, CommandBudget)
	less("probe times out before the next", ProbeTimeout, ProbeEvery)
	less("IAM connections are rotated before they are cut", RotateMax, 12*time.Hour)
	less("rotation window", RotateMin, RotateMax)
	less("two heartbeats fit in a lease", 2*Heartbeat, LeaseTTL)
	less("two renewals fit in a lock", 2*LockRenew, LockTTL)
	less("a canary is late before the next is due", CanaryWait, CanaryInterval)
	less("when the node that publishes canaries dies, another does before two are missed", LockTTL+CanaryRetry*3/2, CanaryInterval+CanaryWait)
	less("a pong is late before the next ping", PongTimeout, PingInterval)
	less("pings keep the load balancer's idle timeout away", PingInterval+PongTimeout, IdleTimeout)
	less("the balancer closes idle connections first", IdleTimeout, HTTPIdleTimeout)
	less("a node drains before its targets are cut", DrainGrace+DrainWindow, DeregistrationDelay)
	less("systemd waits for the drain", DeregistrationDelay, StopTimeout)
	less("the lifecycle hook waits for the process", StopTimeout, HookHeartbeat)
	less("the balancer has noticed before a draining node closes anybody", HealthInterval*HealthFailures+HealthTimeout, DrainGrace)
	less("a health check is answered before the next", HealthTimeout, HealthInterval)
	less("CloudFront closes idle connections before the balancer does", FrontKeepAlive, IdleTimeout)
	less("pings keep CloudFront's read timeout away", PingInterval+PongTimeout, FrontReadTimeout)
	less("a dead worker's lease ends before its message comes again", WorkLease, 6*WorkerTimeout)
	less("a task's files outlive it", TaskTTL, FileTTL)
	if WorkAttempts+1 >= WorkReceives {
		t.Error("a message must come once more after the last attempt, so that the task fails and says so")
	}
	less("a body has come before the balancer gives the connection up", HandshakeTimeout, IdleTimeout)
	if MessageBytes*100 >= BodiesBytes {
		t.Error("a hundred of the longest bodies must fit")
	}
	if OrderBytes*4/3+1024 > DataBytes {
		t.Error("an order must fit in a publication")
	}
	if DataBytes >= MessageBytes {
		t.Error("the largest publication must fit in a client's frame")
	}
	if RecoveryBytes*2 > QueueBytes {
		t.Error("a recovery reply must stay under half the queue bound")
	}
	if QueueBytes >= InboxBytes {
		t.Error("one connection's queue must be full before the worker's inbox is")
	}
	if RingBytes > RingsBytes {
		t.Error("one ring must fit in the rings")
	}
}
