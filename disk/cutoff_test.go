package disk

import (
	"errors"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/google/uuid"
)

// A removal whose process died while librbd moved the image into the trash is finished
// by the next one: what it left is in no list, and librbd itself would not remove it.
func TestRemoveCutOffOnItsWay(t *testing.T) {
	c := open(t)
	n := Name{Pool: ImagePool, Image: "cut-off-" + uuid.NewString()[:8]}
	err := c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error {
		if err := rbd.CreateImage(io, n.Image, 1<<20, rbd.NewRbdImageOptions()); err != nil {
			return err
		}
		id, err := imageID(io, n)
		if err != nil {
			return err
		}
		if err := rbd.GetImage(io, n.Image).Trash(0); err != nil {
			return err
		}
		all, err := io.GetOmapValues(trashObject, "", trashKey+id, 1)
		if err != nil {
			return err
		}
		entry := all[trashKey+id]
		const source = 1 + 1 + 4
		entry[source], entry[source+1+4+len(n.Image)+8+8] = removing, stateMoving
		return io.SetOmap(trashObject, map[string][]byte{trashKey + id: entry})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.remove(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := c.remove(t.Context(), n); !errors.Is(err, ErrNotFound) {
		t.Errorf("the second removal: %v", err)
	}
}
