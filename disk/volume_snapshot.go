// A volume's snapshots, in Cinder's way, and finding one by its ID alone.

package disk

import (
	"context"
	"slices"
	"strings"

	"github.com/ceph/go-ceph/rbd"
)

// FindSnapshot is the snapshot that a volume's name or ID and a snapshot's stand
// for. Without a volume every volume of the pool is asked for it.
func (c *Cluster) FindSnapshot(ctx context.Context, n Name) (Name, error) {
	missing := func(where string) error {
		return &Error{Op: "find snapshot", Object: n.Snap, Kind: ErrNotFound, Reason: "no such snapshot of " + where}
	}
	pick := func(n Name) (found Name, err error) {
		want := n.Snap
		n.Snap = ""
		err = c.view(ctx, n, func(img *rbd.Image) error {
			names, err := snapshots(img, n)
			for _, try := range []string{want, SnapshotName(want)} {
				if err == nil && found.Snap == "" && slices.Contains(names, try) {
					found = n
					found.Snap = try
				}
			}
			return err
		})
		return found, err
	}
	if n.Image != "" {
		found, err := pick(n)
		if err == nil && found.Snap == "" {
			err = missing("volume " + n.Image)
		}
		return found, err
	}
	names, err := c.imageNames(ctx, n.Pool, func(s string) bool { return strings.HasPrefix(s, volumePrefix) })
	if err != nil {
		return Name{}, err
	}
	all, err := each(ctx, names, func(image string) (Name, error) {
		return pick(Name{Pool: n.Pool, Image: image, Snap: n.Snap})
	})
	if err != nil {
		return Name{}, err
	}
	all = slices.DeleteFunc(all, func(n Name) bool { return n.Snap == "" })
	switch len(all) {
	case 0:
		return Name{}, missing("any volume")
	case 1:
		return all[0], nil
	}
	return Name{}, invalid(n.Snap, "is a snapshot of several volumes (%s, %s); name one: VOLUME@SNAP", all[0].Image, all[1].Image)
}
