// Who is in the way of a change: watchers, clones, snapshots.

package disk

import (
	"context"
	"fmt"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Watcher is a client that has an image open for writing.
type Watcher struct {
	Addr   string `json:"address"` // IP:PORT/NONCE, the form that `ceph osd blocklist` takes
	Client string `json:"client"`  // client.4123, the session and not the user
}

func (w Watcher) String() string { return "open by " + w.Client + " from " + w.Addr }

// Watchers lists who has an image open for writing. The watch of a client that
// died lasts 30 s longer than it.
//
// Similar to: rbd status.
func (c *Cluster) Watchers(ctx context.Context, n Name) ([]Watcher, error) {
	var all []Watcher
	err := c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		id, err := imageID(io, n)
		if err == nil {
			_, all, err = ask(io, "rbd_header."+id, nil)
		}
		return wrap("list watchers of", n.String(), err)
	})
	return all, err
}

func watchers(img *rbd.Image, n Name) ([]Watcher, error) {
	list, err := img.ListWatchers()
	if err != nil {
		return nil, wrap("list watchers of", n.String(), err)
	}
	all := []Watcher{}
	for _, w := range list {
		all = append(all, Watcher{Addr: w.Addr, Client: fmt.Sprintf("client.%d", w.Id)})
	}
	return all, nil
}

// inUse is the error for an image that has watchers.
func inUse(op string, n Name, by []Watcher) error {
	e := &Error{Op: op, Object: n.String(), Kind: ErrInUse}
	for _, w := range by {
		e.Holders = append(e.Holders, w.String())
	}
	return e
}

// clones lists the clones of an image's snapshots as POOL/IMAGE.
func clones(img *rbd.Image, n Name) ([]string, error) {
	list, err := img.ListChildrenAttributes()
	if err != nil {
		e := translate("list clones of", n.String(), err)
		if is(e, ErrPermission) { // as client.glance may not look into vms
			e.Reason = "permission denied: it has clones in a pool that this user has no cap for"
		}
		return nil, e
	}
	var all []string
	for _, child := range list {
		s := child.PoolName + "/" + child.ImageName
		if child.Trash {
			s += " (in the trash)"
		}
		all = append(all, s)
	}
	return all, nil
}

// snapshots lists the names of an image's snapshots.
func snapshots(img *rbd.Image, n Name) ([]string, error) {
	list, err := userSnapshots(img, n)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, s := range list {
		all = append(all, s.Name)
	}
	return all, nil
}

// parent is where an image was cloned from, or the zero Name.
func parent(img *rbd.Image, n Name) (Name, error) {
	info, err := img.GetParent()
	if is(err, ErrNotFound) {
		return Name{}, nil
	}
	if err != nil {
		return Name{}, wrap("read parent of", n.String(), err)
	}
	return Name{Pool: info.Image.PoolName, Image: info.Image.ImageName, Snap: info.Snap.SnapName}, nil
}
