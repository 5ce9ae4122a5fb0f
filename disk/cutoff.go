// What librbd leaves if its process dies while it removes an image. It moves the
// image into the trash first, as "removing", which no list of the trash shows, and
// the name is gone from then on.

package disk

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

const (
	trashKey = "id_"   // followed by the image's ID
	removing = byte(3) // RBD_TRASH_IMAGE_SOURCE_REMOVING

	// What an entry is at: cls::rbd::TRASH_IMAGE_STATE_*.
	stateNormal = byte(0)
	stateMoving = byte(1) // into the trash, and a process that died there left it so
)

// finishRemoval removes for good what a removal of an image of this name that was
// cut off has left, and says whether there was anything.
func finishRemoval(io *rados.IOContext, n Name) (found bool, err error) {
	trash, err := io.GetAllOmapValues(trashObject, "", trashKey, 1000)
	if err != nil {
		return false, ignore(wrap("read trash of", "pool "+n.Pool, err), ErrNotFound)
	}
	for key, entry := range trash {
		if source, name := trashEntry(entry); source != removing || name != n.Image {
			continue
		}
		found = true
		// librbd removes none that is still to come: EUCLEAN, for good.
		if moved := moved(entry); moved != nil {
			if err := io.SetOmap(trashObject, map[string][]byte{key: moved}); err != nil {
				return found, wrap("remove", n.String(), err)
			}
		}
		if err := finishRemovalOf(io, n, strings.TrimPrefix(key, trashKey)); err != nil {
			return found, err
		}
	}
	return found, nil
}

// finishRemovalOf removes one by its ID. Without a header there is nothing that
// librbd could open.
func finishRemovalOf(io *rados.IOContext, n Name, id string) error {
	t := Trashed{ID: id, Pool: n.Pool, Image: n.Image}
	there, err := hasHeader(io, id, noSnap)
	switch {
	case err != nil:
		return wrap("remove", n.String(), err)
	case there:
		return wrap("remove", n.String()+" (half removed)", rbd.TrashRemove(io, t.ID, true))
	}
	return purgeEntry(io, t)
}

// moved is an entry of an image that was on its way into the trash, as that of one that
// has come; nil if it is none. The state is behind the name and two times of 8 bytes;
// what is written by a Ceph before 14 has none.
func moved(entry []byte) []byte {
	_, name := trashEntry(entry)
	at := 1 + 1 + 4 + 1 + 4 + len(name) + 8 + 8
	if name == "" || len(entry) <= at || entry[at] != stateMoving {
		return nil
	}
	entry = slices.Clone(entry)
	entry[at] = stateNormal
	return entry
}

// trashEntry reads the start of a cls::rbd::TrashImageSpec: after the version and the
// length come who moved it there and the name.
func trashEntry(b []byte) (source byte, name string) {
	const start = 1 + 1 + 4
	if len(b) < start+1+4 {
		return 0, ""
	}
	rest := b[start+1+4:]
	if length := binary.LittleEndian.Uint32(b[start+1:]); int(length) <= len(rest) {
		name = string(rest[:length])
	}
	return b[start], name
}
