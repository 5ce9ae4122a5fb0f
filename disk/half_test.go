package disk

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/ceph/go-ceph/rados"
)

// What is left when a process dies while it makes, renames, trashes or purges an image
// is removed, or finished; an image of that name can be made.
func TestHalfImages(t *testing.T) {
	c := open(t)
	n := Name{Pool: VMPool, Image: "half"}
	idOf := func(io *rados.IOContext) string {
		id, err := imageID(io, n)
		check(t, err)
		return id
	}
	for name, cut := range map[string]func(io *rados.IOContext) error{
		"listed only": func(io *rados.IOContext) error {
			id := idOf(io)
			return errors.Join(io.Delete("rbd_header."+id), io.Delete("rbd_object_map."+id), io.Delete("rbd_id."+n.Image))
		},
		"listed and named": func(io *rados.IOContext) error {
			id := idOf(io)
			return errors.Join(io.Delete("rbd_header."+id), io.Delete("rbd_object_map."+id))
		},
		"with an object map": func(io *rados.IOContext) error { return io.Delete("rbd_header." + idOf(io)) },
		"named only": func(io *rados.IOContext) error {
			id := idOf(io)
			return errors.Join(io.Delete("rbd_header."+id), call(io, directoryObject, "dir_remove_image", n.Image, id))
		},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, c.CreateDisk(t.Context(), n, 1<<20))
			check(t, c.pool(t.Context(), n.Pool, cut))
			if _, err := c.Size(t.Context(), n); !errors.Is(err, ErrNotFound) {
				t.Errorf("error is %v", err)
			}
			if half, err := c.hasNames(t.Context(), n); err != nil || !half {
				t.Errorf("it has no names, %v", err)
			}
			check(t, c.RemoveDisk(t.Context(), n))
			if half, err := c.hasNames(t.Context(), n); err != nil || half {
				t.Errorf("it has names, %v", err)
			}
			check(t, c.CreateDisk(t.Context(), n, 1<<20))
			check(t, c.RemoveDisk(t.Context(), n))
		})
	}
}

// One that has its header and not yet its object map goes too.
func TestHalfImageWithoutObjectMap(t *testing.T) {
	c := open(t)
	n := Name{Pool: VMPool, Image: "half"}
	check(t, c.CreateDisk(t.Context(), n, 1<<20))
	check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error {
		id, err := imageID(io, n)
		check(t, err)
		return io.Delete("rbd_object_map." + id)
	}))
	check(t, c.RemoveDisk(t.Context(), n))
	check(t, c.Absent(t.Context(), n))
}

// A renaming that died with the second name written, or the directory too, is ended.
func TestHalfRenamed(t *testing.T) {
	c := open(t)
	from, to := Name{Pool: VMPool, Image: "half"}, Name{Pool: VMPool, Image: "whole"}
	for _, listed := range []bool{false, true} {
		check(t, c.CreateDisk(t.Context(), from, 1<<20))
		check(t, c.pool(t.Context(), from.Pool, func(io *rados.IOContext) error {
			id, err := imageID(io, from)
			check(t, err)
			check(t, io.WriteFull("rbd_id."+to.Image, encodeStrings(id)))
			if listed {
				check(t, call(io, directoryObject, "dir_rename_image", from.Image, to.Image, id))
			}
			return nil
		}))
		check(t, c.FinishRename(t.Context(), from, to))
		names, err := c.imageNames(t.Context(), VMPool, func(s string) bool { return s == from.Image || s == to.Image })
		if err != nil || len(names) != 1 || names[0] != to.Image {
			t.Errorf("names are %v, %v", names, err)
		}
		if _, err := c.Size(t.Context(), from); !errors.Is(err, ErrNotFound) {
			t.Errorf("error is %v", err)
		}
		check(t, c.FinishRename(t.Context(), from, to))
		check(t, c.RemoveDisk(t.Context(), to))
	}
}

// A clone that its parent does not know of, and whose parent is gone, can be removed.
func TestHalfClone(t *testing.T) {
	c := open(t)
	n := Name{Pool: ImagePool, Image: "half-parent", Snap: ImageSnapshot}
	clone := Name{Pool: VMPool, Image: "half-clone"}
	check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error { return createImage(io, n, 1<<20, imageOrder) }))
	check(t, c.CreateSnapshot(t.Context(), n))
	check(t, c.ProtectSnapshot(t.Context(), n))
	check(t, c.Clone(t.Context(), n, 0, clone))
	check(t, c.pool(t.Context(), clone.Pool, func(io *rados.IOContext) error { // as if it had not come so far
		id, err := imageID(io, clone)
		check(t, err)
		all, err := io.GetAllOmapValues("rbd_children", "", "", 100)
		for key, value := range all {
			if bytes.Contains(value, []byte(id)) {
				err = errors.Join(err, io.RmOmapKeys("rbd_children", []string{key}))
			}
		}
		return err
	}))
	if cut, err := c.cutShort(t.Context(), clone); err != nil || cut {
		t.Errorf("with its parent it is cut short, %v", err)
	}
	check(t, c.RemoveImage(t.Context(), n))
	if cut, err := c.cutShort(t.Context(), clone); err != nil || !cut {
		t.Errorf("without its parent it is whole, %v", err)
	}
	check(t, c.RemoveDisk(t.Context(), clone))
	if err := c.Absent(context.WithoutCancel(t.Context()), clone); err != nil {
		t.Error(err)
	}
}

// A purge that died with the header gone is ended.
func TestHalfPurged(t *testing.T) {
	c := open(t)
	n := Name{Pool: ImagePool, Image: "half"}
	check(t, c.CreateDisk(t.Context(), n, 1<<20))
	check(t, c.MoveToTrash(t.Context(), n, 0))
	in, err := c.InTrash(t.Context(), n)
	check(t, err)
	check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error { return io.Delete("rbd_header." + in.ID) }))
	check(t, c.TrashedRemovable(t.Context(), in))
	check(t, c.PurgeTrash(t.Context(), in, false))
	if _, err := c.InTrash(t.Context(), n); !errors.Is(err, ErrNotFound) {
		t.Errorf("error is %v", err)
	}
	check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error {
		if _, err := io.Stat("rbd_object_map." + in.ID); !is(err, ErrNotFound) {
			t.Errorf("its object map: %v", err)
		}
		return nil
	}))
}
