// The names of pools, images and snapshots: what is allowed, and what others
// (Glance, Nova, Cinder) expect them to be.

package disk

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The pools and the names in them that Glance, Nova and Cinder use too.
const (
	ImagePool  = "images"  // Glance's images
	VMPool     = "vms"     // Nova's root disks
	VolumePool = "volumes" // Cinder's volumes

	// ImageSnapshot is the protected snapshot of an image that disks are cloned
	// from. Source: glance_store, _drivers/rbd.py.
	ImageSnapshot = "snap"

	volumePrefix = "volume-"
	rootSuffix   = "_disk"

	// maxName is well below what RBD and libvirt take (both refuse names only
	// near the length of a file name), so that suffixes of ours still fit.
	maxName = 128
)

// RootDiskName is the image name of a machine's root disk, "UUID_disk", as Nova
// names it.
func RootDiskName(uuid string) string { return uuid + rootSuffix }

// VolumeName is the image name of a volume, "volume-ID", as Cinder names it.
func VolumeName(id string) string { return volumePrefix + id }

// VolumeID is the inverse of [VolumeName]: the ID that an image name stands
// for. An image that is not named as a volume is its own ID.
func VolumeID(image string) string { return strings.TrimPrefix(image, volumePrefix) }

// CheckName refuses a name that RBD, libvirt, QEMU or a shell would read as
// something else: what separates pool, image and snapshot (/ @), QEMU's options
// (: \ ,), XML and quotes, a path (..), an option (-x). Kind says what the name is
// for: "VM", "image". The error is an [ErrInvalid].
func CheckName(kind, name string) error {
	object := fmt.Sprintf("%s name %.40q", kind, name)
	switch {
	case name == "":
		return invalid(kind+" name", "is empty")
	case len(name) > maxName:
		return invalid(object, "has %d bytes, at most %d are allowed", len(name), maxName)
	case !utf8.ValidString(name):
		return invalid(object, "is not valid UTF-8")
	case name[0] == '-':
		return invalid(object, "begins with a dash")
	case strings.Contains(name, "..") || name == ".":
		return invalid(object, `contains ".."`)
	case strings.TrimSpace(name) != name:
		return invalid(object, "begins or ends with a space")
	}
	for _, r := range name {
		if strings.ContainsRune("/@:<>&'\"\\,;|$`*?", r) || unicode.IsControl(r) {
			return invalid(object, "contains %q", r)
		}
	}
	return nil
}

// Name is an image, or a snapshot of one, in a pool.
type Name struct {
	Pool  string
	Image string
	Snap  string // "" is the image itself
}

// String is the form that rbd prints and reads, POOL/IMAGE[@SNAP].
func (n Name) String() string {
	s := n.Pool + "/" + n.Image
	if n.Snap != "" {
		s += "@" + n.Snap
	}
	return s
}

// ParseName reads an image spec [POOL/]IMAGE[@SNAP], as rbd does; without a
// pool it is in pool. The error is an [ErrInvalid].
func ParseName(spec, pool string) (Name, error) {
	n := Name{Pool: pool, Image: spec}
	if p, image, ok := strings.Cut(spec, "/"); ok {
		n.Pool, n.Image = p, image
	}
	if image, snap, ok := strings.Cut(n.Image, "@"); ok {
		n.Image, n.Snap = image, snap
		if err := CheckName("snapshot", snap); err != nil {
			return Name{}, err
		}
	}
	if err := CheckName("pool", n.Pool); err != nil {
		return Name{}, err
	}
	if err := CheckName("image", n.Image); err != nil {
		return Name{}, err
	}
	return n, nil
}

// ParseImage reads what names an image to clone from: [POOL/]ID[@SNAP], by
// default in "images" and at "snap".
func ParseImage(spec string) (Name, error) {
	n, err := ParseName(spec, ImagePool)
	if err == nil && n.Snap == "" {
		n.Snap = ImageSnapshot
	}
	return n, err
}

// ParseImageID reads what names an image as a whole, [POOL/]ID: one to make, to
// describe or to remove. A snapshot is refused, and so is what is a volume or a
// machine's disk, for which there are other commands.
func ParseImageID(spec string) (Name, error) {
	n, err := ParseName(spec, ImagePool)
	switch {
	case err != nil:
		return Name{}, err
	case n.Snap != "":
		return Name{}, invalid(spec, "names a snapshot, not an image")
	case n.Pool == VolumePool || strings.HasPrefix(n.Image, volumePrefix):
		return Name{}, invalid(spec, "is a volume, not an image; see vmdisk volume")
	case isMachineDisk(n.Image):
		return Name{}, invalid(spec, "is a machine's disk, not an image; see vmdisk disk")
	}
	return n, nil
}

var machineDisk = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}_disk`)

func isMachineDisk(image string) bool { return machineDisk.MatchString(image) }

// ParseVolume reads what names a volume: its ID, its image name volume-ID, or
// POOL/IMAGE for an image that is named otherwise.
func ParseVolume(spec string) (Name, error) {
	n, err := ParseName(spec, VolumePool)
	if err != nil {
		return Name{}, err
	}
	if n.Snap != "" {
		return Name{}, invalid(spec, "names a snapshot, not a volume")
	}
	if isMachineDisk(n.Image) {
		return Name{}, invalid(spec, "is a machine's disk, not a volume")
	}
	if !strings.Contains(spec, "/") && !strings.HasPrefix(n.Image, volumePrefix) {
		n.Image = VolumeName(n.Image)
	}
	return n, nil
}

// ParseRootDisk reads what names a root disk: the machine's UUID, its image
// name UUID_disk, or POOL/IMAGE.
func ParseRootDisk(spec string) (Name, error) {
	n, err := ParseName(spec, VMPool)
	if err != nil {
		return Name{}, err
	}
	if n.Snap != "" {
		return Name{}, invalid(spec, "names a snapshot, not a disk")
	}
	if n.Pool == VolumePool || n.Pool == ImagePool {
		return Name{}, invalid(spec, "is in the pool of volumes or images, not a machine's disk")
	}
	if !strings.Contains(spec, "/") && !strings.HasSuffix(n.Image, rootSuffix) {
		n.Image = RootDiskName(n.Image)
	}
	return n, nil
}
