// What a qcow2's header says of the file below it.

package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// backing is what a qcow2 needs to be whole.
type backing struct {
	name   string // as the header has it
	format string // "" if it does not say
}

const (
	// maxBackingName is the longest name that QEMU writes.
	maxBackingName = 1023
	// backingFormat marks the header extension with the format.
	backingFormat = 0xe2792aca
	headerV2      = 72
)

// readBacking reads the name of the backing file, if there is one, and its format.
func (q *qcow2) readBacking(h []byte) error {
	if binary.BigEndian.Uint64(h[8:]) == 0 {
		return nil
	}
	name, err := q.backingName(h)
	if err != nil {
		return err
	}
	format, err := q.backingFormat(h)
	q.backing = &backing{name, format}
	return err
}

func (q *qcow2) backingName(h []byte) (string, error) {
	off, n := binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint32(h[16:])
	if n == 0 || n > maxBackingName || off > uint64(q.fileSize) {
		return "", errors.New("the name of its backing file is damaged")
	}
	name := make([]byte, n)
	err := readFull(q.f, name, int64(off))
	return string(name), err
}

// backingText is the name for a message.
func (q *qcow2) backingText(h []byte) string {
	name, err := q.backingName(h)
	if err != nil {
		return "in its header"
	}
	return fmt.Sprintf("%.256q", name)
}

// backingFormat looks for the format among the header's extensions, which end where
// the name begins, or with the cluster.
func (q *qcow2) backingFormat(h []byte) (string, error) {
	be := binary.BigEndian
	at := int64(headerV2)
	if q.version == 3 {
		at = int64(be.Uint32(h[100:]))
	}
	end := min(q.clusterSize(), int64(be.Uint64(h[8:])))
	var e [8]byte
	for at+8 <= end {
		if err := readFull(q.f, e[:], at); err != nil {
			return "", err
		}
		kind, n := be.Uint32(e[:]), int64(be.Uint32(e[4:]))
		at += 8
		switch {
		case kind == 0:
			return "", nil
		case n > end-at:
			return "", errors.New("the extensions of its header are damaged")
		case kind == backingFormat:
			format := make([]byte, n)
			err := readFull(q.f, format, at)
			return string(format), err
		}
		at += (n + 7) &^ 7
	}
	return "", nil
}
