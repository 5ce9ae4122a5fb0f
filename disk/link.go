// What was seen of the way between two hosts when a machine last moved on it: there is
// nobody to ask how fast it is.

package disk

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
)

// linksObject has all of a pool's in its omap, by the hosts' names.
const linksObject = "vmdisk.links"

// Link is the way between two hosts, in whichever direction.
type Link struct {
	Rate int64 `json:"rate"` // bytes a second that a migration sent, on average
	// Overhead is how much longer the migration took than its sending: the destination
	// starts a QEMU, the source ends one.
	Overhead time.Duration `json:"overhead_ns"`
	Seen     time.Time     `json:"seen"`
}

func linkKey(a, b string) string {
	hosts := []string{a, b}
	slices.Sort(hosts)
	return strings.Join(hosts, " ")
}

// Link is what was last seen between two hosts; [ErrNotFound] if nothing was.
func (c *Cluster) Link(ctx context.Context, pool, a, b string) (l Link, err error) {
	err = c.pool(ctx, pool, func(io *rados.IOContext) error {
		key := linkKey(a, b)
		has, err := io.GetAllOmapValues(linksObject, "", key, 1)
		if err != nil && !is(err, ErrNotFound) {
			return wrap("read", "link "+key, err)
		}
		if has[key] == nil {
			return &Error{Op: "find", Object: "link " + key, Kind: ErrNotFound}
		}
		return wrap("read", "link "+key, json.Unmarshal(has[key], &l))
	})
	return l, err
}

// SaveLink writes down what was seen between two hosts, in place of what was there.
func (c *Cluster) SaveLink(ctx context.Context, pool, a, b string, l Link) error {
	l.Seen = l.Seen.UTC().Truncate(time.Second)
	value, err := json.Marshal(l)
	if err != nil {
		return err
	}
	key := linkKey(a, b)
	return c.pool(ctx, pool, func(io *rados.IOContext) error {
		_, err := omapChange{set: map[string][]byte{key: value}}.apply(io, linksObject)
		return wrap("record", "link "+key, err)
	})
}
