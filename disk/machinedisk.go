// The disks that a machine owns besides its root disk, by the names that Nova
// gives them.

package disk

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/ceph/go-ceph/rados"
)

// What an image is to a machine.
const (
	RoleRoot      = "root"
	RoleSwap      = "swap"
	RoleEphemeral = "ephemeral"
	RoleConfig    = "config"
	RoleRescue    = "rescue"
	RoleVolume    = "volume"
	RoleOther     = "other" // it has the machine's UUID in its name, and no known ending
)

// SwapDiskName is the image name of a machine's swap disk.
func SwapDiskName(uuid string) string { return uuid + rootSuffix + ".swap" }

// EphemeralDiskName is the image name of a machine's i-th further disk, from 0.
func EphemeralDiskName(uuid string, i int) string {
	return fmt.Sprintf("%s%s.eph%d", uuid, rootSuffix, i)
}

// ConfigDiskName is the image name of a machine's config drive.
func ConfigDiskName(uuid string) string { return uuid + rootSuffix + ".config" }

// RescueDiskName is the image name of the disk that a machine in rescue boots from.
func RescueDiskName(uuid string) string { return uuid + rootSuffix + ".rescue" }

// Owned says whether an image is the machine's own, and goes with it.
func Owned(uuid, image string) bool { return strings.HasPrefix(image, uuid+"_") }

var ephemeralForm = regexp.MustCompile(`^_disk\.(eph[0-9]+|local)$`)

// Role is what an image is to the machine with a UUID.
func Role(uuid, image string) string {
	rest, own := strings.CutPrefix(image, uuid)
	switch {
	case !own:
		return RoleVolume
	case rest == rootSuffix:
		return RoleRoot
	case rest == rootSuffix+".swap":
		return RoleSwap
	case rest == rootSuffix+".config":
		return RoleConfig
	case ephemeralForm.MatchString(rest):
		return RoleEphemeral
	case strings.HasSuffix(rest, ".rescue"):
		return RoleRescue
	}
	return RoleOther
}

// CreateDisk makes an empty image of size bytes, in 4 MiB objects as `rbd import`,
// by which Nova makes such disks, has them. A name that is taken is [ErrExists].
//
// Similar to: rbd create.
func (c *Cluster) CreateDisk(ctx context.Context, n Name, size int64) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		return createImage(io, n, size, volumeOrder)
	})
}
