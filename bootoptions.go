// What machine to make, and what of that is refused without asking anybody.

package vmdisk

import (
	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// What a machine gets that nobody described further.
const (
	DefaultMemory = 1 << 30 // bytes
	DefaultVCPUs  = 1
)

// BootOptions say what machine to make.
type BootOptions struct {
	// Image is [POOL/]ID[@SNAP] to clone, or a file or URL to read from until the disk
	// is filled, see [disk.IsOrigin].
	Image  string
	Size   int64  // of the root disk in bytes; 0 is the image's
	Memory int64  // bytes; 0 is [DefaultMemory]
	VCPUs  uint   // 0 is [DefaultVCPUs]
	UUID   string // "" is a new one, or that of DomainXML
	// Networks are libvirt networks, one interface each.
	Networks []string
	// Ephemeral are the sizes in bytes of further disks, empty ones that live and
	// die with the machine; each a whole number of MiB.
	Ephemeral []int64
	// Swap is the size in bytes of a disk that is swap space, a whole number of
	// MiB; 0 is none.
	Swap int64
	// ConfigDrive is what cloud-init finds at the first boot; nil is none.
	ConfigDrive *disk.ConfigDrive
	// DomainXML is the caller's own domain, of which vmdisk supplies the disks
	// only, see [domain.Supply]; "" is a machine of vmdisk's making. Memory, VCPUs
	// and Networks are not used with it.
	DomainXML string
	// Format "raw" clones an image whose first bytes are those of another format;
	// "" refuses it with [disk.ErrNotRaw]. For a file or URL see [disk.SourceOptions].
	Format string
	// NoStart leaves the machine defined and shut off.
	NoStart bool
}

// prepare checks the options and fills in what they leave open.
func (b *boot) prepare() (err error) {
	if err := disk.CheckName("VM", b.name); err != nil {
		return err
	}
	if !disk.IsOrigin(b.o.Image) {
		if b.image, err = disk.ParseImage(b.o.Image); err != nil {
			return err
		}
	}
	if b.o.DomainXML != "" {
		id, err := domain.UUIDOf(b.o.DomainXML)
		if err != nil {
			return err
		}
		if b.o.UUID == "" {
			b.o.UUID = id
		}
	}
	if b.o.UUID == "" {
		b.o.UUID = uuid.NewString()
	}
	id, err := uuid.Parse(b.o.UUID)
	if err != nil {
		return badInput("UUID %q is not one", b.o.UUID)
	}
	b.o.UUID = id.String()
	if b.o.DomainXML != "" { // will it take a disk?
		if _, err := domain.Supply(b.o.DomainXML, b.name, b.o.UUID, domain.Disk{}); err != nil {
			return err
		}
	}
	b.root = disk.Name{Pool: b.h.cfg.VMPool, Image: disk.RootDiskName(b.o.UUID)}
	if b.o.Memory == 0 {
		b.o.Memory = DefaultMemory
	}
	if b.o.VCPUs == 0 {
		b.o.VCPUs = DefaultVCPUs
	}
	if b.o.Size < 0 || b.o.Memory < 1<<20 {
		return badInput("size %d and memory %d must be positive, memory at least 1 MiB", b.o.Size, b.o.Memory)
	}
	b.more, err = ownDisks(b.h.cfg.VMPool, b.name, b.o)
	return err
}
