// Package outbox announces what was saved: it turns a store's record of writes into publications on the bus.
//
// In AWS the record is the table's stream and Handler is the Lambda function behind it; in one process it is the bbolt store's outbox and
// Local drains it. Both publish the event that the API may have published already, under the same id, key and version: the
// bus publishes each version at most once and never an older after a newer. When the bus is away, both wait and try again.
package outbox
