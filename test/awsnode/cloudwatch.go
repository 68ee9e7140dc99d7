package awsnode

import (
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/aws/smithy-go/encoding/cbor"
)

// CloudWatch's limits of one request and of one datum.
const (
	datumsMost = 1000
	valuesMost = 150
	bodyMost   = 1 << 20
)

// Datum is one that CloudWatch has accepted.
type Datum struct {
	Namespace, Name, Unit string
	Dimensions            map[string]string
	Values, Counts        []float64 // a single value has the count 1
	At                    time.Time
}

// Data are the accepted ones with a name, in their order; an empty name is all of them.
func (c *Cloud) Data(name string) []Datum {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []Datum
	for _, d := range c.data {
		if name == "" || d.Name == name {
			found = append(found, d)
		}
	}
	return found
}

// Sum adds the values of a metric up, each as often as it was counted.
func (c *Cloud) Sum(name string) (sum float64) {
	for _, d := range c.Data(name) {
		for i, v := range d.Values {
			sum += v * d.Counts[i]
		}
	}
	return sum
}

// serveCloudWatch knows PutMetricData, in the protocol smithy rpc-v2-cbor.
func (c *Cloud) serveCloudWatch(w http.ResponseWriter, r *http.Request) {
	body, err := request(r)
	var data []Datum
	if err == nil {
		data, err = parse(body)
	}
	if err != nil {
		c.complain("monitoring: " + err.Error())
		cborError(w, "com.amazonaws.cloudwatch#InvalidParameterValueException", err.Error())
		return
	}
	c.mu.Lock()
	c.data = append(c.data, data...)
	c.mu.Unlock()
	w.Header().Set("Smithy-Protocol", "rpc-v2-cbor")
	w.Header().Set("Content-Type", "application/cbor")
	_, _ = w.Write(cbor.Encode(cbor.Map{})) // whoever is gone doesn't hear it
}

func request(r *http.Request) (cbor.Map, error) {
	if r.URL.Path != "/service/GraniteServiceVersion20100801/operation/PutMetricData" || r.Header.Get("Smithy-Protocol") != "rpc-v2-cbor" {
		return nil, fmt.Errorf("%s is not known", r.URL.Path)
	}
	from := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		zip, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		from = zip
	}
	b, err := io.ReadAll(io.LimitReader(from, bodyMost+1))
	if err != nil || len(b) > bodyMost {
		return nil, fmt.Errorf("a body of %d bytes: %w", len(b), err)
	}
	v, err := cbor.Decode(b)
	if err != nil {
		return nil, err
	}
	m, ok := v.(cbor.Map)
	if !ok {
		return nil, fmt.Errorf("%T is no request", v)
	}
	return m, nil
}

// parse holds a request against the limits that CloudWatch documents.
func parse(m cbor.Map) ([]Datum, error) {
	list, _ := m["MetricData"].(cbor.List)
	if len(list) == 0 || len(list) > datumsMost {
		return nil, fmt.Errorf("%d datums", len(list))
	}
	var data []Datum
	for _, v := range list {
		one, _ := v.(cbor.Map)
		d := Datum{Namespace: text(m["Namespace"]), Name: text(one["MetricName"]), Unit: text(one["Unit"]), Dimensions: map[string]string{},
			Values: floats(one["Values"]), Counts: floats(one["Counts"])}
		if one["Value"] != nil {
			d.Values, d.Counts = append(d.Values, floats(cbor.List{one["Value"]})...), append(d.Counts, 1)
		}
		if at, err := cbor.AsTime(one["Timestamp"]); err == nil {
			d.At = at
		}
		dimensions, _ := one["Dimensions"].(cbor.List)
		for _, v := range dimensions {
			pair, _ := v.(cbor.Map)
			d.Dimensions[text(pair["Name"])] = text(pair["Value"])
		}
		switch {
		case d.Namespace == "" || d.Name == "" || d.At.IsZero():
			return nil, fmt.Errorf("%+v lacks something", d)
		case len(d.Values) == 0 || len(d.Values) > valuesMost || len(d.Values) != len(d.Counts):
			return nil, fmt.Errorf("%s: %d values, %d counts", d.Name, len(d.Values), len(d.Counts))
		case slices.ContainsFunc(d.Values, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }):
			return nil, fmt.Errorf("%s: %v", d.Name, d.Values)
		}
		data = append(data, d)
	}
	return data, nil
}

func text(v cbor.Value) string {
	s, _ := v.(cbor.String)
	return string(s)
}

func floats(v cbor.Value) []float64 {
	list, _ := v.(cbor.List)
	var all []float64
	for _, one := range list {
		f, err := cbor.AsFloat64(one)
		if err != nil {
			f = math.NaN() // and so refused
		}
		all = append(all, f)
	}
	return all
}

func throttledCBOR(w http.ResponseWriter, _ *http.Request) {
	cborError(w, "com.amazonaws.cloudwatch#ThrottlingException", "Rate exceeded")
}

func cborError(w http.ResponseWriter, kind, message string) {
	w.Header().Set("Smithy-Protocol", "rpc-v2-cbor")
	w.Header().Set("Content-Type", "application/cbor")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = w.Write(cbor.Encode(cbor.Map{"__type": cbor.String(kind), "message": cbor.String(message)}))
}
