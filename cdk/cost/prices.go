// Package cost estimates what a deployment costs in a month, beside two managed services at the same load.
package cost

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
)

//go:embed prices.csv
var shipped []byte

// price is a list price in tiers; a price without tiers has one.
type price struct {
	tiers     []tier // by above
	per       string
	confirmed bool // every tier of it
}

type tier struct{ above, each float64 }

// Prices are list prices by key. LoadPrices makes them.
type Prices map[string]price

// LoadPrices reads the prices that ship.
func LoadPrices() (Prices, error) { return parsePrices(shipped) }

func parsePrices(raw []byte) (Prices, error) {
	r := csv.NewReader(bytes.NewReader(raw))
	r.Comment, r.FieldsPerRecord = '#', 8
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("prices: %w", err)
	}
	prices := Prices{}
	for i, row := range rows {
		if i == 0 {
			continue // the names of the columns
		}
		key, status := row[0], row[6]
		above, err := strconv.ParseFloat(row[1], 64)
		if err != nil {
			return nil, fmt.Errorf("prices: %s: above %q is no number", key, row[1])
		}
		each, err := strconv.ParseFloat(row[2], 64)
		if err != nil || each <= 0 || math.IsInf(each, 0) {
			return nil, fmt.Errorf("prices: %s: %q is no price", key, row[2])
		}
		if status != "confirmed" && status != "unconfirmed" {
			return nil, fmt.Errorf("prices: %s: status %q is neither confirmed nor unconfirmed", key, status)
		}
		for column, text := range row {
			if text == "" {
				return nil, fmt.Errorf("prices: %s: column %d is empty", key, column+1)
			}
		}
		p, known := prices[key]
		if n := len(p.tiers); n == 0 && above != 0 || n > 0 && above <= p.tiers[n-1].above {
			return nil, fmt.Errorf("prices: %s: a tier above %v is out of order", key, above)
		}
		p.tiers, p.per, p.confirmed = append(p.tiers, tier{above, each}), row[3], (p.confirmed || !known) && status == "confirmed"
		prices[key] = p
	}
	return prices, nil
}

// of is the price of a quantity: each tier for what lies in it.
func (p price) of(quantity float64) float64 {
	sum := 0.0
	for i, t := range p.tiers {
		end := math.Inf(1)
		if i+1 < len(p.tiers) {
			end = p.tiers[i+1].above
		}
		if quantity > t.above {
			sum += (math.Min(quantity, end) - t.above) * t.each
		}
	}
	return sum
}
