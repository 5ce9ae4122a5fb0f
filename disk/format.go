// Recognising what is in an image: a file that somebody stored as it was, a qcow2
// for example, would boot as garbage.

package disk

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ceph/go-ceph/rbd"
)

// formatRaw is the only format of an image that a machine can boot from.
const formatRaw = "raw"

// formatName is how a magic is called in [Image.Format].
func (m *magic) formatName() string {
	if m == nil {
		return formatRaw
	}
	return strings.ToLower(m.name)
}

// readMagic reads an image's first bytes, one small request. A footer is not
// looked for: a disk with one is raw to whoever boots it.
func readMagic(img *rbd.Image, n Name) (*magic, error) {
	head := make([]byte, magicSize)
	k, err := img.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, wrap("read the first bytes of", n.String(), err)
	}
	return match(head[:k], nil), nil
}

// checkRaw refuses an image whose first bytes are those of another format. It
// looks at images only: the first bytes of a volume or of a machine's disk are a
// guest's, who may write there what it likes. A LUKS disk is for the guest to open.
func checkRaw(img *rbd.Image, n Name) error {
	if n.Pool == VolumePool || strings.HasPrefix(n.Image, volumePrefix) || isMachineDisk(n.Image) {
		return nil
	}
	m, err := readMagic(img, n)
	if err != nil || m == nil || m.name == "LUKS" {
		return err
	}
	return &Error{Op: "clone", Object: n.String(), Kind: ErrNotRaw,
		Reason: fmt.Sprintf("it holds a %s file, stored as it was: a machine would boot garbage", m.name)}
}
