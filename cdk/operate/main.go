// Command operate does what surrounds a deployment: doctor looks before it, mark and deploying tell the dashboard and the pager of it, verify looks
// after it, plan before a stack is destroyed, purge removes what an earlier stack retained.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: operate doctor [-c name=value]…     what would keep a deployment from succeeding
       operate verify [URL] [-c stage=…]   whether a deployment, or make run, does what it should; without URL the deployed stack's
       operate plan -c stage=…             what would go and what would stay, if the stack were destroyed
       operate destroy -c stage=… --confirm=STAGE   destroy the stack, after saying what that means
       operate mark -c stage=…             the parameter that marks the deployment which is about to begin on the dashboard
       operate deploying -c stage=…        say that the stack is being updated, while it is, so that nobody is paged; until it is ended
       operate cost -c stage=… -c connections=… -c rate=… -c size=… -c fanout=… -c perNode=…   what it would cost in a month
       operate outputs -c stage=…          the outputs of the deployed stack
       operate purge -c stage=… --confirm=STAGE   delete what an earlier stack of that stage retained, data included
`

var errUsage = errors.New(strings.TrimSuffix(usage, "\n"))

// whole bounds each command. CloudFront's distribution and functions' network interfaces take long to go.
const whole = 75 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, whole)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

// arguments of a command.
type arguments struct {
	url     string
	confirm string
	context map[string]any
}

func parse(args []string) (a arguments, err error) {
	a.context = map[string]any{}
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "-c" || arg == "--context":
			if i++; i == len(args) {
				return a, errors.New("-c needs name=value")
			}
			name, value, ok := strings.Cut(args[i], "=")
			if !ok {
				return a, fmt.Errorf("-c %s: not name=value", args[i])
			}
			a.context[name] = value
		case strings.HasPrefix(arg, "--confirm="):
			a.confirm = strings.TrimPrefix(arg, "--confirm=")
		case strings.HasPrefix(arg, "http://") || strings.HasPrefix(arg, "https://"):
			a.url = strings.TrimSuffix(arg, "/")
		default:
			return a, fmt.Errorf("unknown argument %q; %w", arg, errUsage)
		}
	}
	return a, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	a, err := parse(args[1:])
	if err != nil {
		return err
	}
	commands := map[string]func(context.Context, arguments, io.Writer) error{
		"doctor": doctor, "verify": verify, "plan": plan, "outputs": outputs,
		"cost": estimate, "mark": mark, "deploying": deploying, "destroy": destroy, "purge": purge}
	command, ok := commands[args[0]]
	if !ok {
		return errUsage
	}
	return command(ctx, a, out)
}

// report prints one line for each thing that was looked at, and counts what is wrong.
type report struct {
	out   io.Writer
	wrong int
}

func (r *report) ok(what, format string, args ...any)      { r.line("ok", what, format, args...) }
func (r *report) unknown(what, format string, args ...any) { r.line("?", what, format, args...) }

func (r *report) bad(what, format string, args ...any) {
	r.wrong++
	r.line("no", what, format, args...)
}

func (r *report) line(mark, what, format string, args ...any) {
	fmt.Fprintf(r.out, "%-3s %-22s %s\n", mark, what, fmt.Sprintf(format, args...))
}

func (r *report) err(what string) error {
	if r.wrong == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d wrong", what, r.wrong)
}
