// Asking the process that works on something to stop: whoever watches the journal is
// told at once, and nothing need be written or asked for again and again.

package disk

import (
	"context"
	"encoding/json"
	"slices"
)

// notice is what is said to whoever watches a journal; to one of an older version it
// is the question who is there, which all of them answer.
type notice struct {
	Stop string  `json:"stop"` // the ID of an operation
	By   Process `json:"by"`
}

// AskToStop asks the process that works on an operation to give it up, which that does
// as if its caller had. It does not wait for that, and says whether there is still
// somebody to ask, as [Cluster.Alive] does.
func (c *Cluster) AskToStop(ctx context.Context, o *Operation) (Presence, error) {
	if o.Abandoned || o.Holder.Dead() {
		return Gone, nil
	}
	by, err := c.self()
	if err != nil {
		return Gone, err
	}
	text, err := json.Marshal(notice{o.ID, by})
	if err != nil {
		return Gone, err
	}
	all, err := c.notify(ctx, o.Pool, text)
	if err != nil {
		return Gone, err
	}
	holder := all[o.Holder.Client]
	if holder.presence == Present && !slices.Contains(holder.work, o.ID) {
		return Gone, nil
	}
	return holder.presence, nil
}

// asked does what a notice says.
func (c *Cluster) asked(text []byte) {
	var n notice
	if len(text) == 0 || json.Unmarshal(text, &n) != nil {
		return // only who is there, or something of a newer version
	}
	c.workMu.Lock()
	stop := c.work[n.Stop]
	c.workMu.Unlock()
	if stop != nil {
		stop(n.By)
	}
}
