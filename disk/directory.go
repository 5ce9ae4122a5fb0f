// A pool's directory of images, read in pages.

package disk

import (
	"encoding/binary"

	"github.com/ceph/go-ceph/rados"
)

// encodeStrings encodes strings as Ceph does.
func encodeStrings(all ...string) (b []byte) {
	for _, s := range all {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

func decodeString(b []byte) (s string, rest []byte, err error) {
	if len(b) < 4 || uint64(len(b)-4) < uint64(binary.LittleEndian.Uint32(b)) {
		return "", nil, errShortAnswer
	}
	end := 4 + binary.LittleEndian.Uint32(b)
	return string(b[4:end]), b[end:], nil
}

// decodeStrings reads a set of strings; nothing is an empty one.
func decodeStrings(b []byte) (all []string, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) < 4 {
		return nil, errShortAnswer
	}
	count, b := binary.LittleEndian.Uint32(b), b[4:]
	for range count {
		var s string
		if s, b, err = decodeString(b); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// directoryPage is how many names one read of the directory may give.
const directoryPage = 1024

// directory reads a pool's image names and their ids. The call is cls_rbd's
// dir_list.
func directory(io *rados.IOContext, pool string) (map[string]string, error) {
	ids := map[string]string{}
	after := ""
	for {
		in := binary.LittleEndian.AppendUint64(encodeStrings(after), directoryPage)
		out, err := exec(io, directoryObject, "dir_list", in)
		if is(err, ErrNotFound) {
			return ids, nil // no image was ever made here
		}
		if err == nil && len(out) < 4 {
			err = errShortAnswer
		}
		if err != nil {
			return nil, wrap("list", "pool "+pool, err)
		}
		n := binary.LittleEndian.Uint32(out)
		out = out[4:]
		for range n {
			name, rest, err := decodeString(out)
			if err != nil {
				return nil, wrap("list", "pool "+pool, err)
			}
			id, rest, err := decodeString(rest)
			if err != nil {
				return nil, wrap("list", "pool "+pool, err)
			}
			ids[name], after, out = id, name, rest
		}
		if n < directoryPage {
			return ids, nil
		}
	}
}
