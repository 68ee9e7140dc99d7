package bus

import (
	"fmt"
	"testing"
)

func TestRemoveHistory(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, o Options) {
		b := openTest(t, o)
		r := newRecorder()
		follow(t, b, r, nil).Subscribe("chat:gone")
		r.confirmedTimes(t, 1, "chat:gone")
		p := text("chat:gone", "x")
		p.History.Size = 10
		var top Position
		for range 3 {
			top = mustPublish(t, b, p).Position
		}
		got, err := b.RemoveHistory(t.Context(), "chat:gone")
		if err != nil || got != top {
			t.Fatalf("answered %+v, %v; the position is %+v", got, err, top)
		}
		// Twice is as good as once, and what comes after is kept.
		if got, err = b.RemoveHistory(t.Context(), "chat:gone"); err != nil || got != top {
			t.Errorf("again: %+v, %v", got, err)
		}
		p.Data = []byte("later")
		if next := mustPublish(t, b, p).Position; next != (Position{top.Epoch, 4}) {
			t.Errorf("the next is at %+v", next)
		}
		r.hears(t, "chat:gone", "later")
		var heard []string
		for _, m := range r.messages("chat:gone") {
			heard = append(heard, fmt.Sprintf("%d %d %v", m.Kind, m.Publication.Offset, m.Epoch == top.Epoch))
		}
		want := []string{"0 1 true", "0 2 true", "0 3 true", "3 3 true", "3 3 true", "0 4 true"}
		if fmt.Sprint(heard) != fmt.Sprint(want) {
			t.Errorf("heard %v, want %v", heard, want)
		}
		pubs, _, err := b.History(t.Context(), "chat:gone", Page{Limit: -1})
		if err != nil || len(pubs) != 1 || string(pubs[0].Data) != "later" {
			t.Errorf("history %d, %v", len(pubs), err)
		}
		_, _, err = b.Since(t.Context(), "chat:gone", Position{top.Epoch, 2})
		wantErr(t, err, ErrUnrecoverable)
		tops, errs := b.Tops(t.Context(), []string{"chat:gone", "chat:other"})
		if errs[0] != nil || errs[1] != nil || tops[0].Removed != 3 || tops[0].Offset != 4 || tops[1].Removed != 0 {
			t.Errorf("tops %+v, %v", tops, errs)
		}
		_, err = b.RemoveHistory(t.Context(), "no spaces")
		wantErr(t, err, ErrInvalid)
		if top, err = b.RemoveHistory(t.Context(), "chat:never"); err != nil || top.Offset != 0 {
			t.Errorf("of a channel that nobody has used: %+v, %v", top, err)
		}
		r.check(t)
	})
}
