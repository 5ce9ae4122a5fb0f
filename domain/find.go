// Finding machines on a host, by name or UUID as virsh does.

package domain

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"
	"libvirt.org/go/libvirt"
)

// with runs f with the domain that a name or a UUID stands for; it is
// [ErrNotFound] if there is none.
func with(ctx context.Context, conn *libvirt.Connect, vm string, f func(*libvirt.Domain) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d, err := lookup(conn, vm)
	if err != nil {
		return err
	}
	defer d.Free()
	return f(d)
}

func lookup(conn *libvirt.Connect, vm string) (*libvirt.Domain, error) {
	d, err := conn.LookupDomainByName(vm)
	if errors.Is(err, libvirt.ERR_NO_DOMAIN) && uuid.Validate(vm) == nil {
		d, err = conn.LookupDomainByUUIDString(vm)
	}
	if errors.Is(err, libvirt.ERR_NO_DOMAIN) {
		return nil, &Error{Object: "no VM " + vm + " on this host", Kind: ErrNotFound, Err: err}
	}
	return d, wrap("find VM", vm, err)
}

// Find describes the machine with a name or UUID.
//
// Similar to: virsh dominfo and domblklist.
func Find(ctx context.Context, conn *libvirt.Connect, vm string) (Info, error) {
	var info Info
	err := with(ctx, conn, vm, func(d *libvirt.Domain) (err error) {
		info, err = inspect(d)
		return err
	})
	return info, err
}

// List describes every machine of a host, by name.
//
// Similar to: virsh list --all.
func List(ctx context.Context, conn *libvirt.Connect) ([]Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	domains, err := conn.ListAllDomains(0)
	if err != nil {
		return nil, wrap("list", "VMs", err)
	}
	defer func() {
		for i := range domains {
			domains[i].Free()
		}
	}()
	all := []Info{}
	for i := range domains {
		info, err := inspect(&domains[i])
		if errors.Is(err, libvirt.ERR_NO_DOMAIN) {
			continue // it went while we looked
		}
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	slices.SortFunc(all, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func inspect(d *libvirt.Domain) (Info, error) {
	name, err := d.GetName()
	if err != nil {
		return Info{}, wrap("inspect", "VM", err)
	}
	id, err := d.GetUUIDString()
	if err != nil {
		return Info{}, wrap("inspect", name, err)
	}
	state, _, err := d.GetState()
	if err != nil {
		return Info{}, wrap("inspect", name, err)
	}
	text, err := d.GetXMLDesc(0)
	if err != nil {
		return Info{}, wrap("inspect", name, err)
	}
	found, err := ParseDisks(text)
	return Info{Name: name, UUID: id, State: states[state], Running: hasQEMU(state), Disks: found}, err
}

func hasQEMU(s libvirt.DomainState) bool {
	return s != libvirt.DOMAIN_SHUTOFF && s != libvirt.DOMAIN_CRASHED && s != libvirt.DOMAIN_NOSTATE
}
