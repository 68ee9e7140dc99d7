package server

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"tideline/shared/limit"
)

const secret = "0123456789abcdef0123456789abcdef"

func env(pairs ...string) func(string) string {
	m := map[string]string{"REDIS_URL": "redis://127.0.0.1:6379", "TOKEN_SECRETS": secret}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(k string) string { return m[k] }
}

func TestConfigDefaults(t *testing.T) {
	c, err := ParseConfig(env())
	if err != nil {
		t.Fatal(err)
	}
	if c.Public != ":8000" || c.Private != ":9000" || c.Stage != "dev" || c.Scheme != "http" || c.TrustedHops != 0 ||
		c.DrainGrace != 20*time.Second || c.DrainWindow != 90*time.Second || c.LogText || len(c.AllowedOrigins) != 0 {
		t.Errorf("%+v", c)
	}
	if again, _ := ParseConfig(env()); c.NodeID == "" || again.NodeID == c.NodeID {
		t.Errorf("default NODE_ID %q is not unique", c.NodeID)
	}
}

func TestConfigTakesEverySetting(t *testing.T) {
	c, err := ParseConfig(env("PORT", "127.0.0.1:0", "PRIVATE_PORT", "0", "NODE_ID", "a.b_c-1", "STAGE", "prod", "TRUSTED_HOPS", "8",
		"ALLOWED_ORIGINS", "https://a.example, http://localhost:5173", "PUBLIC_SCHEME", "HTTPS", "ZONE", "eu-west-1a", "TOKEN_SECRETS", secret+" , "+secret+"2",
		"LOG_LEVEL", "WARN", "LOG_FORMAT", "text", "DRAIN_GRACE", "0s", "DRAIN_WINDOW", "30m", "REDIS_URL", "rediss+cluster://u:p@h:6379"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Public != "127.0.0.1:0" || c.Private != ":0" || c.NodeID != "a.b_c-1" || c.TrustedHops != 8 || len(c.AllowedOrigins) != 2 ||
		c.Scheme != "https" || c.TokenSecrets != secret+" , "+secret+"2" || c.LogLevel.String() != "WARN" || !c.LogText || c.DrainWindow != 30*time.Minute {
		t.Errorf("%+v", c)
	}
}

func TestConfigLimits(t *testing.T) {
	c, err := ParseConfig(env())
	if err != nil {
		t.Fatal(err)
	}
	if c.MessageBytes != limit.MessageBytes || c.QueueBytes != limit.QueueBytes || c.ChannelsPerClient != limit.ChannelsPerClient ||
		c.CommandsPerSecond != limit.CommandsPerSecond || c.SubscribesPerSecond != limit.SubscribesPerSecond || c.Unauthenticated != limit.Unauthenticated ||
		c.HandshakeTimeout != limit.HandshakeTimeout || c.ConnectionsPerUser != limit.ConnectionsPerUser || c.ConnectionsPerIP != limit.ConnectionsPerIP {
		t.Errorf("defaults are not those of package limit: %+v", c)
	}
	c, err = ParseConfig(env("MESSAGE_BYTES", "1024", "QUEUE_BYTES", "131072", "CHANNELS_PER_CLIENT", "1", "COMMANDS_PER_SECOND", "2", "SUBSCRIBES_PER_SECOND", "3",
		"UNAUTHENTICATED", "4", "HANDSHAKE_TIMEOUT", "100ms", "CONNECTIONS_PER_USER", "5", "CONNECTIONS_PER_IP", "6"))
	if err != nil || c.MessageBytes != 1024 || c.QueueBytes != 131072 || c.ChannelsPerClient != 1 || c.CommandsPerSecond != 2 || c.SubscribesPerSecond != 3 ||
		c.Unauthenticated != 4 || c.HandshakeTimeout != 100*time.Millisecond || c.ConnectionsPerUser != 5 || c.ConnectionsPerIP != 6 {
		t.Errorf("%v %+v", err, c)
	}
}

func TestConfigReportsEachMistakeByName(t *testing.T) {
	for _, c := range []struct{ name, value, says string }{
		{"PORT", "65536", "65536"}, {"PORT", "-1", "-1"}, {"PORT", "http", "http"}, {"PORT", "a:b:c", "host:port"},
		{"PRIVATE_PORT", "8000", "same as PORT"},
		{"NODE_ID", "two words", "match"}, {"NODE_ID", strings.Repeat("n", 65), "match"},
		{"STAGE", "Prod", "match"}, {"STAGE", "-a", "match"}, {"STAGE", strings.Repeat("s", 33), "match"},
		{"ZONE", "a b", "match"},
		{"REDIS_URL", "localhost:6379", "redis"}, {"REDIS_URL", "http://localhost", "scheme"}, {"REDIS_URL", "redis://", "host"},
		{"TOKEN_SECRETS", "short", "32"}, {"TOKEN_SECRETS", " , ", "no token secret"}, {"TOKEN_SECRETS", "@/nowhere", "nowhere"}, {"TOKEN_SECRETS", secret[1:], "31 bytes"},
		{"API_KEYS", "short", "32"}, {"API_KEYS", " , ", "no key"}, {"API_KEYS_FILE", "/nowhere", "nowhere"},
		{"ALLOWED_ORIGINS", "*", "any site"}, {"ALLOWED_ORIGINS", "https://a.example/", "origin"}, {"ALLOWED_ORIGINS", "a.example", "origin"},
		{"ALLOWED_ORIGINS", "https://a.example/path", "origin"}, {"ALLOWED_ORIGINS", "ftp://a.example", "origin"}, {"ALLOWED_ORIGINS", "https://u@a.example", "origin"},
		{"TRUSTED_HOPS", "9", "from 0 to 8"}, {"TRUSTED_HOPS", "-1", "from 0 to 8"}, {"TRUSTED_HOPS", "one", "from 0 to 8"},
		{"PUBLIC_SCHEME", "wss", "http, https"}, {"LOG_LEVEL", "loud", "debug"}, {"LOG_FORMAT", "xml", "json"},
		{"MESSAGE_BYTES", "1023", "from 1024 to 1048576"}, {"MESSAGE_BYTES", "1048577", "from 1024"}, {"QUEUE_BYTES", "131071", "from 131072"},
		{"CHANNELS_PER_CLIENT", "0", "from 1 to 10000"}, {"COMMANDS_PER_SECOND", "10001", "from 1 to 10000"}, {"SUBSCRIBES_PER_SECOND", "0", "from 1"},
		{"UNAUTHENTICATED", "0", "from 1"}, {"HANDSHAKE_TIMEOUT", "99ms", "from 100ms to 1m0s"}, {"HANDSHAKE_TIMEOUT", "61s", "from 100ms"},
		{"DRAIN_GRACE", "20", "duration"}, {"DRAIN_GRACE", "-1s", "duration"}, {"DRAIN_WINDOW", "30m1s", "duration"},
	} {
		_, err := ParseConfig(env(c.name, c.value))
		if err == nil || !strings.HasPrefix(err.Error(), c.name+": ") || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s=%q: %v", c.name, c.value, err)
		}
	}
}

func TestConfigReportsAllMistakesAtOnceWithoutSecrets(t *testing.T) {
	_, err := ParseConfig(env("PORT", "x", "REDIS_URL", "mysql://user:hunter2@h", "TOKEN_SECRETS", "hunter3", "LOG_LEVEL", "loud", "DRAIN_GRACE", "soon"))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{"PORT", "REDIS_URL", "TOKEN_SECRETS", "LOG_LEVEL", "DRAIN_GRACE"} {
		if !strings.Contains(err.Error(), name+": ") {
			t.Errorf("%s is not reported in %q", name, err)
		}
	}
	if strings.Contains(err.Error(), "hunter") {
		t.Errorf("a secret is in the error: %q", err)
	}
	_, err = ParseConfig(func(string) string { return "" })
	if err == nil || !strings.Contains(err.Error(), "REDIS_URL: missing") || !strings.Contains(err.Error(), "TOKEN_SECRETS: missing") {
		t.Errorf("%v", err)
	}
}

func TestHelpListsEverySetting(t *testing.T) {
	var b bytes.Buffer
	Help(&b)
	for _, s := range settings {
		if !strings.Contains(b.String(), "\n  "+s.name+" ") || s.help == "" {
			t.Errorf("%s is missing", s.name)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct{ arg, stdout, err string }{
		{"--version", "tideline ", ""}, {"--help", "REDIS_URL", ""}, {"--port", "", "--help"}, {"serve", "", "unexpected argument"},
	} {
		var out, errout bytes.Buffer
		err := Main(t.Context(), []string{c.arg}, env(), &out, &errout)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || !strings.Contains(out.String(), c.stdout) {
			t.Errorf("%s: %v, %q", c.arg, err, out.String())
		}
	}
	err := Main(t.Context(), nil, env("PORT", "x"), &bytes.Buffer{}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "\n  PORT: ") {
		t.Errorf("%v", err)
	}
}

func TestConfigOfAnInstance(t *testing.T) {
	const metadata = "http://169.254.169.254"
	c, err := ParseConfig(env("METADATA_URL", metadata, "LIFECYCLE_HOOK", strings.Repeat("h", 255), "METRICS_NAMESPACE", "Tideline/prod"))
	if err != nil || len(c.LifecycleHook) != 255 || c.Namespace != "Tideline/prod" || c.MetadataURL != metadata {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range [][]string{
		{"LIFECYCLE_HOOK", "drain"}, {"METRICS_NAMESPACE", "Tideline/prod"}, // without METADATA_URL
		{"LIFECYCLE_HOOK", strings.Repeat("h", 256), "METADATA_URL", metadata},
		{"LIFECYCLE_HOOK", "a hook", "METADATA_URL", metadata},
		{"METRICS_NAMESPACE", "AWS/EC2", "METADATA_URL", metadata},
		{"METRICS_NAMESPACE", strings.Repeat("n", 256), "METADATA_URL", metadata},
	} {
		if _, err := ParseConfig(env(bad...)); err == nil || !strings.HasPrefix(err.Error(), bad[0]+": ") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
