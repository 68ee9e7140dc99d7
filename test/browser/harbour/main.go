// Command harbour is what the containers of the scene of logs run: it writes a log with colours, to both streams, and floods on SIGUSR1.
// With -wait it writes nothing before SIGUSR2.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const reset = "\x1b[0m"

// display is written first: every way to colour a line, and what must not be taken for the page's own.
var display = []string{
	"\x1b[1mharbour 1.4.2\x1b[0m listening on \x1b[36m:8080\x1b[0m",
	"\x1b[90mdebug\x1b[0m tides for 52.9N 4.8E: \x1b[32mhigh 04:12\x1b[0m, \x1b[33mlow 10:27\x1b[0m, \x1b[31mspring tide\x1b[0m",
	"\x1b[38;5;208m256: orange\x1b[0m \x1b[38;5;27mblue\x1b[0m \x1b[48;5;22mon green\x1b[0m \x1b[38;2;120;40;200mtrue colour: violet\x1b[0m \x1b[38:2::255:105:180mpink\x1b[0m \x1b[7mreverse\x1b[0m",
	"\x1b[1mbold\x1b[0m \x1b[3mitalic\x1b[0m \x1b[4munderlined\x1b[0m \x1b[9mstruck\x1b[0m \x1b[41;97m ALARM \x1b[0m \x1b[43;30m WARN \x1b[0m",
	`<img src=x onerror="document.title='taken'"> <script>document.title='taken'</script> is text`,
	"\x1b]0;a title\x07\x1b[2J\x1b[1;1Hcursor and title are gone\x1b[?25l",
}

var ships = []string{"Aurora", "Berta", "Corvus", "Delfin", "Esperanza", "Freya", "Gannet"}

// line is the n-th of ordinary traffic.
func line(n int) string {
	ship := ships[n%len(ships)]
	switch n % 5 {
	case 0:
		return fmt.Sprintf("\x1b[32mGET\x1b[0m /berths/%d \x1b[32m200\x1b[0m %d.%d ms ship=%s", n%40, 1+n%7, n%10, ship)
	case 1:
		return fmt.Sprintf("\x1b[33mPUT\x1b[0m /berths/%d \x1b[32m204\x1b[0m %d.%d ms ship=%s", n%40, 4+n%9, n%10, ship)
	case 2:
		return fmt.Sprintf("\x1b[90mdebug\x1b[0m pilot assigned ship=%s berth=%d draught=%d.%dm", ship, n%40, 3+n%4, n%10)
	case 3:
		return fmt.Sprintf("\x1b[32mGET\x1b[0m /tides?from=%d \x1b[36m304\x1b[0m 0.%d ms", 1795370000+n, 1+n%9)
	}
	return fmt.Sprintf("\x1b[34minfo\x1b[0m lock %d cycled in %d s, %d waiting", 1+n%3, 210+n%60, n%6)
}

func main() {
	every := flag.Duration("every", 150*time.Millisecond, "between lines")
	quiet := flag.Bool("quiet", false, "nothing but a first line")
	flood := flag.Int("flood", 30_000, "lines that SIGUSR1 makes")
	wait := flag.Bool("wait", false, "begin with SIGUSR2")
	flag.Parse()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	if *wait {
		for s := range signals {
			if s == syscall.SIGTERM {
				return
			}
			if s == syscall.SIGUSR2 {
				break
			}
		}
	}
	if *quiet {
		fmt.Println("nothing to do")
		<-signals
		return
	}
	for _, s := range display {
		fmt.Println(s)
	}
	fmt.Println("manifest " + strings.Repeat("container=MSKU1234567 ", 500)) // longer than what is passed on
	ticker := time.NewTicker(*every)
	defer ticker.Stop()
	for n := 0; ; n++ {
		if n%23 == 22 {
			fmt.Fprintf(os.Stderr, "\x1b[31mlookout: no answer from %s, trying again%s\n", ships[n%len(ships)], reset)
		} else {
			fmt.Println(line(n))
		}
		select {
		case s := <-signals:
			if s == syscall.SIGTERM {
				fmt.Println("closing the harbour")
				return
			}
			w := bufio.NewWriter(os.Stdout)
			for i := range *flood {
				fmt.Fprintf(w, "flood %d of %d\n", i+1, *flood)
			}
			_ = w.Flush() // nobody to tell
		case <-ticker.C:
		}
	}
}
