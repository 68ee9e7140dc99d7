package cost

import (
	"fmt"
	"io"
	"strings"
)

// Print writes the bills one below the other, each line with its formula, and the totals beside each other. A star marks what rests on an unconfirmed price.
func Print(w io.Writer, bills []Bill) {
	star := false
	for _, b := range bills {
		fmt.Fprintf(w, "\n%s\n", b.Name)
		for _, l := range b.Lines {
			mark := " "
			if !l.Confirmed {
				mark, star = "*", true
			}
			fmt.Fprintf(w, "  %-28s %12.2f%s  %s\n", l.Item, l.Dollars, mark, l.Formula)
		}
		fmt.Fprintf(w, "  %-28s %12.2f   $%.6f a connection\n", "total", b.Total(), perConnection(b))
	}
	fmt.Fprintf(w, "\n$ a month %s\n", strings.Repeat("-", 40))
	for _, b := range bills {
		fmt.Fprintf(w, "  %12.0f  %4.1f×  %s\n", b.Total(), b.Total()/bills[0].Total(), b.Name)
	}
	if star {
		fmt.Fprintln(w, "\n* rests on a price that was not confirmed for this region: cdk/cost/prices.csv names the page to compare")
	}
}

func perConnection(b Bill) float64 { return b.Total() / b.Connections }
