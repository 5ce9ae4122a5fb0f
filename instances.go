// Nova's folder of instances, and the machines that libvirt has: which belong together.

package vmdisk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// Instance is a machine of a host that had its disks in Nova's folders.
type Instance struct {
	// VM is its name; that of a folder without a definition is what its libvirt.xml says,
	// or "".
	VM    string
	UUID  string
	State string // as virsh says it: "running", "shut off"; "" if it is not defined
	Dir   string // its folder, or "" if there is none
	// Disks are those that are adopted, or are to be; of a folder without a definition
	// what there is. None is that there is nothing to do.
	Disks []AdoptedDisk
	Err   error  // why it is not adopted
	Next  string // what to type about a folder without a definition, or ""
}

// Whole says whether the machine has both a folder and a definition.
func (i Instance) Whole() bool { return i.Dir != "" && i.State != "" }

// instances are the folders in dir that are called by a UUID, and all machines of the
// host, in the order of their names.
func (h *Host) instances(ctx context.Context, on session, dir string) ([]Instance, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	vms, err := domain.List(ctx, on.conn)
	if err != nil {
		return nil, err
	}
	all := make([]Instance, 0, len(vms))
	for _, vm := range vms {
		all = append(all, Instance{VM: vm.Name, UUID: vm.UUID, State: vm.State})
	}
	for _, e := range entries {
		id := e.Name()
		if !e.IsDir() || len(id) != len(uuid.Nil.String()) || uuid.Validate(id) != nil {
			continue
		}
		folder := filepath.Join(dir, id)
		if k := slices.IndexFunc(all, func(i Instance) bool { return i.UUID == id }); k >= 0 {
			all[k].Dir = folder
			continue
		}
		all = append(all, forsaken(folder))
	}
	return all, nil
}

// forsaken describes a folder whose machine is not defined.
func forsaken(folder string) Instance {
	i := Instance{UUID: filepath.Base(folder), Dir: folder}
	file := filepath.Join(folder, "libvirt.xml")
	if text, err := os.ReadFile(file); err == nil {
		if name, id, err := domain.Identity(string(text)); err == nil && id == i.UUID {
			i.VM, i.Next = name, "to have it back:  virsh define '"+file+"'"
		}
	}
	entries, err := os.ReadDir(folder)
	for _, e := range entries {
		if novaForm.MatchString(e.Name()) {
			i.Disks = append(i.Disks, i.inFile(filepath.Join(folder, e.Name())))
		}
	}
	i.Err = err
	return i
}

// inFile is a disk of which nobody says how it is to be understood: for people.
func (i Instance) inFile(file string) AdoptedDisk {
	d := AdoptedDisk{Target: filepath.Base(file), File: file}
	if chain, err := disk.Layers(file, disk.LocalOptions{}); err == nil {
		d.Chain, d.Size, d.Format = chain, chain[0].Size, chain[0].Format
	}
	return d
}

// InstancesError is a folder of instances of which not all were adopted. It matches
// whatever the reasons match.
type InstancesError struct {
	Dir  string
	Of   int      // how many there were to adopt
	VMs  []string // those that failed
	Errs []error  // why, of each
}

// Error says which failed, and not why: that is in Errs.
func (e *InstancesError) Error() string {
	return fmt.Sprintf("%d of %d machines in %s failed: %s", len(e.VMs), e.Of, e.Dir, strings.Join(e.VMs, ", "))
}

// Unwrap makes the reasons match.
func (e *InstancesError) Unwrap() []error { return e.Errs }
