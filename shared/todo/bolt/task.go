package bolt

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"tideline/shared/todo"
)

var (
	_ todo.Store     = (*Store)(nil)
	_ todo.TaskStore = (*Store)(nil)
)

// Job is a task that waits in the queue.
type Job struct {
	Sequence uint64 `json:"-"`
	User     string `json:"user"`
	Task     string `json:"task"`
}

// ReadTask implements todo.TaskStore.
func (s *Store) ReadTask(ctx context.Context, user, id string) (t todo.TaskRecord, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		found, err := getJSON(sub(userBucket(tx, user), tasksBucket), []byte(id), &t)
		if err == nil && !found {
			err = todo.ErrNotFound
		}
		return err
	})
	return t, err
}

// WriteTask implements todo.TaskStore. A new task is queued in the same step.
func (s *Store) WriteTask(ctx context.Context, user string, w todo.TaskWrite) error {
	if len(w.Rows) > todo.TaskRows {
		return fmt.Errorf("task %s: %d rows in one step, at most %d", w.Next.ID, len(w.Rows), todo.TaskRows)
	}
	w.Next.User = user
	err := s.update(ctx, func(tx *bbolt.Tx) error {
		u, err := ensureUser(tx, user)
		if err != nil {
			return err
		}
		tasks, err := u.CreateBucketIfNotExists(tasksBucket)
		if err != nil {
			return err
		}
		var old todo.TaskRecord
		if _, err := getJSON(tasks, []byte(w.Next.ID), &old); err != nil {
			return err
		}
		if old.Version != w.Before {
			return todo.ErrConflict
		}
		for _, row := range w.Rows {
			if err := putRecord(u, 0, todo.Record{Todo: row}); err != nil {
				return err
			}
		}
		if w.Before == 0 {
			if err := queue(tx, Job{User: user, Task: w.Next.ID}); err != nil {
				return err
			}
		}
		return putJSON(tasks, []byte(w.Next.ID), w.Next)
	})
	if err == nil && w.Before == 0 {
		signal(s.work)
	}
	return err
}

// ListTasks implements todo.TaskStore: ids are UUIDs of version 7, so their order is that of time.
func (s *Store) ListTasks(ctx context.Context, user string, limit int) (out []todo.TaskRecord, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		b := sub(userBucket(tx, user), tasksBucket)
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, v := c.Last(); k != nil && len(out) < limit; k, v = c.Prev() {
			var t todo.TaskRecord
			if err := json.Unmarshal(v, &t); err != nil {
				return fmt.Errorf("decode task %s: %w", k, err)
			}
			out = append(out, t)
		}
		return nil
	})
	return out, err
}

func queue(tx *bbolt.Tx, j Job) error {
	b := tx.Bucket(queueBucket)
	n, err := b.NextSequence()
	if err != nil {
		return err
	}
	return putJSON(b, sequence(n), j)
}

// Jobs answers the oldest queued tasks, at most limit. A job stays queued until Done.
func (s *Store) Jobs(ctx context.Context, limit int) (out []Job, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		c := tx.Bucket(queueBucket).Cursor()
		for k, v := c.First(); k != nil && len(out) < limit; k, v = c.Next() {
			j := Job{Sequence: binary.BigEndian.Uint64(k)}
			if err := json.Unmarshal(v, &j); err != nil {
				return fmt.Errorf("decode job %d: %w", j.Sequence, err)
			}
			out = append(out, j)
		}
		return nil
	})
	return out, err
}

// Done takes a job off the queue.
func (s *Store) Done(ctx context.Context, j Job) error {
	return s.update(ctx, func(tx *bbolt.Tx) error { return tx.Bucket(queueBucket).Delete(sequence(j.Sequence)) })
}

// Work receives after tasks were queued, and once after New. One receiver is served.
func (s *Store) Work() <-chan struct{} { return s.work }
