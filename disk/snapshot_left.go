// Snapshots that nobody can name: librbd puts one that it removes into a namespace
// of its own, "trash", where it stays while clones of format v2 hang on it, and also
// if the process dies between the two halves.

package disk

import (
	"github.com/ceph/go-ceph/rbd"
)

// userSnapshots are the snapshots that have a name of somebody's choice.
func userSnapshots(img *rbd.Image, n Name) ([]rbd.SnapInfo, error) {
	own, _, err := splitSnapshots(img, n)
	return own, err
}

func splitSnapshots(img *rbd.Image, n Name) (own, left []rbd.SnapInfo, err error) {
	list, err := img.GetSnapshotNames()
	if err != nil {
		return nil, nil, wrap("list snapshots of", n.String(), err)
	}
	for _, s := range list {
		kind, err := img.GetSnapNamespaceType(s.Id)
		switch {
		case is(err, ErrNotFound): // it went meanwhile
		case err != nil:
			return nil, nil, wrap("list snapshots of", n.String(), err)
		case kind == rbd.SnapNamespaceTypeTrash:
			left = append(left, s)
		default:
			own = append(own, s)
		}
	}
	return own, left, nil
}

// dropLeft finishes the removals of snapshots that were cut short. The image has no
// clones: then librbd needs none of them.
func dropLeft(img *rbd.Image, n Name) error {
	_, left, err := splitSnapshots(img, n)
	for _, s := range left {
		if err == nil {
			err = ignore(wrap("remove a snapshot of", n.String(), img.RemoveSnapByID(s.Id)), ErrNotFound)
		}
	}
	return err
}
