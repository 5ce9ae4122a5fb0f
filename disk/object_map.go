// Object maps as they are stored: which of an image's objects are there.

package disk

import "encoding/binary"

// objectMapInvalid is the flag of an object map that cannot be trusted. Source:
// librbd.h, RBD_FLAG_OBJECT_MAP_INVALID.
const objectMapInvalid = 1

// objectExists is an object's state. Source: librbd, OBJECT_EXISTS.
const objectExists = 1

// decodeObjectMap gives the states of an image's objects, four in a byte, the first in
// the highest bits, and how many there are. Source: Ceph's BitVector.
func decodeObjectMap(out []byte) (states []byte, count uint64, err error) {
	if len(out) < 4 {
		return nil, 0, errShortAnswer
	}
	head, rest := binary.LittleEndian.Uint32(out), out[4:]
	if head < 14 || uint64(len(rest)) < uint64(head) { // two versions, a length, and the count
		return nil, 0, errShortAnswer
	}
	count, rest = binary.LittleEndian.Uint64(rest[6:]), rest[head:]
	need := (count + 3) / 4
	if uint64(len(rest)) < need {
		return nil, 0, errShortAnswer
	}
	return rest[:need], count, nil
}

func stateOf(states []byte, object uint64) byte {
	return states[object/4] >> (6 - 2*(object%4)) & 3
}

// encodeObjectMap is the inverse of decodeObjectMap. Source: Ceph's BitVector: a header, the
// states, and CRCs of the header and of each 4 KiB of states.
func encodeObjectMap(states []byte, count uint64) []byte {
	head := binary.LittleEndian.AppendUint64([]byte{1, 1, 8, 0, 0, 0}, count)
	out := append(binary.LittleEndian.AppendUint32(nil, uint32(len(head))), head...)
	out = append(out, states...)
	foot := binary.LittleEndian.AppendUint32(nil, cephCRC(0, head))
	const block = 4096
	foot = binary.LittleEndian.AppendUint32(foot, uint32((len(states)+block-1)/block))
	for at := 0; at < len(states); at += block {
		foot = binary.LittleEndian.AppendUint32(foot, cephCRC(0, states[at:min(at+block, len(states))]))
	}
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(foot))), foot...)
}
