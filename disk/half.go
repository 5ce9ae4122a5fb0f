// Half images: what is left when a process dies while it makes, renames or removes
// one. librbd gives an image its names before it has a header, and takes them away
// after that is gone: names without a header are nothing, and in the way of the next
// image of that name. It would only find out by opening it: see open.go.
//
// Source: librbd, image/CreateRequest, image/RemoveRequest, operation/RenameRequest.

package disk

import (
	"context"
	"encoding/binary"

	"github.com/ceph/go-ceph/rados"
)

const (
	directoryObject = "rbd_directory"
	trashObject     = "rbd_trash"
)

// hasHeader says whether there is an image of that id.
func hasHeader(io *rados.IOContext, id string, snap uint64) (bool, error) {
	_, err := exec(io, "rbd_header."+id, "get_size", binary.LittleEndian.AppendUint64(nil, snap))
	return err == nil, ignore(err, ErrNotFound)
}

// listedID is the id that the pool's directory has for a name, or "".
func listedID(io *rados.IOContext, n Name) (string, error) {
	out, err := exec(io, directoryObject, "dir_get_id", encodeStrings(n.Image))
	if is(err, ErrNotFound) {
		return "", nil
	}
	if err == nil {
		var id string
		if id, _, err = decodeString(out); err == nil {
			return id, nil
		}
	}
	return "", wrap("read id of", n.String(), err)
}

// namesOnly are the ids to which an image's names lead, and behind which there is
// nothing.
func namesOnly(io *rados.IOContext, n Name) (named, listed string, err error) {
	if named, err = imageID(io, n); ignore(err, ErrNotFound) != nil {
		return "", "", err
	}
	if listed, err = listedID(io, n); err != nil {
		return "", "", err
	}
	for _, id := range []*string{&named, &listed} {
		if *id == "" {
			continue
		}
		there, err := hasHeader(io, *id, noSnap)
		if err != nil {
			return "", "", wrap("find", n.String(), err)
		}
		if there {
			*id = ""
		}
	}
	return named, listed, nil
}

// removeNames removes the names of an image that is not there; if it has none it is
// [ErrNotFound].
func removeNames(io *rados.IOContext, n Name) error {
	named, listed, err := namesOnly(io, n)
	switch {
	case err != nil:
		return err
	case named+listed == "":
		return &Error{Op: "remove", Object: n.String(), Kind: ErrNotFound}
	}
	for _, id := range []string{named, listed} {
		if id != "" && err == nil {
			err = ignore(io.Delete("rbd_object_map."+id), ErrNotFound)
		}
	}
	if named != "" && err == nil {
		err = ignore(io.Delete("rbd_id."+n.Image), ErrNotFound)
	}
	if listed != "" && err == nil { // last, for it is what a list shows
		err = ignore(call(io, directoryObject, "dir_remove_image", n.Image, listed), ErrNotFound)
	}
	return wrap("remove", n.String(), err)
}

// hasNames says whether an image has names and nothing else.
func (c *Cluster) hasNames(ctx context.Context, n Name) (has bool, err error) {
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		named, listed, err := namesOnly(io, n)
		has = named+listed != ""
		return err
	})
	return has, err
}

// FinishRename ends a renaming whose process died half-way: the image has both names.
// If it has not, there is nothing to do.
func (c *Cluster) FinishRename(ctx context.Context, from, to Name) error {
	return c.pool(ctx, from.Pool, func(io *rados.IOContext) error {
		was, err := imageID(io, from)
		if is(err, ErrNotFound) {
			return nil
		}
		is, err := imageID(io, to)
		if err != nil || is != was {
			return ignore(err, ErrNotFound)
		}
		err = ignore(call(io, directoryObject, "dir_rename_image", from.Image, to.Image, is), ErrNotFound)
		if err == nil {
			err = ignore(io.Delete("rbd_id."+from.Image), ErrNotFound)
		}
		return wrap("rename", from.String(), err)
	})
}

// cutShort says whether an image is a clone that was cut short: it hangs on a
// snapshot that did not hear of it and is gone. librbd can remove it, and not open it.
// So it is with one that is being filled, whose origin may be gone.
func (c *Cluster) cutShort(ctx context.Context, n Name) (cut bool, err error) {
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		_, h, err := headerOf(io, n)
		if cut = h.migrating(); err == nil && !cut {
			cut, err = c.parentGone(io, n)
		}
		return err
	})
	return cut, ignore(err, ErrNotFound)
}

// parentGone says whether an image hangs on a snapshot that is not there. The call is
// cls_rbd's get_parent.
func (c *Cluster) parentGone(io *rados.IOContext, n Name) (bool, error) {
	id, err := imageID(io, n)
	if err != nil {
		return false, err
	}
	out, err := exec(io, "rbd_header."+id, "get_parent", binary.LittleEndian.AppendUint64(nil, noSnap))
	if err == nil && len(out) < 8 {
		err = errShortAnswer
	}
	if err != nil {
		return false, wrap("read parent of", n.String(), err)
	}
	pool := int64(binary.LittleEndian.Uint64(out))
	parent, rest, err := decodeString(out[8:])
	if err == nil && len(rest) < 8 {
		err = errShortAnswer
	}
	if err != nil || pool < 0 {
		return false, wrap("read parent of", n.String(), err)
	}
	name, err := c.conn.GetPoolByID(pool)
	if is(err, ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, wrap("read parent of", n.String(), err)
	}
	from, err := c.openPool(name)
	if err != nil {
		return false, err
	}
	defer from.Destroy()
	there, err := hasHeader(from, parent, binary.LittleEndian.Uint64(rest))
	if is(err, ErrPermission) { // it is for others to say
		return false, nil
	}
	return !there && err == nil, wrap("read parent of", n.String(), err)
}

// call calls a writing method of the rbd class, with strings, on an object that is
// there.
func call(io *rados.IOContext, object, method string, args ...string) error {
	return execWrite(io, object, method, encodeStrings(args...))
}
